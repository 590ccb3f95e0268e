"""PCKh of one set of predictions on MPII, with intervals over images. One pose for each annotated person."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.accuracy import bootstrap as resampling
from harness.accuracy.checks import Faults, keypoint_faults, kind_of
from harness.accuracy.evaluation import Evaluated, rough
from harness.accuracy.pck import Hits
from harness.accuracy.scored import summarise
from harness.accuracy.stream import stream_json
from harness.data.coco import Dataset
from harness.errors import DataError

__all__ = ["evaluate_pckh", "read_poses"]

Results = Iterable[Mapping[str, Any]]


def evaluate_pckh(
    dataset: Dataset,
    results: Results,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
    absent_as_wrong: bool = False,
    progress: Callable[[], None] | None = None,
    where: str = "predictions",
) -> Evaluated:
    """PCKh@0.5 and PCKh@0.1, mean and by joint, of results {person, keypoints}: `person` is the id of the annotation,
    its place in the file from 1; `keypoints` 3 K numbers in image pixels that count from 0.

    `absent_as_wrong`: a person without a pose has all joints wrong; else that is an error. Raises DataError: head sizes
    that are not there, all faults of the results.
    """
    persons = [person for person in dataset.persons if (person.keypoints[:, 2] > 0).any()]
    heads = _heads(dataset, persons)
    poses = _poses(dataset, results, where)
    absent = np.array([person.id not in poses for person in persons], dtype=bool)
    if absent.any() and not absent_as_wrong:
        raise _lacking([p.id for p, lacks in zip(persons, absent) if lacks], where)
    joints = dataset.skeleton.num_joints
    truth = np.array([person.keypoints for person in persons]).reshape(-1, joints, 3)
    nothing = np.full((joints, 2), np.nan)
    place = {image.id: i for i, image in enumerate(dataset.images)}
    hits = Hits.of(
        np.array([poses.get(person.id, nothing) for person in persons]).reshape(-1, joints, 2),
        truth[..., :2], truth[..., 2] > 0, heads,
        np.array([place[person.image_id] for person in persons], dtype=np.int64),
        np.array([image.id for image in dataset.images]),
        joints=dataset.skeleton.joints, absent=absent,
    )  # fmt: skip
    lacking = "1 person has" if absent.sum() == 1 else f"{absent.sum()} persons have"
    notes = [f"{lacking} no pose: their joints count as wrong"] if absent.any() else []
    return Evaluated(
        evaluator="mpii",
        stats=summarise(hits),
        intervals=resampling.intervals(hits, bootstrap, seed, progress=progress) if bootstrap else {},
        matches=hits,
        images=hits.num_images,
        persons=len(persons),
        detections=len(poses),
        resamples=bootstrap,
        seed=seed,
        notes=(*notes, *rough(hits.num_images, bootstrap)),
    )


def _heads(dataset: Dataset, persons: Sequence[Any]) -> np.ndarray:
    sizes = [person.head_size for person in persons]
    if None in sizes:
        raise DataError(
            f"{sizes.count(None)} of {len(sizes)} persons have no head size, which PCKh divides by",
            where=dataset.name,
            expected="the mat file with the head boxes of the split",
            hint="in a suite `data: {heads: FILE.mat}`, of `evaluate` --heads FILE.mat",
        )
    return np.array(sizes, dtype=np.float64)


def _poses(dataset: Dataset, results: Results, where: str) -> dict[int, np.ndarray]:
    """(K, 2) by person. DataError that lists all faults."""
    if isinstance(results, Mapping | str | bytes) or not isinstance(results, Iterable):
        raise DataError(f"the file holds {kind_of(results)}", where=where, expected="a list of {person, keypoints}")
    faults, known = Faults(where), {person.id for person in dataset.persons}
    poses: dict[int, np.ndarray] = {}
    joints = dataset.skeleton.num_joints
    for number, result in enumerate(results):
        person = result.get("person") if isinstance(result, Mapping) else None
        if not isinstance(person, int) or isinstance(person, bool):
            faults.add(f"result {number}: person is {person!r}")
        elif person not in known:
            faults.add(f"result {number}: there is no person {person}")
        elif person in poses:
            faults.add(f"result {number}: person {person} has a pose already")
        else:
            wrong = list(keypoint_faults(f"result {number} (person {person})", result.get("keypoints"), joints))
            faults.extend(wrong)
            points = np.zeros((joints, 3)) if wrong else np.array(result["keypoints"], dtype=np.float64)
            poses[person] = points.reshape(joints, 3)[:, :2]
    hint = "person is the place of the annotation in the JSON file, from 1; PCKh asks for the pose of a given person"
    faults.check(f"results with person and 3 x {joints} keypoint numbers, one for each person", hint)
    return poses


def _lacking(ids: Sequence[int], where: str) -> DataError:
    some = ", ".join(map(str, ids[:10])) + (" ..." if len(ids) > 10 else "")
    return DataError(
        f"{len(ids)} persons have no pose: {some}",
        where=where,
        expected="one pose for each annotated person",
        hint="was NMS applied, or a detector's boxes? --missing-as-empty of `evaluate` counts their joints as wrong",
    )


def read_poses(path: Path, persons: int) -> Results:
    """The results in a file: a JSON list of {person, keypoints}, or a mat file with `preds` (N, 16, 2 or more) in
    pixels that count from 1, as HRNet's evaluation writes it. DataError for what is neither."""
    if path.suffix.lower() != ".mat":
        return stream_json(path)
    from harness.data.mat_file import read_arrays

    preds = read_arrays(path, ["preds"])["preds"]
    if preds.dtype.kind not in "fiu" or preds.ndim != 3 or preds.shape[0] != persons or preds.shape[2] < 2:
        shown = "x".join(map(str, preds.shape))
        raise DataError(f"preds is {shown}", where=str(path), expected=f"preds ({persons}, 16, 2), one for each person")
    ones = np.ones((*preds.shape[:2], 1))
    points = np.concatenate([preds[..., :2].astype(np.float64) - 1.0, ones], axis=2).reshape(persons, -1)
    return [{"person": number, "keypoints": row} for number, row in enumerate(points.tolist(), start=1)]
