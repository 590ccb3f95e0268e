"""SHaRPose: An et al., 'SHaRPose: Sparse High-Resolution Representation for Human Pose Estimation', AAAI 2024.

One vision transformer looks twice: at the half-size image (coarse), and in full resolution at those regions that
the keypoint tokens attended to (fine). A predicted quality lets a person leave after the coarse stage.
The network is in parts/sharpose.py, its cost in sharpose_cost.py; here are exits, losses and variants. Card:
sharpose.md. Own tensor names are the official ones. K joints, alpha the share of regions that are refined.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.errors import UserError
from harness.method import EARLY_EXIT_KNOBS, Knob, Layout, PoseProtocol, Size, TopDownOutput, Trace, Variant
from harness.pose.skeletons import SKELETONS
from harness.train.recipes import Augmentation, Progress, Recipe, TargetSpec, TrainBatch
from methods.parts import quick, vit, vit_names
from methods.parts import vit_recipe as shared
from methods.parts.early_exit import Part, merged, some
from methods.parts.input_checks import check_images, check_multiple
from methods.parts.losses import SQUARED_ERROR, mse
from methods.parts.oks_target import biased_oks, biased_pck, peaks, quality_error
from methods.parts.sharpose import CoarseStage, TokenHead, TrunkSize, TwoStageTrunk
from methods.parts.sharpose_cost import TwoStageCost
from methods.parts.sharpose_export import CoarseGraph, FineGraph
from methods.parts.sharpose_files import fitted, from_vitpose
from methods.parts.vit_start import start_from_scratch

if TYPE_CHECKING:
    from harness.export.contract import ExportPart

__all__ = ["VARIANTS", "SHaRPose"]

_QUALITY_WEIGHT = 0.03
_GLUE = "methods/parts/sharpose_onnx.py"

_ALPHA = Knob(
    "alpha", "run", None, "share of regions seen in full resolution; default: published", low=0, high=1, low_open=True
)
_THRESHOLD = EARLY_EXIT_KNOBS[0]
_KNOBS = (
    _ALPHA,
    *EARLY_EXIT_KNOBS,
    Knob("quality", "build", "gelu", "output of the quality predictor", ("gelu", "sigmoid", "abs")),
    Knob("quality_target", "build", "oks", "what predicted quality is trained towards", ("oks", "pck")),
    Knob(
        "replace_oks",
        "build",
        False,
        "the fine stage predicts a quality too; the published head writes it over the joint scores, here it is told "
        "beside them",
        (False, True),
    ),
)


@dataclass(frozen=True)
class _Settings:
    """The run and select knobs, read. `threshold` inf refines everybody, -inf nobody."""

    alpha: float
    threshold: float
    all_exits: bool


@dataclass(frozen=True)
class _Result:
    """One forward pass. `fine` and `fine_quality` belong to the refined persons, `first` to those that needed it."""

    settings: _Settings
    coarse: CoarseStage
    refined: Tensor
    first: Part
    fine: Part
    fine_quality: Part | None


class SHaRPose(nn.Module):
    """(B, 3, H, W) -> heatmaps (B, K, H/4, W/4), linear, of the coarse and the fine stage.

    Raises UserError when half the input is not a whole number of patches. `alpha` and `quality_threshold` are the
    published values for this size, taken where settings name none.
    """

    def __init__(
        self,
        size: TrunkSize,
        *,
        num_joints: int = 17,
        input_size: Size = (256, 192),
        alpha: float = 0.5,
        quality_start: float = 180 / 210,
        single_layer_head: bool | None = None,
        quality: str = "gelu",
        quality_target: str = "oks",
        replace_oks: bool = False,
    ) -> None:
        super().__init__()
        check_multiple(input_size, 2 * size.patch, "the coarse stage sees half the image")
        self.input_size, self.num_joints, self.size = input_size, num_joints, size
        large = tuple(input_size) == (384, 288)
        # QUIRK: 1.2 can never be reached at 384x288: the published configuration refines everybody
        self.alpha, self.quality_threshold = alpha, 1.2 if large else 0.99
        self.quality_start, self.quality_kind, self.quality_target = quality_start, quality, quality_target
        grid = (input_size[0] // (2 * size.patch), input_size[1] // (2 * size.patch))
        self.backbone = TwoStageTrunk(size, num_joints, grid, quality, replace_oks)
        self.keypoint_head = TokenHead(size.dim, (input_size[0] // 4, input_size[1] // 4), single_layer_head)
        vit.init_vit(self)
        outputs, head = 2 if quality == "abs" else 1, self.keypoint_head.macs(num_joints)
        self.cost = TwoStageCost(size, num_joints, grid, outputs, replace_oks, head)

    def forward(self, images: Tensor) -> Tensor:
        """Heatmaps of the fine stage, everybody refined."""
        return self.predict(images, {}).exits[-1]

    def predict(self, images: Tensor, settings: Mapping[str, Any]) -> TopDownOutput:
        """`settings`: `alpha`; `quality_threshold`, when present, lets persons leave early, else all are refined;
        `all_exits` adds the coarse heatmaps of everybody as first exit. Raises UserError for values out of range."""
        return self.forward_many(images, [settings])[0]

    def forward_many(self, images: Tensor, settings_list: Sequence[Mapping[str, Any]]) -> list[TopDownOutput]:
        """`predict` for several settings: one coarse stage for all, one fine stage for each value of alpha."""
        return [self._output(result) for result in self._run(images, settings_list)]

    def forward_raw(
        self, images: Tensor, *, settings: Mapping[str, Any], train: bool = False, rois: Any = None
    ) -> dict[str, Tensor]:
        """Raw outputs by name: `exit0` (coarse), `exit1`, `quality`, `trace_*`; with `train` also what is trained.

        `trace_selected_coarse` (B, k): kept coarse patches in rising order, -1 for persons that left early.
        """
        if rois is not None:
            raise UserError("SHaRPose takes no regions of interest", hint="leave out --rois")
        result = self._run(images, [{**settings, "all_exits": True}])[0]
        output = self._output(result)
        kept, _ = self.backbone.choose(result.coarse.score, result.settings.alpha)
        kept = torch.where(result.refined[:, None].to(kept.device), kept.sort(dim=1).values, -1)
        raw = {f"exit{i}": maps for i, maps in enumerate(output.exits)}
        raw |= {f"train{i}": maps for i, maps in enumerate(output.exits) if train}
        raw |= {"quality": result.coarse.quality[:, 0], "trace_selection_score": result.coarse.score}
        raw |= {"trace_tokens": output.trace["tokens_fine"], "trace_selected_coarse": kept}
        return raw | ({"quality_fine": output.trace["quality_fine"]} if self.backbone.replace_oks else {})

    def refined_regions(self, images: Tensor, settings: Mapping[str, Any]) -> Tensor:
        """(B, rows, columns) bool: which regions of each image are seen in full resolution under `settings`."""
        read = self._read(settings)
        coarse = self.backbone.coarse(images)
        refined = self._refined(coarse.quality, read.threshold).to(images.device)
        kept, _ = self.backbone.choose(coarse.score, read.alpha)
        seen = torch.zeros_like(coarse.score, dtype=torch.bool).scatter(1, kept, True) & refined[:, None]
        return seen.unflatten(1, self.backbone.grid)

    def _run(self, images: Tensor, settings_list: Sequence[Mapping[str, Any]]) -> list[_Result]:
        check_images(images, self.input_size)
        settings = [self._read(given) for given in settings_list]
        coarse = self.backbone.coarse(images)
        refined = [self._refined(coarse.quality, s.threshold) for s in settings]
        first = self._first(coarse, settings, refined)
        stages = {}
        union = torch.stack(refined).any(dim=0)
        patches = Part(union, self.backbone.enter_fine(some(images, union)))
        for alpha in {s.alpha for s in settings}:
            mask = torch.stack([r for r, s in zip(refined, settings) if s.alpha == alpha]).any(dim=0)
            stages[alpha] = self._fine(patches, coarse, mask, alpha)
        return [_Result(s, coarse, r, first, *stages[s.alpha]) for s, r in zip(settings, refined)]

    def _first(self, coarse: CoarseStage, settings: Sequence[_Settings], refined: Sequence[Tensor]) -> Part:
        """Coarse heatmaps of those who leave early, or of everybody where all exits are wanted."""
        wanted = ~torch.stack(list(refined)).all(dim=0)
        if any(s.all_exits for s in settings):
            wanted = torch.ones_like(wanted)
        return Part(wanted, self.keypoint_head(some(coarse.keypoints, wanted)))

    def _fine(self, patches: Part, coarse: CoarseStage, mask: Tensor, alpha: float) -> tuple[Part, Part | None]:
        """The fine stage of the persons in `mask` and of nobody else; nothing runs when all have left."""
        if not bool(mask.any()):
            maps = coarse.keypoints.new_empty(0, self.num_joints, *self.keypoint_head.size)
            quality = coarse.quality[:0] if self.backbone.replace_oks else None
        else:
            tokens, quality = self.backbone.fine(patches.of(mask), coarse.rows(mask), alpha)
            maps = self.keypoint_head(tokens)
        return Part(mask, maps), None if quality is None else Part(mask, quality)

    def _refined(self, quality: Tensor, threshold: float) -> Tensor:
        """(B,) bool on the CPU, where it decides what runs. QUIRK: strictly below the threshold, and `abs` compares
        its two classes and knows no threshold; as published."""
        if math.isinf(threshold):
            return torch.full((len(quality),), threshold > 0, device="cpu")
        # in float32 whatever the network computes in: a threshold rounded to bfloat16 would be another one
        quality = quality.float()
        return (quality[:, 0] < (quality[:, 1] if self.quality_kind == "abs" else threshold)).cpu()

    def _read(self, settings: Mapping[str, Any]) -> _Settings:
        if settings.get("exit_rate") is not None:
            raise UserError(
                "exit_rate is a share of persons, and one forward does not know the others",
                expected="a quality_threshold",
                hint="a suite chooses the threshold from the persons that it scores and records it",
            )
        alpha = settings.get("alpha")
        alpha = self.alpha if alpha is None else _ALPHA.check(alpha)
        threshold = settings.get("quality_threshold", "always")
        threshold = self.quality_threshold if threshold is None else _number(threshold)
        return _Settings(float(alpha), threshold, bool(settings.get("all_exits", False)))

    def _output(self, result: _Result) -> TopDownOutput:
        last = merged(result.first, result.fine, result.refined)
        everybody = torch.ones_like(result.refined)
        exits = [result.first.of(everybody), last] if result.settings.all_exits else [last]
        trace, quality = self.cost.trace(result.refined, result.settings.alpha, len(exits)), result.coarse.quality
        if result.fine_quality is not None:
            trace["quality_fine"] = merged(Part(everybody, quality), result.fine_quality, result.refined)[:, 0]
        rival = quality[:, 1] if self.quality_kind == "abs" else None
        return TopDownOutput(exits=exits, quality=quality[:, 0], trace=trace, rival=rival)

    def trace_at(self, trace: Trace, exits: np.ndarray) -> dict[str, np.ndarray]:
        """The trace that persons leaving at `exits` (B,), 0 or 1, would have had; `trace` refined everybody."""
        return self.cost.trace_at(trace, exits)

    def macs(self, trace: Trace) -> np.ndarray:
        """(B,) int64, what our forward does for each person."""
        return self.cost.macs(trace)

    def as_published_macs(self, trace: Trace) -> np.ndarray:
        """(B,) int64, what the official forward does for the same persons (card, 6)."""
        return self.cost.as_published(trace)

    def export_parts(self, settings: Mapping[str, Any]) -> list[ExportPart]:
        """The two stages; what joins them, and takes any alpha and threshold, is parts/sharpose_onnx.py."""
        from harness.export.contract import ExportPart  # networks alone are measured where pydantic is not

        alpha, threshold = self._read(settings).alpha, settings.get("quality_threshold")
        facts = {"alpha": alpha, "quality_threshold": self.quality_threshold if threshold is None else threshold}
        coarse = CoarseGraph(self.backbone, self.keypoint_head, self.quality_kind == "abs")
        fine = FineGraph(self.backbone, self.keypoint_head)

        def images(batch: int) -> dict[str, Tensor]:
            generator = torch.Generator().manual_seed(batch)
            return {"images": torch.randn((batch, 3, *self.input_size), generator=generator)}

        def tokens(batch: int) -> dict[str, Tensor]:
            return fine.example(images(batch)["images"], alpha)

        return [
            ExportPart("coarse", coarse, images, coarse.outputs, facts=facts, used_by=_GLUE),
            ExportPart("fine", fine, tokens, fine.outputs, FineGraph.open_axes, facts, used_by=_GLUE),
        ]

    def losses(self, batch: TrainBatch, progress: Progress) -> dict[str, Tensor]:
        """Heatmap errors of both stages, everybody refined, and after `quality_start` the quality (card, 3)."""
        result = self._run(batch.images, [{"all_exits": True}])[0]
        first, fine = result.first.values, result.fine.values
        losses = {
            "heatmap_coarse": mse(first, batch.target, batch.weight),
            "heatmap_fine": mse(fine, batch.target, batch.weight),
            "quality": self._quality_loss(result.coarse.quality, first, batch, progress),
        }
        if result.fine_quality is not None:
            losses["quality_fine"] = self._quality_loss(result.fine_quality.values, fine, batch, progress)
        return losses

    def _quality_loss(self, quality: Tensor, maps: Tensor, batch: TrainBatch, progress: Progress) -> Tensor:
        if progress.epoch <= self.quality_start * progress.epochs:
            # QUIRK: zero, not absent, so that weight decay shrinks the idle predictor as in the published training
            return 0.0 * quality.sum()
        return _QUALITY_WEIGHT * quality_error(quality, self._quality_target(maps, batch), progress.pooled)

    def _quality_target(self, maps: Tensor, batch: TrainBatch) -> Tensor:
        points, truth = peaks(maps), peaks(batch.target)
        visible = batch.weight.reshape(points.shape[:2]) > 0
        size = self.keypoint_head.size
        if self.quality_target == "pck":
            return biased_pck(points, truth, visible, size)
        sigmas = next(s.sigmas for s in SKELETONS.values() if s.num_joints == self.num_joints)
        return biased_oks(points, truth, visible, batch.scales, size, sigmas)

    def adapt_state(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """`state` (own names) fitted to this network, and notes. Raises WeightsError for a file of another network:
        the head is tied to its heatmap size."""
        return fitted(state, self.state_dict(), self.backbone.grid)


def _number(threshold: Any) -> float:
    """A threshold as a number: +inf for 'always', -inf for 'never'. Raises SuiteError for what is neither."""
    if isinstance(threshold, float) and math.isinf(threshold):
        return threshold
    return {"always": math.inf, "never": -math.inf}.get(_THRESHOLD.check(threshold), threshold)


_LAYOUTS = (
    Layout(  # the official code is built on mmpose 0.x and has its names
        "official",
        matches=lambda keys: "backbone.pos_embed_list.0" in keys,
        to_own=dict,
        from_own=dict,
    ),
    Layout(
        "vitpose",
        matches=lambda keys: "backbone.last_norm.weight" in keys and "backbone.pos_embed" in keys,
        to_own=from_vitpose,
        ignores=("keypoint_head.", "associate_keypoint_heads."),
        partial=True,
    ),
    Layout(**vit_names.MAE),
)

_PROTOCOL = PoseProtocol(**shared.PROTOCOL)

_TARGET = TargetSpec("udp", sigma=2.0, stride=4)


def _quality_from(start: int) -> dict[str, Any]:
    """What a recipe says of the loss of quality, which is the network's own: its knob is `quality_start`."""
    both = f"{SQUARED_ERROR}, coarse + fine"
    quality = f"{_QUALITY_WEIGHT} x squared error of the quality against the OKS of the coarse poses"
    return {
        "loss": f"{both}; after epoch {start} + {quality}, until then 0 (not absent, so that weight decay goes on)",
        "differs": (
            f"'after epoch {start}' counts epochs from 0: of mmpose's versions some pass a number that is one higher",
        ),
    }


_OFFICIAL = Recipe(
    batch=256,
    **_quality_from(180),
    target=_TARGET,
    augmentation=Augmentation(
        dialect="mmpose0", scale=0.5, rotation=40.0, shift=0.16, shift_prob=0.3, fresh_shift=True
    ),
    groups=partial(shared.layer_decay_groups, rate=0.75),
    input_size=(256, 192),
    source="AnxQ/sharpose@89ffc1b, configs of base 256x192 (4 GPUs x 64)",
    **shared.OFFICIAL,
)
_SMALL = replace(
    _OFFICIAL,
    epochs=250,
    batch=512,
    **_quality_from(210),
    groups=partial(shared.layer_decay_groups, rate=0.80),
    source="AnxQ/sharpose@89ffc1b, config of small 256x192 (4 GPUs x 128; its file name says 210 epochs, it sets 250)",
)
_LARGE = replace(
    _OFFICIAL,
    target=replace(_TARGET, sigma=3.0),
    groups=partial(shared.layer_decay_groups, rate=0.70),
    input_size=(384, 288),
    source="AnxQ/sharpose@89ffc1b, config of base 384x288",
)
_QUICK = Recipe(
    epochs=28,
    target=replace(_TARGET, sigma=1.5),
    augmentation=Augmentation(**shared.LIGHT),
    trunk="vitpose",
    **shared.QUICK | {"differs": quick.differs("made for vitpose_tiny's trunk, no layer decay")},
)


def _small(**options: Any) -> nn.Module:
    # QUIRK: 12 heads of 32 as ViTPose-S, not the 6 of DeiT and timm: its trunk starts from that one, and was trained so
    return SHaRPose(TrunkSize(384, 12, 12), alpha=0.5, quality_start=210 / 250, **options)


def _base(input_size: Size = (256, 192), **options: Any) -> nn.Module:
    alpha = 0.3 if tuple(input_size) == (384, 288) else 0.4
    return SHaRPose(TrunkSize(768, 12, 12), alpha=alpha, input_size=input_size, **options)


def _tiny(**options: Any) -> nn.Module:
    # patches of 8: as many tokens as 256x192 has of 16 pixels
    size = TrunkSize(96, 4, 3, patch=8, mlp_ratio=2.0, drop_path=0.0, token_std=0.7, stem=(24, 48))
    network = SHaRPose(size, alpha=0.5, quality_start=0.5, **options)
    trunk = network.backbone
    fine = (2 * trunk.grid[0], 2 * trunk.grid[1])
    start_from_scratch(network, *zip(trunk.pos_embed_list, (trunk.grid, fine), strict=True))
    nn.init.normal_(network.keypoint_head.heatmap_mlp[-1].weight, std=0.002)  # heatmaps start near zero
    return network


def _variant(name: str, build: Any, recipes: dict[str, Recipe], published: tuple[str, ...]) -> Variant:
    return Variant(
        name=f"sharpose_{name}",
        method="sharpose",
        build=build,
        input_size=(256, 192),
        protocol=_PROTOCOL,
        knobs=_KNOBS,
        layouts=_LAYOUTS,
        recipes=recipes,
        source="arXiv 2312.10758",
        published=tuple(("SHaRPose", pattern) for pattern in published),
    )


VARIANTS = (
    _variant("s", _small, {"official": _SMALL}, ("Small",)),
    _variant("b", _base, {"official": _OFFICIAL, "official_384x288": _LARGE}, ("Base",)),
    replace(
        _variant("tiny", _tiny, {"quick": _QUICK, "official": replace(_OFFICIAL, input_size=None, trunk="")}, ()),
        input_size=(128, 96),
        protocol=PoseProtocol(**shared.PROTOCOL | {"blur_kernel": 7}),  # DARK's kernel for sigma 1.5
        layouts=_LAYOUTS[:2],
        note="small enough to train on a CPU in minutes; not a published network",
        source="arXiv 2312.10758, scaled down",
    ),
)
