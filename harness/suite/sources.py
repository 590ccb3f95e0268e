"""Named roots -> files: which data set, boxes and weights a suite means on this machine."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from harness.data import coco, sets
from harness.data.boxes import Boxes, from_file, from_ground_truth
from harness.data.coco import Dataset
from harness.errors import DataError, SuiteError, WeightsError, unknown_name
from harness.foreign import places
from harness.method import PoseProtocol, find_variant
from harness.provenance import PROJECT, stamp
from harness.suite.file import named_value
from harness.suite.schema import BoxesFrom, Cell, DataSpec, TrainData, TrainSpec

__all__ = ["QUICKSTART", "Sources", "assignments", "inside", "own_weights", "synthetic_folder"]

QUICKSTART = PROJECT / "results" / "quickstart"
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".pkl", ".onnx")


def assignments(pairs: Sequence[str], option: str) -> dict[str, Path]:
    """`NAME=PATH` options as a mapping; a PATH that does not exist is a SuiteError."""
    found: dict[str, Path] = {}
    for pair in pairs:
        name, text = named_value(pair, option, f"{option} NAME=PATH")
        path = Path(text).expanduser()
        if not path.exists():
            raise SuiteError(f"{option} {name}: there is no {text}", hint="give the path of an existing file or folder")
        found[name] = path
    return found


def inside(root: Path, relative: str) -> Path:
    """`root/relative`, or a SuiteError when it would leave the root."""
    try:
        return places.inside(root, relative)
    except ValueError as error:
        raise SuiteError(str(error), where=str(root), expected="a path below the root") from None


def synthetic_folder(split: str, folder: Path = Path("results/data")) -> Path:
    """The built-in synthetic set of that split, made on first use."""
    from harness.data import synthetic

    images, seed = synthetic.SYNTHETIC[split]
    place = _place(split, folder)
    annotations = place / "annotations" / f"person_keypoints_{split}2017.json"
    if not annotations.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".synthetic-") as scratch:
            made = Path(scratch) / place.name
            synthetic.write(made, images=images, seed=seed, split=split)
            try:
                made.rename(place)
            except OSError:  # another process was faster, and may be reading its files already
                if not annotations.is_file():
                    what = "a part of the synthetic set is there, its annotations are not"
                    raise DataError(what, where=str(place), hint="delete that folder") from None
    return place


def _place(split: str, folder: Path = Path("results/data")) -> Path:
    from harness.data import synthetic

    return folder / "synthetic-{}-{}-{}".format(split, *synthetic.SYNTHETIC[split])


def _load(root: Path, annotations: str, images: str, name: str, heads: str = "") -> Dataset:
    """Read again when a file is another one; the image files are looked at each time."""
    files = [inside(root, text) for text in (annotations, heads) if text]
    stamps = tuple(stamp(file) if file.is_file() else () for file in files)
    return replace(_parsed(root, files[0], inside(root, images), name, files[1] if heads else None, stamps))


@lru_cache(maxsize=4)
def _parsed(
    root: Path, annotations: Path, images: Path, name: str, heads: Path | None, stamps: tuple[tuple[int, ...], ...]
) -> Dataset:
    return sets.load(annotations, images, heads=heads, name=name, root=root)


@dataclass(frozen=True)
class Sources:
    """`data`: root folders by name. `weights`: files by variant.

    `draw` False: built-in people that are not there are not drawn; a set of their size, without files, stands for them,
    and `undrawn` names the split.
    """

    data: Mapping[str, Path] = field(default_factory=dict)
    weights: Mapping[str, Path] = field(default_factory=dict)
    draw: bool = True
    undrawn: set[str] = field(default_factory=set, compare=False)

    def check(self, cells: Sequence[Cell]) -> None:
        """SuiteError for a --data or --weights that no cell uses: most likely a misspelt name."""
        roots = {c.data.root for c in cells}
        roots |= {c.train.data.root for c in cells if c.train and isinstance(c.train.data, TrainData)}
        for name in self.data:
            if name not in roots:
                what, hint = unknown_name("data root", name, roots)
                raise SuiteError(f"--data: {what}", hint=hint)
        for name in self.weights:
            if name not in {c.variant for c in cells}:
                find_variant(name)  # an unknown name gets its own message
                raise SuiteError(f"--weights {name}: the suite has no such variant", hint="see `paretopose plan`")
        if self.weights and any(c.train and c.train.start != "weights" for c in cells):
            raise SuiteError(
                f"--weights {next(iter(self.weights))}: this suite trains its networks",
                hint="leave --weights out, or let the suite start from them: `train: {from: weights, ...}`",
            )

    def dataset(self, spec: DataSpec) -> Dataset | None:
        """The data set of a suite, None when its root was not given. DataError when it cannot be read."""
        if spec.name == "synthetic":
            dataset = self._built_in("val", spec)
        elif spec.root in self.data:
            root = self.data[spec.root]
            dataset = _load(root, spec.annotations, spec.images, spec.name, spec.heads)
        else:
            return None
        if spec.where:
            dataset = coco.restrict(dataset, spec.where)
        if spec.limit is not None:
            dataset = coco.limit(dataset, spec.limit)
        if not dataset.images:
            raise DataError("no image is left", where=spec.name, hint=f"check data.where {json.dumps(spec.where)}")
        return dataset

    def dataset_or_synthetic(self, spec: DataSpec) -> Dataset:
        """The data set of a suite, or the built-in people when its root was not given: enough to take times with."""
        return self.dataset(spec) or self._built_in("val", DataSpec())

    def _built_in(self, split: str, spec: DataSpec | TrainData) -> Dataset:
        """The built-in people of a split, drawn on first use."""
        if not self.draw and not _place(split).is_dir():
            from harness.data.stand_in import stand_in

            self.undrawn.add(split)
            return stand_in(split)
        root = synthetic_folder(split)
        return _load(root, spec.annotations, spec.images, "synthetic")

    def training_set(self, spec: TrainSpec) -> Dataset:
        """The images to train on. SuiteError when their root was not given, DataError when they cannot be read."""
        if spec.data == "synthetic":
            dataset = self._built_in("train", TrainData())
        elif spec.data.root in self.data:
            root, where = self.data[spec.data.root], spec.data
            dataset = _load(root, where.annotations, where.images, Path(where.images).name)
        else:
            raise SuiteError("no training data", hint=f"--data {spec.data.root}=PATH")
        return dataset if spec.limit is None else coco.limit(dataset, spec.limit)

    def start_of(self, cell: Cell) -> Path | None:
        """The weights that the training of a cell starts from, None for random ones. WeightsError when not there."""
        start = cell.train.start if cell.train else ""
        if not start:
            return None
        found = self.weights_of(cell, start)
        if found is None:
            hint = f"--weights {cell.variant}=PATH" if start == "weights" else "`make train-quickstart` makes them"
            raise WeightsError(f"no weights of {cell.variant} to start from", hint=hint)
        return found

    def boxes(self, spec: DataSpec, dataset: Dataset, protocol: PoseProtocol) -> Boxes:
        """Person boxes: cleaned ground truth, or a detection file below the data root."""
        if spec.boxes == "ground-truth":
            return from_ground_truth(dataset, cleaning=protocol.box_cleaning)
        if isinstance(spec.boxes, BoxesFrom):
            raise DataError(f"boxes of {spec.boxes.variant}, which finds them when the suite runs", where=spec.name)
        root = _place("val") if spec.name == "synthetic" else self.data[spec.root]
        path = inside(root, spec.boxes)
        return from_file(path, dataset, threshold=protocol.box_score_threshold)

    def weights_of(self, cell: Cell, root: str) -> Path | None:
        """The weights file of a cell: --weights, else the suite's weights root; None when there is none."""
        if cell.variant in self.weights:
            return self.weights[cell.variant]
        if root != "quickstart":
            return None
        if cell.weights:
            path = inside(QUICKSTART, cell.weights)
            if not path.is_file():
                raise WeightsError("there is no such weights file", where=cell.weights)
            return path
        return own_weights(cell.variant)


def own_weights(variant: str) -> Path | None:
    """The project's own weights of a variant, None where it has none: the tiny ones have."""
    found = [p for s in _SUFFIXES if (p := QUICKSTART / f"{variant}{s}").is_file()]
    return found[0] if found else None


def data_key(spec: DataSpec, dataset: Dataset, boxes: Boxes) -> dict[str, str]:
    """What identifies the persons that are evaluated: annotations, image files, boxes."""
    digest = hashlib.sha256(b"".join(a.tobytes() for a in (boxes.image_ids, boxes.xywh, boxes.scores))).hexdigest()[:16]
    return {"name": spec.name, "dataset": dataset.fingerprint, "boxes": boxes.source, "boxes_digest": digest}
