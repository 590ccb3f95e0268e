"""FasterPose, a reconstruction: counts of the card, its heads, its losses in use."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.cost.account import account
from harness.errors import SuiteError, UserError
from harness.method import Predictor, Trainable, find_variant, variants
from harness.pose.decoders import decode
from harness.pose.targets import encode
from harness.train import checkpoints
from harness.train.recipes import Progress, TrainBatch
from methods.fasterpose import HEADS, FasterPose
from methods.parts.losses import BIAS_PRIOR
from methods.parts.resnet import BasicBlock, Bottleneck, ResNet

LOSSES = ("rce_soft", "rce_kl", "rce_abs", "rce_qfl")


def _build(name, num_joints=17, input_size=(256, 192), **knobs):
    return find_variant(name).build(num_joints=num_joints, input_size=input_size, **knobs)


def _on_meta(name, *args, **knobs):
    with torch.device("meta"):
        return _build(name, *args, **knobs)


def _params(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    "name, head, joints, size, params, macs",
    [
        ("fasterpose_r50", "project_shuffle", 17, (256, 192), 24_312_448, 4_042_260_480),
        ("fasterpose_r50", "shuffle_first", 17, (256, 192), 23_508_593, 4_005_396_480),
        ("fasterpose_r50", "direct_shuffle", 17, (256, 192), 25_737_344, 4_110_680_064),
        ("fasterpose_r50", "thin_deconv", 17, (256, 192), 23_705_521, 4_028_989_440),
        ("fasterpose_r50", "bilinear", 17, (256, 192), 23_542_865, 4_005_396_480),
        ("fasterpose_r18", "project_shuffle", 17, (256, 192), 11_587_712, 1_796_210_688),
        ("fasterpose_r34", "project_shuffle", 17, (256, 192), 21_695_872, 3_608_150_016),
        ("fasterpose_r101", "project_shuffle", 17, (256, 192), 43_304_576, 7_678_722_048),
        ("fasterpose_r152", "project_shuffle", 17, (256, 192), 58_948_224, 11_315_183_616),
        ("fasterpose_r50", "project_shuffle", 17, (384, 288), 24_312_448, 9_095_086_080),
        ("fasterpose_r50", "project_shuffle", 17, (128, 96), 24_312_448, 1_010_565_120),
        ("fasterpose_r50", "project_shuffle", 16, (256, 256), 24_296_000, 5_388_632_064),
        ("fasterpose_r50", "direct_shuffle", 17, (384, 288), 25_737_344, 9_249_030_144),
        ("fasterpose_r50", "direct_shuffle", 16, (256, 256), 25_606_208, 5_472_518_144),
    ],
)
def test_counts_are_those_of_the_card_and_the_closed_form_equals_the_counter(name, head, joints, size, params, macs):
    network = _on_meta(name, joints, size, head=head)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        maps = network.eval().predict(torch.empty(1, 3, *size), {}).exits[0]
    assert maps.shape == (1, joints, size[0] // 4, size[1] // 4)
    assert (_params(network), network.macs({})) == (params, macs)
    assert counter.get_total_flops() // 2 == macs


def test_the_head_that_replaces_the_deconvolutions_saves_a_quarter_of_the_true_cost():
    saved = 1 - _on_meta("fasterpose_r50").macs({}) / _on_meta("simplebaseline_r50").macs({})
    assert round(100 * saved, 1) == 25.5


@pytest.mark.parametrize("head", HEADS)
def test_both_counters_agree_with_the_closed_form_of_the_tiny_one(head):
    # its 128 channels are enough for the sub-cells of eight joints, whatever the head
    network = _build("fasterpose_tiny", 8, (128, 96), head=head).eval()
    counted = account(network, {})
    assert counted["macs"] == counted["closed_form"]
    assert _params(network) <= 1_000_000  # at most 2 MB in half precision


def test_the_shuffle_puts_channel_k_64_plus_dy_8_plus_dx_at_sub_cell_dy_dx_of_joint_k():
    network = _build("fasterpose_r18", 3, (64, 32), head="direct_shuffle")
    k, dy, dx = 2, 5, 3
    write = network.head[0]
    torch.nn.init.zeros_(write.weight)
    torch.nn.init.zeros_(write.bias)
    write.bias.data[k * 64 + dy * 8 + dx] = 1.0
    maps = network.head(torch.zeros(1, 512, 2, 1))  # (1, 3, 16, 8)
    wanted = torch.zeros(1, 3, 16, 8)
    wanted[0, k, dy::8, dx::8] = 1.0
    assert torch.equal(maps, wanted)


@pytest.mark.parametrize("depth, left", [(18, "8 for each"), (34, "8 for each")])
def test_shuffle_first_is_refused_where_a_trunk_leaves_fewer_channels_than_joints(depth, left):
    with pytest.raises(UserError, match=left) as refusal:
        _on_meta(f"fasterpose_r{depth}", head="shuffle_first")
    assert "1088" in str(refusal.value.expected) and "17 joints" in str(refusal.value)


def test_shuffle_first_is_refused_where_channels_do_not_divide():
    trunk = ResNet(BasicBlock, (1, 1, 1), (8, 8, 100))
    with pytest.raises(UserError, match=r"6\.25 for each of the 4x4"):
        FasterPose(trunk, num_joints=2, input_size=(32, 32), head="shuffle_first")


def test_unknown_heads_and_losses_and_odd_sizes_are_refused():
    variant = find_variant("fasterpose_r50")
    for name in ("head", "loss"):
        with pytest.raises(SuiteError, match="nothing"):
            variant.knob(name).check("nothing")
    with pytest.raises(UserError, match="multiples of 32"):
        _on_meta("fasterpose_r50", 17, (250, 192))


def test_a_classifier_of_torchvision_starts_every_tensor_of_the_trunk():
    network, variant = _on_meta("fasterpose_r18"), find_variant("fasterpose_r18")
    trunk = network.backbone.state_dict()
    own = next(layout for layout in variant.layouts if layout.matches(network.state_dict()))
    imagenet = next(layout for layout in variant.layouts if layout.matches(trunk))
    assert (own.name, imagenet.name, imagenet.partial) == ("own", "torchvision", True)
    assert imagenet.to_own(trunk).keys() == {key for key in network.state_dict() if key.startswith("backbone.")}


def test_every_variant_says_that_it_is_a_reconstruction():
    mine = [v for v in variants().values() if v.method == "fasterpose"]
    assert len(mine) == 6
    assert all("reconstruction" in v.note and not v.published for v in mine)
    assert all("no recipe is published" in v.recipes["official"].differs[0] for v in mine)


@pytest.mark.parametrize("loss", LOSSES)
def test_answers_are_probabilities_and_start_near_the_mean_of_a_target(loss):
    torch.manual_seed(0)
    network = _build("fasterpose_tiny", 17, (128, 96), loss=loss).eval()
    assert isinstance(network, Predictor) and isinstance(network, Trainable)
    images = torch.randn(2, 3, 128, 96)
    with torch.inference_mode():
        maps, logits = network.predict(images, {}).exits[0], network(images)
    assert torch.equal(maps, logits.sigmoid()) and (maps > 0).all() and (maps < 1).all()
    assert (network.head[3].bias == BIAS_PRIOR).all()
    assert maps.median() < 0.1


def _crops(count=8, joints=4, size=(64, 64)):
    """Noise images with a coloured disc at each joint, and the joints (count, joints, 2) in pixels."""
    g = torch.Generator().manual_seed(3)
    points = torch.rand(count, joints, 2, generator=g) * (min(size) - 16) + 8
    grid = torch.stack(torch.meshgrid(torch.arange(size[1]), torch.arange(size[0]), indexing="xy"), -1)
    images = 0.1 * torch.randn(count, 3, *size, generator=g)
    colours = torch.randn(joints, 3, generator=g)
    for n in range(count):
        for k in range(joints):
            disc = ((grid - points[n, k]).square().sum(-1) < 16).float()
            images[n] += colours[k][:, None, None] * disc
    return images, points


def _overfitted(head, steps):
    """Mean error in heatmap pixels, over 8 crops, after training on them."""
    torch.manual_seed(0)
    images, points = _crops()
    visible = torch.full(points.shape[:2], 2.0)
    target, weight = encode(
        "unbiased", points.numpy(), visible.numpy(), input_size=(64, 64), heatmap_size=(16, 16), sigma=1.5
    )
    zeros = torch.zeros(8, 2)
    batch = TrainBatch(images, torch.from_numpy(target), torch.from_numpy(weight), points, visible, zeros, zeros)
    trunk = ResNet(Bottleneck, (1, 1, 1), (8, 16, 32))  # 128 channels at stride 16
    network = FasterPose(trunk, num_joints=4, input_size=(64, 64), head=head)
    optimiser = torch.optim.Adam(network.parameters(), lr=4e-3)
    for step in range(steps):
        loss = network.losses(batch, Progress(0, step, 1))["heatmap"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.inference_mode():  # in training mode: after so few steps the running statistics lag behind
        maps = network.predict(images, {}).exits[0]
    found, _ = decode(maps, "dark", blur_kernel=7)
    return float((torch.from_numpy(found) - points / 4).norm(dim=-1).mean())


@pytest.mark.parametrize("head", [name for name in HEADS if name != "bilinear"])
def test_eight_crops_are_learnt_to_less_than_a_heatmap_pixel(head):
    assert _overfitted(head, 100) < 1.0


def test_an_enlarged_coarse_map_does_not_get_there():
    assert _overfitted("bilinear", 100) > 1.0


@pytest.mark.parametrize("head", HEADS)
def test_weights_of_every_head_are_read_back(head, tmp_path):
    variant = find_variant("fasterpose_tiny")
    network = variant.build(num_joints=8, input_size=variant.input_size, head=head)
    checkpoints.write(tmp_path / "w.safetensors", network.state_dict())
    again, report = checkpoints.open_variant(variant, tmp_path / "w.safetensors", num_joints=8, head=head)
    assert report is not None and not report.missing and not report.unexplained
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), again.state_dict().values()))
