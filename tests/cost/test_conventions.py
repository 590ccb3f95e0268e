"""Counting conventions against published figures; the SimpleBaseline here is a witness written from its description."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torchvision
from torch import Tensor, nn

from harness.cost.conventions import figures, reproduce, reproducing, scaled, totals, unit
from harness.cost.macs import Ledger, count


class _Witness(nn.Module):
    """ResNet, three transposed convolutions of 256 channels, one 1x1 convolution to 17 maps."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        trunk = getattr(torchvision.models, f"resnet{depth}")(weights=None)
        self.trunk = nn.Sequential(*list(trunk.children())[:-2])
        layers: list[nn.Module] = []
        for channels in (2048, 256, 256):
            layers += [
                nn.ConvTranspose2d(channels, 256, 4, 2, 1, bias=False),
                nn.BatchNorm2d(256),
                nn.ReLU(inplace=True),
            ]
        self.head = nn.Sequential(*layers, nn.Conv2d(256, 17, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.trunk(images))


def _counted(depth: int, size: tuple[int, int]) -> Ledger:
    return count(_Witness(depth).eval(), (torch.rand(1, 3, *size),))


@pytest.mark.parametrize(
    ("depth", "size", "macs", "mmcv", "readme"),
    [
        (50, (256, 192), 5_426_380_800, "5.46", "8.99"),
        pytest.param(101, (256, 192), 9_062_842_368, "9.11", "12.38", marks=pytest.mark.slow),
        pytest.param(152, (256, 192), 12_699_303_936, "12.77", "15.77", marks=pytest.mark.slow),
        (50, (384, 288), 12_209_356_800, "12.29", "20.23"),
        pytest.param(101, (384, 288), 20_391_395_328, "20.50", "27.85", marks=pytest.mark.slow),
        pytest.param(152, (384, 288), 28_573_433_856, "28.73", "35.47", marks=pytest.mark.slow),
    ],
)
def test_simple_baseline_gives_the_published_figures(depth, size, macs, mmcv, readme):
    ledger = _counted(depth, size)
    printed = figures(totals(ledger))
    assert ledger.macs == macs
    assert f"{printed['mmcv']:.2f}" == mmcv
    assert printed["hrnet-readme"] == pytest.approx(float(readme), abs=0.006)
    assert totals(ledger)["torch"] == 2 * macs


def test_fvcore_adds_norms_and_resizing():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=2, mode="bilinear")
    )
    ledger = count(net.eval(), (torch.rand(1, 3, 4, 4),))
    assert totals(ledger)["fvcore"] == 192 + 2 * 64 + 256 + 4 * 1024
    assert totals(count(nn.LayerNorm(64), (torch.rand(10, 64),)))["fvcore"] == 3_200


def test_mmcv_charges_bias_relu_and_pooling():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.MaxPool2d(2))
    assert totals(count(net, (torch.rand(1, 1, 4, 4),)))["mmcv"] == 32 + 32 + 32 + 32


def test_the_readme_convention_charges_a_stride_two_deconvolution_four_times():
    net = nn.ConvTranspose2d(3, 5, 4, 2, 1)
    counts = totals(count(net, (torch.rand(1, 3, 4, 4),)))
    assert counts["hrnet-readme"] == 4 * counts["macs"]


def test_printed_figures_name_the_convention_that_gives_them():
    counts = {"macs": 5_426_380_800, "fvcore": 5_450_219_520, "mmcv": 5_461_502_976, "hrnet-readme": 9_654_239_232}
    assert reproducing("8.9", counts) == ["hrnet-readme"]
    assert reproducing("5.46", counts)[0] == "mmcv"
    assert reproducing("7.7", counts) == []


def test_larger_rows_of_old_tables_are_the_smaller_ones_times_the_area():
    printed = [scaled(small, (256, 192), (384, 288)) for small in ("8.9", "12.4", "15.7")]
    assert printed == pytest.approx([20.0, 27.9, 35.3], abs=0.05)


def test_a_unit_is_that_of_the_last_printed_digit():
    assert [unit(printed) for printed in ("35", "7.1", "7.70")] == pytest.approx([1.0, 0.1, 0.01])


@pytest.mark.parametrize(
    ("printed", "convention", "expected"),
    [
        ("7.1", "hrnet-readme", ("hrnet-readme", True)),
        ("7.1", "", ("hrnet-readme", True)),
        ("7.1", "mmcv", ("hrnet-readme", False)),  # its source counts otherwise: a chance hit reproduces nothing
        ("7.70", "mmcv", ("mmcv", True)),
        ("7.7", "mmcv", ("mmcv", True)),
        ("7.4", "none", ("macs", False)),
        ("15.3", "", ("torch", True)),
    ],
)
def test_a_figure_is_reproduced_by_the_convention_of_its_source_or_the_nearest_is_named(printed, convention, expected):
    giga = {"macs": 7.645, "fvcore": 7.685, "torch": 15.29, "mmcv": 7.702, "hrnet-readme": 7.12}
    found = reproduce(printed, giga, convention)
    assert (found.convention, found.reproduced) == expected and found.figure == giga[found.convention]


def test_the_conventions_do_without_torch():
    code = "import sys, harness.cost.conventions; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
