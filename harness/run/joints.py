"""Which joints a row's network writes, and whether its data set can be scored with them."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from harness.accuracy.on_dataset import check_scorable
from harness.data.coco import Dataset
from harness.errors import DataError, HarnessError
from harness.method import find_variant
from harness.pose.skeletons import COCO, Skeleton, with_joints
from harness.run.rows import Row
from harness.train.checkpoints import infer_joints, open_variant, read, translate

__all__ = ["check_ground", "network_skeleton"]


def network_skeleton(row: Row, dataset: Dataset | None, trained_on: Skeleton | None = None) -> Skeleton:
    """The joint set of a row's network: of the data it is trained on, else what its weights are for.

    Without weights, or where they do not tell: the data set's own, and COCO's where joints are mapped.
    """
    if trained_on is not None:
        return trained_on
    found = None
    if row.weights is not None:
        try:
            found = _joints_in(
                row.variant.name, row.weights, row.cell.input_size, json.dumps(row.cell.build, sort_keys=True)
            )
        except HarnessError:  # told where the network is opened
            found = None
    own = COCO if dataset is None or row.cell.data.joints is not None else dataset.skeleton
    if found == own.num_joints:
        return own
    return with_joints(found) or (own if found is None else _unknown(found))


def _unknown(count: int) -> Skeleton:
    return Skeleton("unknown", tuple(f"joint_{n}" for n in range(count)), (), (0.1,) * count, (), ())


@lru_cache(maxsize=256)
def _joints_in(name: str, weights: Path, input_size: tuple[int, int], build: str) -> int | None:
    variant, knobs = find_variant(name), json.loads(build)
    if variant.open_file is not None:
        return getattr(open_variant(variant, weights, **knobs)[0], "num_joints", None)
    state = translate(variant, read(weights)[0], str(weights)).state
    return infer_joints(variant, state, input_size=input_size, **knobs)


def check_ground(row: Row, dataset: Dataset) -> None:
    """DataError where a row cannot be scored on the data set, before anything is predicted."""
    check_scorable(dataset)
    if dataset.evaluator == "mpii" and row.variant.paradigm == "one-stage":
        raise DataError(
            "PCKh asks for the pose of a given person, and a one-stage network finds its own",
            where=dataset.name,
            expected="top-down networks on MPII",
        )
    if dataset.evaluator == "mpii" and row.cell.data.boxes != "ground-truth":
        raise DataError(
            "PCKh asks for one pose of each annotated person, and a detector's boxes are of nobody in particular",
            where=dataset.name,
            expected="boxes: ground-truth, which are MPII's centers and scales",
        )
