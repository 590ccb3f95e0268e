"""The stored predictions behind a row of a run manifest, with the persons that they are of. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from harness.data.boxes import Boxes
from harness.data.coco import Dataset
from harness.data.joints import on_joints
from harness.errors import HarnessError
from harness.passes.replay import Pass, load_pass
from harness.pose.joint_map import JointMap
from harness.records.store import Record, Store
from harness.suite.schema import Cell
from harness.suite.sources import Sources, data_key

__all__ = ["Stored", "open_row"]


@dataclass(frozen=True, eq=False)
class Stored:
    """What a row was scored from: top-down poses of all outcomes, by person box."""

    cell: Cell
    record: Record
    predictions: Pass
    dataset: Dataset
    boxes: Boxes


def open_row(row: Mapping[str, Any], store: Store, sources: Sources) -> Stored | str:
    """The predictions behind a row, or why they are not at hand."""
    record = store.by_id("accuracy", str((row.get("records") or {}).get("accuracy", "")))
    if record is None:
        return "it was not scored"
    found = _predictions(record, store)
    if isinstance(found, str):
        return found
    try:
        cell = Cell.model_validate(row["cell"])
        dataset = sources.dataset(cell.data)
        if dataset is None:
            return f"its images are not here (--data {cell.data.root}=PATH)"
        if "joints" in record.result:
            dataset = on_joints(dataset, JointMap.from_json(dataset.skeleton, record.result["joints"]))
        boxes = sources.boxes(cell.data, dataset, cell.protocol)
        if data_key(cell.data, dataset, boxes) != record.key.get("data"):
            return "its images, persons or boxes are not those that were scored"
    except ValidationError:
        return "its knobs are not in the run (all records of a store have no suite)"
    except HarnessError as error:
        return str(error)
    return Stored(cell, record, found, dataset, boxes)


def _predictions(record: Record, store: Store) -> Pass | str:
    identity = str(record.info.get("predictions", ""))
    if not identity.isalnum():  # never a path out of the store
        return "it does not name its predictions (made by an older version)"
    found = load_pass(store.pass_folder(identity))
    if found is None:
        return "its predictions are not stored here"
    if not any(name.startswith("keypoints:") for name in found):
        return "it has no poses by person box (a one-stage network, or nobody to find)"
    return found
