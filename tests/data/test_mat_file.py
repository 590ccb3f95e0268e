"""Mat files are read in a process of their own: what they do to it is a message."""

import numpy as np
import pytest
from scipy.io import savemat

from harness.data.mat_file import read_arrays
from harness.errors import DataError

FLIPS = [(145, 9), (145, 14), (321, 9), (321, 14)]
"""byte and what is flipped in it: scipy's reader then follows a wild pointer"""


def _split(path):
    numbers = np.arange(12.0).reshape(2, 2, 3)
    savemat(path, {"headboxes_src": numbers, "jnt_missing": np.zeros((16, 3))})
    return numbers


def test_arrays_come_back_by_name(tmp_path):
    numbers = _split(tmp_path / "a.mat")
    found = read_arrays(tmp_path / "a.mat", ["headboxes_src", "pos_gt_src"])
    assert found.keys() == {"headboxes_src"} and np.array_equal(found["headboxes_src"], numbers)


@pytest.mark.parametrize("place, bits", FLIPS)
def test_a_file_that_ends_its_reader_is_damaged(tmp_path, place, bits):
    _split(tmp_path / "a.mat")
    data = bytearray((tmp_path / "a.mat").read_bytes())
    data[place] ^= bits
    (tmp_path / "a.mat").write_bytes(data)
    with pytest.raises(DataError, match=r"damaged or no mat file|holds no numbers"):
        read_arrays(tmp_path / "a.mat", ["headboxes_src", "jnt_missing"])


def test_a_file_that_unpacks_beyond_the_memory_it_gets_is_refused(tmp_path):
    """A thousandth of that on the disk, inside of what promises to be one structure."""
    savemat(tmp_path / "a.mat", {"RELEASE": {"annolist": np.zeros(300 << 20, np.uint8)}}, do_compression=True)
    assert (tmp_path / "a.mat").stat().st_size < 1 << 20
    with pytest.raises(DataError, match=r"of memory|damaged"):
        read_arrays(tmp_path / "a.mat", ["RELEASE"], most_bytes=600 << 20)


def test_what_is_no_array_of_numbers_is_refused(tmp_path):
    savemat(tmp_path / "a.mat", {"preds": {"a": 1}, "cells": np.array([1, "x"], dtype=object)})
    for name in ("preds", "cells"):
        with pytest.raises(DataError, match=f"{name} holds no numbers"):
            read_arrays(tmp_path / "a.mat", [name])
    with pytest.raises(DataError, match="no such mat file"):
        read_arrays(tmp_path / "b.mat", ["preds"])
