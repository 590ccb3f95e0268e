"""SHaRPose: An et al., 'SHaRPose: Sparse High-Resolution Representation for Human Pose Estimation', AAAI 2024.

One vision transformer looks twice: at the half-size image (coarse), and in full resolution at those regions that
the keypoint tokens attended to (fine). A predicted quality lets a person leave after the coarse stage.
The network is in parts/sharpose.py; here are exits, cost, losses and variants. Card: sharpose.md. Own tensor names
are the official ones. K joints, D width, N1 coarse patches, alpha the share of regions that are refined.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import UserError, WeightsError
from harness.method import Knob, Layout, PoseProtocol, Size, TopDownOutput, Trace, Variant
from harness.pose.skeletons import SKELETONS
from harness.train.recipes import Augmentation, Progress, Recipe, TargetSpec, TrainBatch
from methods.parts import vit
from methods.parts import vit_names as names
from methods.parts.arithmetic import conv_macs
from methods.parts.losses import mse
from methods.parts.oks_target import biased_oks, biased_pck, peaks
from methods.parts.sharpose import CoarseStage, TokenHead, TrunkSize, TwoStageTrunk, kept_count

__all__ = ["VARIANTS", "SHaRPose"]

_QUALITY_WEIGHT = 0.03
_SIX_HEADS = "an image classifier of width 384 (DeiT, timm): its attention has 6 heads"
_GOOD = 0.99  # OKS from which the two-class predictor (abs) calls a pose good

_ALPHA = Knob(
    "alpha", "run", None, "share of regions seen in full resolution; default: published", low=0, high=1, low_open=True
)
_KNOBS = (
    Knob(
        "quality_threshold",
        "select",
        None,
        "predicted quality from which a person leaves after the coarse stage: a number, 'always' (refine everybody) "
        "or 'never'; default: published",
    ),
    Knob("quality", "build", "gelu", "output of the quality predictor", ("gelu", "sigmoid", "abs")),
    Knob("quality_target", "build", "oks", "what predicted quality is trained towards", ("oks", "pck")),
    Knob("replace_oks", "build", False, "a second quality, of the fine stage, replaces joint scores", (False, True)),
)


@dataclass(frozen=True)
class _Settings:
    """The run and select knobs, read. `threshold` inf refines everybody, -inf nobody."""

    alpha: float
    threshold: float
    all_exits: bool


@dataclass(frozen=True)
class _Part:
    """Results of some persons of a batch: `values` (n, ...) belong to the persons in `mask` (B,), a CPU tensor."""

    mask: Tensor
    values: Tensor

    def of(self, mask: Tensor) -> Tensor:
        """Of the persons in `mask`, a subset of the own one."""
        return self.values if torch.equal(mask, self.mask) else self.values[mask[self.mask]]


@dataclass(frozen=True)
class _Result:
    """One forward pass. `fine` and `fine_quality` belong to the refined persons, `first` to those that needed it."""

    settings: _Settings
    coarse: CoarseStage
    refined: Tensor
    first: _Part
    fine: _Part
    fine_quality: _Part | None

    def last(self, first: _Part, fine: _Part) -> Tensor:
        """Fine values of refined persons, coarse values of the others, in the order of the batch."""
        if bool(self.refined.all()):
            return fine.of(self.refined)
        exited = ~self.refined
        merged = first.values.new_empty(len(exited), *first.values.shape[1:])
        merged[exited] = first.of(exited)
        merged[self.refined] = fine.of(self.refined).to(merged.dtype)
        return merged


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
        _check_size(input_size, 2 * size.patch)
        self.input_size, self.num_joints, self.size = input_size, num_joints, size
        large = tuple(input_size) == (384, 288)
        # QUIRK: 1.2 can never be reached at 384x288: the published configuration refines everybody
        self.alpha, self.quality_threshold = alpha, 1.2 if large else 0.99
        self.quality_start, self.quality_kind, self.quality_target = quality_start, quality, quality_target
        grid = (input_size[0] // (2 * size.patch), input_size[1] // (2 * size.patch))
        self.backbone = TwoStageTrunk(size, num_joints, grid, quality, replace_oks)
        self.keypoint_head = TokenHead(size.dim, (input_size[0] // 4, input_size[1] // 4), single_layer_head)
        vit.init_vit(self)

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

    def _run(self, images: Tensor, settings_list: Sequence[Mapping[str, Any]]) -> list[_Result]:
        _check_images(images, self.input_size)
        settings = [self._read(given) for given in settings_list]
        coarse = self.backbone.coarse(images)
        refined = [self._refined(coarse.quality, s.threshold) for s in settings]
        first = self._first(coarse, settings, refined)
        stages = {}
        union = torch.stack(refined).any(dim=0)
        patches = _Part(union, self.backbone.enter_fine(_some(images, union)))
        for alpha in {s.alpha for s in settings}:
            mask = torch.stack([r for r, s in zip(refined, settings) if s.alpha == alpha]).any(dim=0)
            stages[alpha] = self._fine(patches, coarse, mask, alpha)
        return [_Result(s, coarse, r, first, *stages[s.alpha]) for s, r in zip(settings, refined)]

    def _first(self, coarse: CoarseStage, settings: Sequence[_Settings], refined: Sequence[Tensor]) -> _Part:
        """Coarse heatmaps of those who leave early, or of everybody where all exits are wanted."""
        wanted = ~torch.stack(list(refined)).all(dim=0)
        if any(s.all_exits for s in settings):
            wanted = torch.ones_like(wanted)
        return _Part(wanted, self.keypoint_head(_some(coarse.keypoints, wanted)))

    def _fine(self, patches: _Part, coarse: CoarseStage, mask: Tensor, alpha: float) -> tuple[_Part, _Part | None]:
        """The fine stage of the persons in `mask` and of nobody else; nothing runs when all have left."""
        if not bool(mask.any()):
            maps = coarse.keypoints.new_empty(0, self.num_joints, *self.keypoint_head.size)
            quality = coarse.quality[:0] if self.backbone.replace_oks else None
        else:
            tokens, quality = self.backbone.fine(patches.of(mask), coarse.rows(mask), alpha)
            maps = self.keypoint_head(tokens)
        return _Part(mask, maps), None if quality is None else _Part(mask, quality)

    def _refined(self, quality: Tensor, threshold: float) -> Tensor:
        """(B,) bool on the CPU, where it decides what runs. QUIRK: strictly below the threshold, and `abs` compares
        its two classes and knows no threshold; as published."""
        if math.isinf(threshold):
            return torch.full((len(quality),), threshold > 0, device="cpu")
        return (quality[:, 0] < (quality[:, 1] if self.quality_kind == "abs" else threshold)).cpu()

    def _read(self, settings: Mapping[str, Any]) -> _Settings:
        alpha = settings.get("alpha")
        alpha = self.alpha if alpha is None else _ALPHA.check(alpha)
        threshold = settings.get("quality_threshold", "always")
        threshold = self.quality_threshold if threshold is None else _threshold(threshold)
        return _Settings(float(alpha), threshold, bool(settings.get("all_exits", False)))

    def _output(self, result: _Result) -> TopDownOutput:
        last = result.last(result.first, result.fine)
        everybody = torch.ones_like(result.refined)
        exits = [result.first.of(everybody), last] if result.settings.all_exits else [last]
        trace = self._trace(result)
        if result.fine_quality is not None:
            own = _Part(everybody, result.coarse.quality)
            trace["quality_fine"] = result.last(own, result.fine_quality)[:, 0]
        return TopDownOutput(exits=exits, quality=result.coarse.quality[:, 0], trace=trace)

    def _trace(self, result: _Result) -> dict[str, Tensor]:
        exit_taken = result.refined.long()
        grid = self.backbone.grid
        return {
            "tokens_coarse": torch.full_like(exit_taken, 1 + self.num_joints + grid[0] * grid[1]),
            "tokens_fine": exit_taken * self.fine_tokens(result.settings.alpha),
            "exit": exit_taken,
            "heads": 1 + exit_taken * result.settings.all_exits,
        }

    def fine_tokens(self, alpha: float) -> int:
        """Length of the fine sequence: keypoints (and the quality token with `replace_oks`), 4k fine, N1 - k coarse."""
        patches = self.backbone.grid[0] * self.backbone.grid[1]
        return self.num_joints + self.backbone.replace_oks + patches + 3 * kept_count(alpha, patches)

    def trace_at(self, trace: Trace, exits: np.ndarray) -> dict[str, np.ndarray]:
        """The trace that persons leaving at `exits` (B,), 0 or 1, would have had; `trace` refined everybody.

        For replay: the cost of a threshold from a pass that stored both exits.
        """
        taken = np.asarray(exits, dtype=np.int64)
        return {
            **trace,
            "tokens_fine": np.asarray(trace["tokens_fine"]) * taken,
            "exit": taken,
            "heads": np.ones_like(taken),
        }

    def macs(self, trace: Trace) -> np.ndarray:
        """(B,) int64, what our forward does for each person."""
        coarse, fine = (np.asarray(trace[name], dtype=np.int64) for name in ("tokens_coarse", "tokens_fine"))
        refined, patches = fine > 0, self.backbone.grid[0] * self.backbone.grid[1]
        kept = (fine - self.fine_tokens(0.0)) // 3
        rows = vit.attention_row_macs(self.size.dim, self.num_joints - 1, coarse) * len(self.backbone.scored_layers)
        first = self._stage_macs(coarse, patches) + rows + self._quality_macs()
        second = self._stage_macs(fine, 4 * patches) + kept * self._reuse_macs()
        second = second + self.backbone.replace_oks * self._quality_macs()
        return first + refined * second + np.asarray(trace["heads"]) * self.keypoint_head.macs(self.num_joints)

    def as_published_macs(self, trace: Trace) -> np.ndarray:
        """(B,) int64, what the official forward does: both heads for everybody, `reuse` for every coarse patch,
        whole attention maps and no extra rows (card, 6)."""
        coarse, fine = (np.asarray(trace[name], dtype=np.int64) for name in ("tokens_coarse", "tokens_fine"))
        patches = self.backbone.grid[0] * self.backbone.grid[1]
        first = self._stage_macs(coarse, patches) + self._quality_macs()
        second = self._stage_macs(fine, 4 * patches) + patches * self._reuse_macs()
        second = second + self.backbone.replace_oks * self._quality_macs()
        return first + (fine > 0) * second + 2 * self.keypoint_head.macs(self.num_joints)

    def _stage_macs(self, tokens: np.ndarray, patches: int) -> np.ndarray:
        size = self.size
        blocks = size.depth * vit.block_macs(size.dim, tokens, size.mlp_ratio)
        return conv_macs(3, size.dim, size.patch, (patches, 1)) + blocks

    def _quality_macs(self) -> int:
        return (2 * self.size.dim + (2 if self.quality_kind == "abs" else 1)) * self.size.dim

    def _reuse_macs(self) -> int:
        """Of one patch."""
        return 2 * self.size.dim * int(self.size.dim * self.size.mlp_ratio)

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
        target = self._quality_target(maps, batch)
        known = target.isfinite()  # persons without a visible joint are left out
        if not bool(known.any()):
            return 0.0 * quality.sum()
        quality, target = quality[known].float(), target[known].float()
        if self.quality_kind == "abs":
            # the published two-class path cannot run; class 0 is 'good', as the test-time comparison reads it
            return _QUALITY_WEIGHT * F.nll_loss(quality.clamp_min(1e-8).log(), (target <= _GOOD).long())
        return _QUALITY_WEIGHT * F.mse_loss(quality[:, 0], target)

    def _quality_target(self, maps: Tensor, batch: TrainBatch) -> Tensor:
        points, truth = peaks(maps), peaks(batch.target)
        visible = batch.weight.reshape(points.shape[:2]) > 0
        size = self.keypoint_head.size
        if self.quality_target == "pck":
            return biased_pck(points, truth, visible, size)
        sigmas = next(s.sigmas for s in SKELETONS.values() if s.num_joints == self.num_joints)
        return biased_oks(points, truth, visible, batch.scales, size, sigmas)

    def adapt_state(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """`state` (own names) fitted to this network, and notes on what was changed or cannot be known.

        The single position embedding of a pretrained encoder is interpolated to both grids. Raises WeightsError for
        a file of another width, input size, head, joint set or quality predictor: the head is tied to its heatmap.
        """
        _check_same_network(_describe(state), _describe(self.state_dict()))
        if names.has_six_heads(state):
            raise WeightsError(_SIX_HEADS, expected="12 heads, as in ViTPose's MAE-small file")
        unused = ("backbone.head.", "backbone.fc_norm.")  # of an image classifier
        state = {name: value for name, value in state.items() if not name.startswith(unused)}
        notes = []
        positions = state.pop("backbone.pos_embed", None)
        if positions is not None:
            source = vit.grid_of(positions.shape[1] - 1, self.backbone.grid)
            for i in (0, 1):
                grid = (self.backbone.grid[0] << i, self.backbone.grid[1] << i)
                state[f"backbone.pos_embed_list.{i}"] = vit.resize_positions(positions[:, 1:], source, grid)
                notes.append("position embedding interpolated from {}x{} to {}x{}".format(*source, *grid))
        if self.size.dim == 384:
            notes.append("a file does not tell its number of heads: this network has 12, DeiT's small has 6")
        return state, notes


def _some(values: Tensor, mask: Tensor) -> Tensor:
    """The rows in `mask`, without a copy when these are all."""
    return values if bool(mask.all()) else values[mask]


def _check_images(images: Tensor, size: Size) -> None:
    if tuple(images.shape[2:]) != tuple(size):
        given = "x".join(map(str, images.shape[2:]))
        raise UserError(f"images of {given}", expected=f"{size[0]}x{size[1]}, the input size of this network")


def _check_size(size: Size, multiple: int) -> None:
    if size[0] % multiple or size[1] % multiple:
        nearest = "x".join(str(max(1, round(side / multiple)) * multiple) for side in size)
        raise UserError(
            f"input size {size[0]}x{size[1]}",
            expected=f"height and width divisible by {multiple}: the coarse stage sees half the image",
            hint=f"take {nearest}",
        )


def _threshold(value: Any) -> float:
    """A number, 'always' or 'never'; UserError otherwise."""
    words = {"always": math.inf, "never": -math.inf}
    if isinstance(value, str) and value in words:
        return words[value]
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise UserError(f"quality_threshold is {value!r}", expected="a number, 'always' or 'never'")
    return float(value)


# own tensor -> (what its first or second dimension tells, which dimension)
_FACTS = {
    "backbone.norm.weight": ("width", 0),
    "backbone.pos_embed_list.0": ("coarse patches", 1),
    "backbone.keypoint_tokens": ("joints", 1),
    "backbone.quality_predictor.mlp.6.weight": ("quality outputs", 0),
}


def _describe(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the names and shapes of own tensors tell; fields of absent parts are missing."""
    found: dict[str, Any] = {fact: state[n].shape[axis] for n, (fact, axis) in _FACTS.items() if n in state}
    blocks = {int(name.split(".")[2]) for name in state if name.startswith("backbone.blocks.")}
    found |= {"blocks": len(blocks)} if blocks else {}
    if "keypoint_head.heatmap_mlp.1.weight" in state:
        two = "keypoint_head.heatmap_mlp.4.bias" in state
        found["head"] = "two-layer" if two else "one-layer"
        found["heatmap cells"] = len(state[f"keypoint_head.heatmap_mlp.{4 if two else 1}.bias"])
    return found


def _check_same_network(found: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    if any(found[fact] != own[fact] for fact in found):
        text = [", ".join(f"{fact} {value}" for fact, value in facts.items()) for facts in (found, own)]
        raise WeightsError(
            f"the file holds {_name(found)} ({text[0]})",
            expected=f"{_name(own)} ({text[1]})",
            hint="choose the variant, input size and quality knob of the file; SHaRPose cannot be resized",
        )


def _name(facts: Mapping[str, Any]) -> str:
    known = {(384, 3072): "SHaRPose-S 256x192", (768, 3072): "SHaRPose-B 256x192", (768, 6912): "SHaRPose-B 384x288"}
    return known.get((facts.get("width", 0), facts.get("heatmap cells", 0)), "a SHaRPose of another kind")


_LAYOUTS = (
    Layout(  # the official code is built on mmpose 0.x and has its names
        "official",
        matches=lambda keys: "backbone.pos_embed_list.0" in keys,
        to_own=dict,
        from_own=dict,
    ),
    Layout(
        "mae",
        matches=lambda keys: "blocks.0.attn.qkv.weight" in keys and "patch_embed.proj.weight" in keys,
        to_own=names.from_mae,
        ignores=("decoder_", "mask_token"),
        partial=True,
    ),
)

_PROTOCOL = PoseProtocol(codec="udp", decoder="udp_dark", dialect="mmpose0")

_OFFICIAL = Recipe(
    epochs=210,
    batch=256,
    lr=5e-4,
    optimiser="adamw",
    weight_decay=0.1,
    milestones=(170, 200),
    warmup_steps=500,
    target=TargetSpec("udp", sigma=2.0, stride=4),
    augmentation=Augmentation(
        dialect="mmpose0", scale=0.5, rotation=40.0, shift=0.16, shift_prob=0.3, fresh_shift=True
    ),
    groups=partial(vit.layer_decay_groups, rate=0.75),
    trunk="mae",
    source="AnxQ/sharpose@89ffc1b, configs of base 256x192 (4 GPUs x 64)",
)
_SMALL = replace(
    _OFFICIAL,
    epochs=250,
    batch=512,
    groups=partial(vit.layer_decay_groups, rate=0.80),
    source="AnxQ/sharpose@89ffc1b, config of small 256x192 (4 GPUs x 128; its file name says 210 epochs, it sets 250)",
)
_LARGE = replace(
    _OFFICIAL,
    target=TargetSpec("udp", sigma=3.0, stride=4),
    groups=partial(vit.layer_decay_groups, rate=0.70),
    source="AnxQ/sharpose@89ffc1b, config of base 384x288",
)
_QUICK = Recipe(
    epochs=80,
    batch=64,
    lr=2e-3,
    optimiser="adamw",
    weight_decay=0.05,
    clip_norm=1.0,
    schedule="cosine",
    warmup_steps=200,
    target=TargetSpec("udp", sigma=2.0, stride=4),
    augmentation=Augmentation(dialect="mmpose0", scale=0.15, rotation=15.0, half_body=0.0),
    groups=partial(vit.layer_decay_groups, rate=1.0),
    differs=("own recipe for the synthetic set: short, light augmentation, no pretraining, no layer decay",),
)


def _small(**options: Any) -> nn.Module:
    return SHaRPose(TrunkSize(384, 12, 12), alpha=0.5, quality_start=210 / 250, **options)


def _base(input_size: Size = (256, 192), **options: Any) -> nn.Module:
    alpha = 0.3 if tuple(input_size) == (384, 288) else 0.4
    return SHaRPose(TrunkSize(768, 12, 12), alpha=alpha, input_size=input_size, **options)


def _tiny(**options: Any) -> nn.Module:
    size = TrunkSize(80, 5, 5, mlp_ratio=2.0, drop_path=0.0, token_std=0.02)
    return SHaRPose(size, alpha=0.5, quality_start=0.5, single_layer_head=True, **options)


def _variant(name: str, build: Any, recipes: dict[str, Recipe], published: tuple[str, ...]) -> Variant:
    return Variant(
        name=f"sharpose_{name}",
        method="sharpose",
        build=build,
        input_size=(256, 192),
        protocol=_PROTOCOL,
        knobs=(_ALPHA, *_KNOBS),
        layouts=_LAYOUTS,
        recipes=recipes,
        source="arXiv 2312.10758",
        published=tuple(("SHaRPose", pattern) for pattern in published),
    )


VARIANTS = (
    _variant("s", _small, {"official": _SMALL}, ("Small",)),
    _variant("b", _base, {"official": _OFFICIAL, "official_384x288": _LARGE}, ("Base",)),
    replace(
        _variant("tiny", _tiny, {"quick": _QUICK, "official": _OFFICIAL}, ()),
        input_size=(128, 96),
        layouts=_LAYOUTS[:1],
        note="small enough to train on a CPU in minutes; not a published network",
        source="arXiv 2312.10758, scaled down",
    ),
)
