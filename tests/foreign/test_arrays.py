"""Arrays that carry something else than numbers, or promise more than they hold."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from harness.foreign import Refused
from harness.foreign.arrays import names_in_npz, read_npy, read_npz


class _Planted:
    """Would create a folder when unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def _npy(array, **how) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **how)
    return stream.getvalue()


def _npz(members: dict[str, bytes], how=zipfile.ZIP_STORED) -> io.BytesIO:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", how) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream


def _header(shape: str, descr: str = "'<f4'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "array", [np.arange(6.0).reshape(2, 3).T, np.array(7), np.array(["a", "bc"]), np.zeros((0, 3))]
)
def test_what_numpy_wrote_is_read_alike(tmp_path, array):
    (tmp_path / "a.npy").write_bytes(_npy(array))
    np.savez_compressed(tmp_path / "a.npz", x=array)
    for found in (read_npy(tmp_path / "a.npy"), read_npz(tmp_path / "a.npz")["x"]):
        assert found.dtype == array.dtype and np.array_equal(found, array)


def test_the_names_of_an_archive_are_told_and_its_faults_found_without_reading_the_arrays(monkeypatch):
    monkeypatch.setattr(np.lib.format, "read_array", None)
    assert names_in_npz(_npz({"x.npy": _npy(np.ones(3)), "y.npy": _npy(np.zeros(2))})) == ["x", "y"]
    with pytest.raises(ValueError, match=r"x\.npy: the header promises"):
        names_in_npz(_npz({"x.npy": _header("(9,)")}))
    with pytest.raises(Refused, match=r"x\.npy: refused: a pickle of Python objects"):
        names_in_npz(_npz({"x.npy": _npy(np.array([None]))}))


@pytest.mark.parametrize("form", ["object array", "bare pickle", "member"])
def test_a_planted_call_is_refused_by_name_and_not_executed(tmp_path, form):
    marker, path = tmp_path / "executed", tmp_path / "a.npy"
    array = np.array([_Planted(marker)], dtype=object)
    path.write_bytes(pickle.dumps(_Planted(marker)) if form == "bare pickle" else _npy(array))
    with pytest.raises(Refused, match=r"wants to use (posix|nt)\.mkdir; nothing of it was executed"):
        read_npz(_npz({"x.npy": path.read_bytes()})) if form == "member" else read_npy(path)
    assert not marker.exists()


@pytest.mark.parametrize("shape", ["(1000000000000,)", "(2, -3)", "(3,)", "(((((1,)))))" * 2000])
def test_a_header_that_promises_more_than_the_file_holds_is_refused_unread(tmp_path, shape):
    (tmp_path / "a.npy").write_bytes(_header(shape) + bytes(8))
    with pytest.raises(ValueError, match=r"promises|not an array|header"):
        read_npy(tmp_path / "a.npy")


def test_fields_and_empty_items_are_refused(tmp_path):
    for descr in ("[('a', '<f4')]", "'|V8'", "'|S0'"):
        (tmp_path / "a.npy").write_bytes(_header("(1,)", descr) + bytes(8))
        with pytest.raises(ValueError, match=r"refused|not an array|header"):
            read_npy(tmp_path / "a.npy")


@pytest.mark.parametrize("name", ["../../x.npy", "/etc/x.npy", "C:\\x.npy", "a/../../x.npy"])
def test_a_member_that_would_leave_the_archive_is_refused_by_name(name):
    with pytest.raises(Refused, match="leaves the archive"):
        read_npz(_npz({name: _npy(np.zeros(1))}))


def test_an_archive_that_unpacks_to_a_thousand_times_its_size_is_refused_unread():
    bomb = _npz({"x.npy": _npy(np.zeros(30_000_000))}, zipfile.ZIP_DEFLATED)
    with pytest.raises(Refused, match="would unpack to 240000128"):
        read_npz(bomb)
