"""Between a pass and its seal: a data set that did not stay as it was when its fingerprint was taken."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import MeasurementError
from harness.passes import replay
from harness.records.files import load_arrays
from harness.run.rows import Row
from harness.run.session import Session

__all__ = ["seal"]


def seal(
    session: Session,
    row: Row,
    folders: Callable[[], Sequence[Path]],
    blocks: Sequence[Sequence[str]],
    images: np.ndarray,
    about: Mapping[str, Any],
) -> None:
    """Mark the passes of a row in `folders()` as complete, each of its `blocks`, under the data as they were read.

    `images` (N,) image ids of all rows of the pass. Files that were there when the run began and were passed over as
    missing count as missing in the keys of pass and record, and `folders()` are then others. MeasurementError when
    files were exchanged while they were read: the passes belong to no data set, and are thrown away.
    """
    dataset, places = session.dataset(row), folders()
    assert dataset is not None
    changed = dataset.changed_files()
    if changed:
        for folder in places:
            shutil.rmtree(folder, ignore_errors=True)
        raise MeasurementError(
            f"{len(changed)} image files were exchanged while they were read, first {changed[0].file}",
            where=str(dataset.image_folder),
            expected="a data set that stays as it is during a run",
            hint="run again: the images are then read as they are now",
        )
    absent = set(images[_absent(places[0], blocks[0], len(images))].tolist())
    gone = {image for image in absent if dataset.file_sizes[image]}
    if gone:
        session.progress.say(f"{len(gone)} image files went missing during the run; they are passed over and counted")
        session.lose_files(row, gone)
        for before, now in zip(places, folders()):
            with contextlib.suppress(OSError):  # it is there already
                before.rename(now)
    for folder, names in zip(folders(), blocks):
        replay.seal_pass(folder, {**about, "notes": session.notes(row)}, names)


def _absent(folder: Path, names: Sequence[str], count: int) -> np.ndarray:
    """Which of `count` rows are in no block."""
    absent = np.ones(count, dtype=bool)
    for name in names:
        found = load_arrays(folder / name)
        if found is not None:
            absent[found["index"]] = False
    return absent
