"""Operator counting: hand-computed layers, the known traps of both counters, and what must be refused."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from fvcore.nn import FlopCountAnalysis
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from harness.cost import witnesses
from harness.cost.macs import count, parameters
from harness.errors import CounterDisagreement, MeasurementError


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.Conv2d(8, 16, 3, padding=1), (2, 8, 10, 12), 2 * 16 * 10 * 12 * 8 * 9),
        (nn.Conv2d(8, 16, 3, stride=2), (1, 8, 11, 11), 16 * 5 * 5 * 8 * 9),
        (nn.Conv2d(8, 16, 3, padding=1, groups=4), (1, 8, 6, 6), 16 * 36 * 2 * 9),
        (nn.Conv2d(8, 8, 5, padding=2, groups=8), (1, 8, 6, 6), 8 * 36 * 25),
        (nn.Conv2d(4, 4, 3, dilation=2), (1, 4, 9, 9), 4 * 25 * 4 * 9),
        (nn.Conv1d(4, 6, 3), (1, 4, 10), 6 * 8 * 4 * 3),
        # each input position meets the whole kernel once
        (nn.ConvTranspose2d(8, 4, 4, 2, 1), (1, 8, 6, 5), 6 * 5 * 8 * 4 * 16),
        (nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=4), (1, 8, 6, 5), 6 * 5 * 8 * 2 * 16),
        (nn.Linear(7, 5), (3, 4, 7), 3 * 4 * 7 * 5),
        (nn.Linear(7, 5, bias=False), (7,), 35),
        (nn.BatchNorm2d(4), (1, 4, 8, 8), 0),
        (nn.LayerNorm(16), (3, 16), 0),
        (nn.PixelShuffle(2), (1, 8, 4, 4), 0),
        (nn.Upsample(scale_factor=2, mode="bilinear"), (1, 3, 4, 4), 0),
    ],
)
def test_a_layer_costs_what_the_hand_says(layer, shape, expected):
    ledger = count(layer.eval(), (torch.rand(shape),))
    assert ledger.macs == expected
    assert all(fvcore == torch_saw for fvcore, torch_saw in ledger.groups.values())


def test_fused_attention_costs_the_same_as_the_one_written_with_matmul():
    q, k, v = torch.rand(3, 1, 12, 64, 64)
    fused = count(F.scaled_dot_product_attention, (q, k, v))
    written = count(lambda a, b, c: (a @ b.transpose(-1, -2)).softmax(-1) @ c, (q, k, v))
    assert fused.macs == written.macs == fused.operator("attention") == 6_291_456
    assert written.operator("matrix product") == 6_291_456


def test_attention_with_a_mask_and_other_value_width_is_counted():
    q, k, v = torch.rand(2, 3, 5, 8), torch.rand(2, 3, 7, 8), torch.rand(2, 3, 7, 4)
    mask = torch.ones(5, 7, dtype=torch.bool)
    ledger = count(lambda a, b, c: F.scaled_dot_product_attention(a, b, c, attn_mask=mask), (q, k, v))
    assert ledger.macs == 2 * 3 * 5 * 7 * (8 + 4)


def test_fvcore_alone_drops_fused_attention():
    """The trap that the handlers repair; if fvcore learns it one day, this says so."""

    class Fused(nn.Module):
        def forward(self, q: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, q, q)

    alone = FlopCountAnalysis(Fused(), (torch.rand(1, 2, 8, 8),)).unsupported_ops_warnings(False)
    assert alone.total() == 0


def test_the_fused_encoder_layer_is_not_a_silent_zero():
    layer = nn.TransformerEncoderLayer(64, 4, dim_feedforward=128, batch_first=True).eval()
    before = torch.backends.mha.get_fastpath_enabled()
    tokens, dim = 32, 64
    expected = tokens * (4 * dim * dim + 2 * dim * 128) + 2 * tokens * tokens * dim
    assert count(layer, (torch.rand(1, tokens, dim),)).macs == expected
    assert torch.backends.mha.get_fastpath_enabled() == before


@pytest.mark.parametrize(
    ("function", "shapes", "expected"),
    [
        (torch.matmul, [(4, 5), (3, 5, 6)], 3 * 4 * 5 * 6),  # broadcast: fvcore's own rule gives a third
        (torch.matmul, [(2, 1, 4, 5), (3, 5, 6)], 6 * 4 * 5 * 6),
        (torch.matmul, [(4, 5), (5,)], 20),
        (torch.matmul, [(5,), (5,)], 5),
        (torch.mv, [(4, 5), (5,)], 20),
        (torch.bmm, [(2, 3, 4), (2, 4, 5)], 120),
        (torch.addmm, [(3, 5), (3, 4), (4, 5)], 60),
        (torch.baddbmm, [(2, 3, 5), (2, 3, 4), (2, 4, 5)], 120),
        (torch.addbmm, [(3, 5), (2, 3, 4), (2, 4, 5)], 120),
        (lambda a, b: torch.einsum("bhqd,bhkd->bhqk", a, b), [(2, 3, 4, 5), (2, 3, 6, 5)], 2 * 3 * 4 * 6 * 5),
        (lambda a, b: torch.einsum("...ij,...jk->...ik", a, b), [(2, 3, 4), (2, 4, 5)], 120),
        (lambda a, b: torch.einsum("i,j->ij", a, b), [(3,), (4,)], 0),  # elementwise
    ],
)
def test_matrix_products_of_every_form(function, shapes, expected):
    assert count(function, [torch.rand(s) for s in shapes]).macs == expected


class _Drops(nn.Module):
    """Keeps the tokens whose first value is positive."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, tokens: Tensor) -> dict[str, object]:
        kept = self.embed(tokens)[tokens[:, 0] > 0]
        return {"kept": [self.head(kept)], "number": len(kept)}


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 12), st.integers(0, 12))
def test_tokens_dropped_by_a_mask_are_counted_exactly(kept, dropped):
    tokens = torch.cat([torch.ones(kept, 8), -torch.ones(dropped, 8)])
    assert count(_Drops(), (tokens,)).macs == (kept + dropped) * 8 * 16 + kept * 16 * 4


def test_work_that_reaches_no_output_is_counted_because_the_machine_does_it():
    class Wasteful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(4, 4), nn.Linear(4, 8)

        def forward(self, x: Tensor) -> Tensor:
            self.unused(x) @ torch.ones(8, 3)
            return self.used(x)

    ledger = count(Wasteful(), (torch.rand(1, 4),))
    assert ledger.macs == 16 + 32 + 24
    assert ledger.module("unused").macs == 32


def test_filling_with_a_bool_does_not_stop_the_count():
    def forward(x: Tensor) -> Tensor:
        chosen = torch.full_like(x[:, 0], True, dtype=torch.bool) & torch.full((len(x),), True)
        return x[chosen] @ torch.ones(4, 2)

    assert count(forward, (torch.rand(3, 4),)).macs == 24


class _Hides(nn.Module):
    """A scripted function is one call to fvcore's trace; torch's dispatcher sees the product inside."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.hidden = nn.Linear(6, 6), nn.Module()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.hidden.forward = torch.jit.script(_product)

    def forward(self, x: Tensor) -> Tensor:
        return self.hidden(self.plain(x))


def _product(x: Tensor) -> Tensor:
    for _ in range(x.size(0)):
        x = x @ x
    return x


def test_a_disagreement_names_the_operator_and_the_module():
    with pytest.raises(CounterDisagreement) as caught:
        count(_Hides(), (torch.rand(6, 6),))
    assert "matrix work" in caught.value.what and f"{6 * 216:,}" in caught.value.what
    assert "hidden" in caught.value.where


def test_a_counter_that_is_off_by_one_is_caught(monkeypatch):
    exact = witnesses._HANDLES["aten::_convolution"]
    off = {**witnesses._HANDLES, "aten::_convolution": lambda i, o: exact(i, o) + Counter({"convolution": 1})}
    monkeypatch.setattr(witnesses, "_HANDLES", off)
    with pytest.raises(CounterDisagreement, match="convolution") as caught:
        count(nn.Sequential(nn.ReLU(), nn.Conv2d(1, 1, 1)), (torch.rand(1, 1, 2, 2),))
    assert "module 1 (Conv2d)" in caught.value.where


def test_a_custom_autograd_function_hides_nothing():
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x @ x

    assert count(Product.apply, (torch.rand(6, 6),)).macs == 216


def test_matrix_work_that_nobody_counts_is_refused():
    with pytest.raises(MeasurementError, match="aten::lstm"):
        count(nn.LSTM(4, 4), (torch.rand(5, 1, 4),))


def test_an_operator_from_elsewhere_is_refused_whatever_its_name():
    @torch.library.custom_op("elsewhere::token_mixer", mutates_args=())
    def mixed(x: torch.Tensor) -> torch.Tensor:
        return x @ x

    @mixed.register_fake
    def _(x):
        return torch.empty_like(x)

    with pytest.raises(MeasurementError, match="elsewhere::token_mixer may do matrix work"):
        count(mixed, (torch.rand(8, 8),))


def test_unknown_operators_without_matrix_work_are_listed():
    rows = {row.operator: row for row in count(lambda x: torch.erfinv(x) + F.gelu(x), (torch.rand(3),)).operators}
    assert rows["aten::erfinv"].status == "unknown"
    assert rows["aten::gelu"].status == "free"


def test_outputs_in_dataclasses_count():
    @dataclass
    class Output:
        maps: list[Tensor]
        trace: dict[str, Tensor]

    layer = nn.Conv2d(3, 2, 1)
    ledger = count(lambda x: Output([layer(x)], {"n": x.sum()}), (torch.rand(1, 3, 4, 4),), network=layer)
    assert ledger.macs == 96


def test_images_of_different_sizes_in_a_list_are_an_input():
    layer = nn.Conv2d(3, 2, 1)
    images = [torch.rand(3, 4, 4), torch.rand(3, 2, 5)]
    assert count(lambda batch: [layer(i[None]) for i in batch], (images,), network=layer).macs == 6 * 26


def test_a_shared_module_is_counted_at_each_call():
    shared = nn.Linear(4, 4)
    ledger = count(nn.Sequential(shared, nn.ReLU(), shared), (torch.rand(1, 4),))
    assert ledger.macs == 32
    assert ledger.module("0").macs == 32


def test_modules_sum_to_the_whole():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)), nn.Flatten(), nn.Linear(72, 3)
    )
    ledger = count(net.eval(), (torch.rand(1, 3, 8, 8),))
    assert sum(row.macs for row in ledger.top_level()) == ledger.macs == ledger.module("").macs
    assert [row.module for row in ledger.top_level()] == ["0", "1", "3"]
    assert ledger.module("1").fvcore - ledger.module("1").macs == 2 * 4 * 36


def test_counting_changes_nothing_in_the_network():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    image = torch.rand(1, 3, 8, 8)
    before = net(image)
    count(net, (image,))
    assert torch.equal(net(image), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_parameters_that_only_training_needs_are_told_apart():
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    net.aux = nn.Linear(2, 2)
    net.auxiliary = nn.Linear(1, 1)
    net.train_only = ("aux",)
    sizes = parameters(net)
    assert (sizes.total, sizes.inference) == (9 + 4 + 6 + 2, 9 + 4 + 2)


def test_parts_that_are_never_called_themselves_are_the_sum_of_what_is_in_them():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stages = nn.ModuleList([nn.Conv2d(1, 2, 1), nn.Sequential(nn.Conv2d(2, 2, 1))])
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            for stage in self.stages:
                x = stage(x)
            return self.head(x) @ torch.ones(3, 5)

    ledger = count(Net(), (torch.rand(1, 1, 4, 4),))
    rows = {row.module: row.macs for row in ledger.top_level()}
    assert rows == {"stages": 16 * (2 + 4), "head": 8 * 12, "(elsewhere)": 8 * 15}
    assert sum(rows.values()) == ledger.macs
