"""Records and arrays on disk: content-addressed, written atomically, one file for each record. Torch-free."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from harness.errors import UserError
from harness.provenance import command, content_id, revision, versions

__all__ = ["SCHEMA", "Record", "Store", "write_atomically"]

SCHEMA = 1
_UMASK = os.umask(0)
os.umask(_UMASK)
DEFAULT_FOLDER = Path("results/records")


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


def write_atomically(path: Path, data: bytes) -> None:
    """Write, flush to disk, rename: a reader sees the old file or the whole new one, whatever happens."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o666 & ~_UMASK)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


class Store:
    """The records below one folder.

    records/KIND-ID.json, arrays/ID.npz, passes/ID/ (predictions), runs/SUITE.json (what a suite's table consists of),
    quarantine/ (damaged records, kept for the curious).
    """

    def __init__(self, folder: Path = DEFAULT_FOLDER, *, read_only: bool = False) -> None:
        """`read_only`: damaged records are left where they are; `quarantined` names them all the same."""
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
        lines = [f"damaged record set aside: {name}; `paretopose run` measures it again" for name in self.quarantined]
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
        """The record of that kind and id."""
        return self._read(self._path(kind, identity))

    def put(self, record: Record, arrays: Mapping[str, np.ndarray] | None = None) -> Record:
        """Keep a record; its arrays are written first, so that a record is never without them."""
        if arrays is not None:
            save_arrays(self.folder / "arrays" / f"{record.id}.npz", arrays)
        write_atomically(self._path(record.kind, record.id), record.model_dump_json(indent=1).encode())
        return record

    def arrays(self, identity: str) -> dict[str, np.ndarray] | None:
        """The arrays of a record, None when there are none or the file is damaged."""
        return load_arrays(self.folder / "arrays" / f"{identity}.npz")

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
        return self.folder / "records" / f"{kind}-{identity}.json"

    def _read(self, path: Path) -> Record | None:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"cannot read a record: {error.strerror}", where=str(path)) from error
        try:
            values = json.loads(content)
            version = values["schema_version"]
            if isinstance(version, int) and version > SCHEMA:
                raise UserError(
                    f"schema version {version}", where=str(path), expected=f"at most {SCHEMA}", hint="update paretopose"
                )
            if isinstance(version, int) and version < SCHEMA:
                self.outdated.append(path.name)
                return None
            record = Record.model_validate(values)
        except (ValueError, TypeError, KeyError):
            self._quarantine(path)
            return None
        sound = record.digest == content_id(record.result) and record.id == record_id(record.kind, record.key)
        if not sound:
            self._quarantine(path)
        return record if sound else None

    def _quarantine(self, path: Path) -> None:
        if self._read_only:
            self.quarantined.append(path.name)
            return
        place = self.folder / "quarantine" / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.replace(place)
        except FileNotFoundError:  # somebody else set it aside
            return
        self.quarantined.append(path.name)


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz atomically; it carries checksums (zip), so damage is noticed on reading."""
    import io

    buffer = io.BytesIO()
    np.savez(buffer, **dict(arrays))  # type: ignore[arg-type]
    write_atomically(path, buffer.getvalue())


def load_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of an .npz, None when it is missing or damaged. Pickled objects are refused."""
    import zipfile
    import zlib

    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (FileNotFoundError, zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, KeyError):
        return None
