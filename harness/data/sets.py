"""Any annotation file that we read -> a data set: COCO's format (COCO, CrowdPose), or MPII's list of persons."""

from __future__ import annotations

from pathlib import Path

from harness.data import coco, mpii
from harness.data.coco import Dataset
from harness.errors import DataError

__all__ = ["is_list", "load"]


def load(
    annotation_file: str | Path,
    image_folder: str | Path,
    *,
    heads: str | Path | None = None,
    name: str = "",
    root: Path | None = None,
) -> Dataset:
    """The data set; `heads` is the mat file with MPII's head boxes, `root` bounds where links may lead. Raises
    DataError for what cannot be read."""
    if is_list(Path(annotation_file)):
        return mpii.load(annotation_file, image_folder, heads=heads, name=name, root=root)
    if heads is not None:
        raise DataError(
            "head boxes of a set in COCO's format",
            where=str(annotation_file),
            expected="MPII's annotations as HRNet's JSON list of persons",
            hint="leave `heads` out: AP needs none",
        )
    return coco.load(annotation_file, image_folder, name=name, root=root)


def is_list(path: Path) -> bool:
    """Whether a JSON file holds a list, as MPII's do; False for what cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    except OSError:
        return False
