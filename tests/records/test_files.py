"""Files that are whole or not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from harness.records import files
from harness.records.files import decode_arrays, load_arrays, read_whole, save_arrays, write_atomically, writing


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_nothing_is_under_the_name_before_all_is_written(tmp_path):
    path = tmp_path / "new" / "folder" / "a.json"
    with writing(path) as stream:
        stream.write(b"half")
        stream.flush()
        assert not path.exists()
        stream.write(b" and half")
    assert path.read_bytes() == b"half and half" and names(path.parent) == ["a.json"]


def test_an_error_while_writing_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "a.json"
    write_atomically(path, b"old")
    with pytest.raises(OSError, match="No space"), writing(path) as stream:
        stream.write(b"new")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_bytes() == b"old" and names(tmp_path) == ["a.json"]


def test_file_new_folders_and_the_folder_of_the_file_are_flushed_and_before_and_after_the_rename(tmp_path, monkeypatch):
    order, flush, rename = [], os.fsync, Path.replace

    def fsync(handle):
        order.append(Path(f"/proc/self/fd/{handle}").readlink())
        flush(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", lambda self, to: (order.append("rename"), rename(self, to))[1])
    write_atomically(tmp_path / "new" / "a.json", b"x")
    at = order.index("rename")
    assert tmp_path in order[:at] and order[at - 1].suffix == ".tmp" and order[at + 1] == tmp_path / "new"


def test_a_folder_that_cannot_be_flushed_is_no_error(tmp_path, monkeypatch):
    flush = os.fsync

    def fsync(handle):
        if Path(f"/proc/self/fd/{handle}").readlink().is_dir():
            raise OSError(errno.EINVAL, "Invalid argument")
        flush(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomically(tmp_path / "a.json", b"x")
    assert (tmp_path / "a.json").read_bytes() == b"x"


def test_a_temporary_file_that_a_clean_up_took_away_is_written_again(tmp_path, monkeypatch):
    rename, taken = Path.replace, []

    def replace(self, to):
        if not taken:
            taken.append(self)
            self.unlink()
        return rename(self, to)

    monkeypatch.setattr(Path, "replace", replace)
    write_atomically(tmp_path / "a.json", b"x")
    assert taken and (tmp_path / "a.json").read_bytes() == b"x"


def test_a_file_that_is_replaced_while_it_is_read_over_a_network_is_read_again(tmp_path, monkeypatch):
    path, read, failed = tmp_path / "a", Path.read_bytes, []
    path.write_bytes(b"x")

    def stale(self):
        if not failed:
            failed.append(self)
            raise OSError(errno.ESTALE, "Stale file handle")
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", stale)
    assert read_whole(path) == b"x" and failed


def test_every_flipped_bit_of_an_array_file_is_noticed(tmp_path):
    save_arrays(tmp_path / "a.npz", {"index": np.arange(3), "x": np.linspace(0, 1, 4), "name": np.array("one")})
    data = (tmp_path / "a.npz").read_bytes()
    assert decode_arrays(data) is not None
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        assert decode_arrays(bytes(damaged)) is None, bit
    for length in range(0, len(data), 7):
        assert decode_arrays(data[:length]) is None


def test_an_array_file_of_an_older_version_is_read_and_its_damage_noticed(tmp_path):
    np.savez(tmp_path / "old.npz", x=np.arange(100))
    assert np.array_equal(load_arrays(tmp_path / "old.npz")["x"], np.arange(100))
    data = bytearray((tmp_path / "old.npz").read_bytes())
    data[len(data) // 2] ^= 1
    assert decode_arrays(bytes(data)) is None


def test_memory_that_does_not_suffice_is_no_damage(tmp_path, monkeypatch):
    save_arrays(tmp_path / "a.npz", {"x": np.arange(3)})

    def full(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(files, "read_npz", full)
    with pytest.raises(MemoryError):
        load_arrays(tmp_path / "a.npz")
