"""Pickles that reach for a callable, for memory, or for the inside of an array."""

import os
import pickle

import numpy as np
import pytest
from numpy._core import multiarray

from harness.foreign.pickles import Array, RefusedName, load_plain, names_in


class _Calls:
    def __init__(self, function, *arguments, state=None):
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    "array",
    [np.arange(6, dtype=">i4").reshape(2, 3), np.asfortranarray(np.eye(3)), np.array(["ab", "c"]), np.float32(2.5)],
)
def test_arrays_and_numbers_come_back(protocol, array):
    found = load_plain(pickle.dumps({"x": array}, protocol=protocol))["x"]
    assert np.array_equal(found.values if isinstance(found, Array) else found, array)


@pytest.mark.parametrize("flags", [0, 63])
@pytest.mark.parametrize(("kind", "names", "fields"), [("O8", None, None), ("V8", ("a",), {"a": (np.dtype("O"), 0)})])
def test_an_array_that_denies_that_it_holds_objects_is_refused(kind, names, fields, flags):
    # with numpy's own dtype and ndarray these eight bytes become a pointer
    dtype = _Calls(np.dtype, kind, False, True, state=(3, "|", None, names, fields, 8, 1, flags))
    state = (1, (1,), dtype, False, b"A" * 8)
    with pytest.raises(RefusedName, match=kind):
        load_plain(pickle.dumps(_Calls(multiarray._reconstruct, np.ndarray, (0,), b"b", state=state), protocol=2))


@pytest.mark.parametrize(
    ("function", "arguments"),
    [(os.mkdir, ("x",)), (eval, ("1",)), (getattr, ("", "join")), (np.load, ("x",)), (__import__, ("os",))],
)
def test_no_callable_is_reached_and_its_name_is_told(function, arguments):
    data = pickle.dumps([_Calls(function, *arguments)])
    with pytest.raises(RefusedName, match=function.__name__):
        load_plain(data)
    assert names_in(data) == [f"{function.__module__}.{function.__name__}"]


def test_an_encoding_that_takes_hours_is_refused():
    import _codecs

    with pytest.raises(RefusedName, match="idna"):
        load_plain(pickle.dumps(_Calls(_codecs.encode, "a" * 10, "idna")))


def test_one_opcode_cannot_fill_the_memory():
    with pytest.raises(ValueError, match="LONG_BINPUT 4294967295 in 9 bytes"):
        load_plain(b"\x80\x02Nr\xff\xff\xff\xff.")


def test_a_shape_without_its_values_is_refused():
    state = (1, (10**12,), np.dtype("f4"), False, b"\0" * 4)
    with pytest.raises(ValueError, match="has 1 values"):
        load_plain(pickle.dumps(_Calls(multiarray._reconstruct, np.ndarray, (0,), b"b", state=state), protocol=2))
