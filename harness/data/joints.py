"""A data set with only those joints that a network with another joint set is evaluated on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from harness.data.coco import Dataset, Person
from harness.pose.joint_map import JointMap

__all__ = ["on_joints"]


def on_joints(dataset: Dataset, chosen: JointMap) -> Dataset:
    """The data set with the labels of the evaluated joints; a person who has none of them is not looked for."""
    entries = dataset.annotations["annotations"]
    persons = tuple(_person(person, chosen) for person in dataset.persons)
    kept = [_entry(entry, person) for entry, person in zip(entries, persons, strict=True)]
    names = list(chosen.evaluated.joints)
    categories = [
        {**c, "keypoints": names, "skeleton": []} if c.get("keypoints") else c
        for c in dataset.annotations["categories"]
    ]
    found = replace(
        dataset,
        persons=persons,
        skeleton=chosen.evaluated,
        annotations={**dataset.annotations, "annotations": kept, "categories": categories},
        joint_map=chosen,
    )
    if "file_sizes" in dataset.__dict__:  # known, or known to be lost
        found.__dict__["file_sizes"] = dataset.file_sizes
    return found


def _person(person: Person, chosen: JointMap) -> Person:
    keypoints = person.keypoints[chosen.data_rows]
    everything = len(keypoints) == len(person.keypoints)  # then the file's own count stands
    count = person.num_keypoints if everything else int(np.sum(keypoints[:, 2] > 0))
    return replace(person, keypoints=keypoints, num_keypoints=count)


def _entry(entry: dict[str, Any], person: Person) -> dict[str, Any]:
    return {**entry, "keypoints": person.keypoints.ravel().tolist(), "num_keypoints": person.num_keypoints}
