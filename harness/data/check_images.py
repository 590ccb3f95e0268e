"""What is wrong with the image files of a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.data.reading import image_size
from harness.errors import DataError
from harness.foreign.places import climbs_out, linked_out

__all__ = ["Fault", "image_files"]

Entry = dict[str, Any]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: `kind` groups faults, `where` names file and entry, `hint` says what to do."""

    kind: str
    where: str
    what: str
    hint: str = ""


def image_files(entries: list[Entry], folder: Path, progress: Progress | None) -> Iterator[Fault]:
    """Faults of the image files that entries {id, file_name, width, height} name; those without a size have any."""
    if not folder.is_dir():
        yield Fault("image folder", str(folder), "the image folder does not exist", "name it with --images DIR")
        return
    entries = [e for e in entries if isinstance(e.get("file_name"), str) and not climbs_out(e["file_name"])]
    with ThreadPoolExecutor(4) as pool:
        faults = pool.map(lambda entry: _image_file(entry, folder), entries)
        for done, fault in enumerate(faults, start=1):
            if fault is not None:
                yield fault
            if progress is not None:
                progress(done, len(entries))


def _image_file(entry: Entry, folder: Path) -> Fault | None:
    path = folder / entry["file_name"]
    where = f"image {entry['id']}, {path.name}"
    if linked_out(folder, [entry["file_name"]], folder.parent) is not None:
        return Fault("image link", where, "a link to a place outside the data root", "copy what it points to")
    if not path.is_file():
        return Fault("missing image", where, "the file does not exist", "copy the file, or drop the image")
    try:
        width, height = image_size(path)
    except DataError as error:
        return Fault("unreadable image", where, error.what, error.hint)
    said = (entry.get("width"), entry.get("height"))
    if said in ((width, height), (None, None)):
        return None
    hint = "use the original image, or correct the annotation file"
    return Fault("image size", where, f"the file is {width}x{height}, annotated is {said[0]}x{said[1]}", hint)
