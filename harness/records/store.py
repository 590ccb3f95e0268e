"""Records and arrays on disk: content-addressed, written atomically, one file for each record. Torch-free."""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from harness.errors import UserError
from harness.foreign import Refused
from harness.foreign.json_text import loads
from harness.provenance import command, content_id, revision, versions
from harness.records.files import decode_arrays, is_sound, load_arrays, read_whole, save_arrays, write_atomically

__all__ = ["SCHEMA", "Record", "Store", "load_arrays", "save_arrays", "write_atomically"]

T = TypeVar("T")
SCHEMA = 1
_TRIES = 3
DEFAULT_FOLDER = Path("results/records")
_MOST_BYTES = 1 << 28  # of a record
_NAME = re.compile(r"[a-z][a-z_]*-[0-9a-f]{16}")


class Record(BaseModel):
    """One measurement. `key` is all that determines it; `id` is the hash of `kind` and `key`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA
    id: str
    kind: str
    """accuracy, cost or latency"""
    key: dict[str, Any]
    result: dict[str, Any]
    info: dict[str, Any]
    """what does not determine the result: time, versions, revision, command, seconds"""
    digest: str
    """hash of `result`: a damaged record is noticed"""

    @classmethod
    def make(cls, kind: str, key: Mapping[str, Any], result: Mapping[str, Any], **info: Any) -> Record:
        """A record of now, by this command, with these versions."""
        stamp = {
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "revision": revision(),
            "versions": versions(),
            "command": command(),
        }
        plain = json.loads(json.dumps(result, allow_nan=False))
        return cls(
            id=record_id(kind, key),
            kind=kind,
            key=dict(key),
            result=plain,
            info={**stamp, **info},
            digest=content_id(plain),
        )

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from harness.records.notebook import record_html

        return record_html(self)


def record_id(kind: str, key: Mapping[str, Any]) -> str:
    """The content id of a measurement."""
    return content_id({"kind": kind, "schema": SCHEMA, "key": key})


def _sound(content: bytes) -> bytes | None:
    """The bytes of a sound array file, else None."""
    return content if is_sound(content) else None


class Store:
    """The records below one folder.

    records/KIND-ID.json, arrays/ID.npz, passes/ID/ (predictions), runs/SUITE.json (what a suite's table consists of),
    quarantine/ (damaged files, kept for the curious).
    """

    def __init__(self, folder: Path = DEFAULT_FOLDER, *, read_only: bool = False) -> None:
        """`read_only`: damaged files are left where they are; `quarantined` names them all the same."""
        self.folder, self._read_only = folder, read_only
        self.quarantined: list[str] = []
        self.outdated: list[str] = []
        """records of an older schema version, passed over: `run` measures them again"""

    @classmethod
    def find(cls, folder: Path, *, read_only: bool = False) -> Store:
        """The store that `folder` is, or that it holds as `records`. UserError when there is none."""
        places = [folder / "records", folder, *([folder.parent] if folder.name == "records" else [])]
        for place in places:
            if (place / "records").is_dir():
                return cls(place, read_only=read_only)
        raise UserError(
            "no records",
            where=str(folder),
            hint="`paretopose run SUITE` writes some; results/quickstart has the project's",
        )

    def remarks(self) -> list[str]:
        """What was passed over while reading, for people."""
        lines = [f"damaged file set aside: {name}; `paretopose run` measures it again" for name in self.quarantined]
        if self.outdated:
            lines.append(
                f"{len(self.outdated)} records of an older schema version passed over; `paretopose run` measures "
                "them again"
            )
        return lines

    def check_writable(self, need_mb: float = 50) -> None:
        """UserError when nothing can be written here; asked before hours are spent."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder) as probe:  # without a name: others may ask at the same time
                probe.write(b"x")
                probe.flush()
            space = os.statvfs(self.folder)
        except OSError as error:
            raise UserError(
                f"cannot write records: {error.strerror}",
                where=str(self.folder),
                hint="choose another folder with --store",
            ) from error
        free_mb = space.f_bavail * space.f_frsize / 1e6
        if free_mb < need_mb:
            raise UserError(
                f"{free_mb:.0f} MB are free",
                where=str(self.folder),
                expected=f"{need_mb:.0f} MB",
                hint="free some, or --store",
            )

    def get(self, kind: str, key: Mapping[str, Any]) -> Record | None:
        """The record of that measurement, or None when it is missing or was damaged (then it is set aside)."""
        return self._read(self._path(kind, record_id(kind, key)))

    def by_id(self, kind: str, identity: str) -> Record | None:
        """The record of that kind and id; None also for an id that is none, and might be a place elsewhere."""
        return self._read(self._path(kind, identity)) if _NAME.fullmatch(f"{kind}-{identity}") else None

    def put(self, record: Record, arrays: Mapping[str, np.ndarray] | None = None) -> Record:
        """Keep a record; its arrays are written first, so that a record is never without them."""
        file = self.folder / "arrays" / f"{record.id}.npz"
        for _ in range(_TRIES):
            if arrays is not None:
                save_arrays(file, arrays)
            write_atomically(self._path(record.kind, record.id), record.model_dump_json(indent=1).encode())
            if arrays is None or file.is_file():  # else a clean-up has just taken them for left-overs
                break
        return record

    def arrays(self, identity: str) -> dict[str, np.ndarray] | None:
        """The arrays of a record, None when there are none or the file was damaged (then it is set aside)."""
        return self._checked(self.folder / "arrays" / f"{identity}.npz", f"{identity}.npz", decode_arrays)

    def has_sound_arrays(self, identity: str) -> bool:
        """The arrays of a record are there and undamaged; a damaged file is set aside."""
        return self._checked(self.folder / "arrays" / f"{identity}.npz", f"{identity}.npz", _sound) is not None

    def check_pass(self, identity: str) -> None:
        """Set aside the blocks of a pass that cannot be read, so that they are computed again."""
        for path in sorted(self.pass_folder(identity).glob("*.npz")):
            self._checked(path, f"{identity}-{path.name}", _sound)

    def _checked(self, path: Path, name: str, look: Callable[[bytes], T | None]) -> T | None:
        """What `look` makes of an array file; where that is None, it is not sound and set aside."""
        try:
            content = read_whole(path)
        except OSError:
            return None
        try:
            found = look(content)
        except Refused:
            found = None
        if found is None:
            self._quarantine(path, content, name)
        return found

    def has_arrays(self, identity: str) -> bool:
        """The arrays of a record lie here; whether they are sound tells who reads them."""
        return (self.folder / "arrays" / f"{identity}.npz").is_file()

    def records(self) -> Iterator[Record]:
        """All records, by kind and id."""
        for path in sorted((self.folder / "records").glob("*.json")):
            record = self._read(path)
            if record is not None:
                yield record

    def pass_folder(self, identity: str) -> Path:
        """Where the predictions of a pass are kept."""
        return self.folder / "passes" / identity

    def write_run(self, name: str, manifest: Mapping[str, Any]) -> Path:
        """Keep what a suite's table consists of: the cells in order, their record ids, or why there is none."""
        path = self.folder / "runs" / f"{name}.json"
        write_atomically(path, json.dumps(manifest, indent=1, allow_nan=False).encode())
        return path

    def _path(self, kind: str, identity: str) -> Path:
        return self.folder / f"records/{kind}-{identity}.json"

    def _read(self, path: Path) -> Record | None:
        try:
            if not path.is_file():  # a pipe would be waited for
                return None
            content = read_whole(path) if path.stat().st_size <= _MOST_BYTES else None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"cannot read a record: {error.strerror}", where=str(path)) from error
        try:
            values = loads(content or b"")
            version = values["schema_version"]
            if isinstance(version, int) and version > SCHEMA:
                raise UserError(
                    f"schema version {version}", where=str(path), expected=f"at most {SCHEMA}", hint="update paretopose"
                )
            if isinstance(version, int) and version < SCHEMA:
                self.outdated.append(path.name)
                return None
            record = Record.model_validate(values)
            # under its own name, which is then none that leads out of a store it is copied to
            sound = path.name == f"{record.kind}-{record.id}.json" and _NAME.fullmatch(path.stem) is not None
            sound = (
                sound and record.digest == content_id(record.result) and record.id == record_id(record.kind, record.key)
            )
        except (ValueError, TypeError, KeyError, RecursionError):
            sound = False
        if not sound:
            self._quarantine(path, content, path.name)
        return record if sound else None

    def _quarantine(self, path: Path, content: bytes | None, name: str) -> None:
        """Set a file aside that holds this damaged `content`; None: too much to read."""
        if not self._read_only:
            place = self.folder / "quarantine" / name
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                path.replace(place)
                if content is not None and read_whole(place) != content:  # another process has just measured it again
                    place.replace(path)
                    return
            except FileNotFoundError:  # somebody else set it aside
                return
            except PermissionError:  # somebody else's store
                pass
        self.quarantined.append(name)
