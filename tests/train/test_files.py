"""Reading foreign files safely, writing ours atomically."""

import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from harness.errors import WeightsError
from harness.method import find_variant
from harness.train.checkpoints import load_into
from harness.train.files import read, write


class _Planted:
    """Would create a file when unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def _equal(state):
    return state.keys() == STATE.keys() and all(torch.equal(state[k], STATE[k]) for k in STATE)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "meta": {"epoch": 3}, "optimizer": {"state": {}}},
        lambda s: {"model": s},
        lambda s: {"model": "pose_hrnet", "state_dict": {f"module.{k}": v for k, v in s.items()}, "perf": 0.7},
        lambda s: {"epoch": 1, "best_state_dict": OrderedDict(s)},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_wrappers_and_the_parallel_prefix_are_taken_off(tmp_path, wrap, zipped):
    path = tmp_path / "w.pth"
    torch.save(wrap(STATE), path, _use_new_zipfile_serialization=zipped)
    assert _equal(read(path)[0])


def test_what_is_written_is_read_back_with_its_metadata(tmp_path):
    path = tmp_path / "deep" / "w.safetensors"
    write(path, STATE, {"variant": "x"})
    state, metadata = read(path)
    assert _equal(state) and metadata == {"variant": "x"}
    assert [p.name for p in path.parent.iterdir()] == ["w.safetensors"]


def test_tied_and_transposed_tensors_can_be_written(tmp_path):
    tied = torch.arange(6.0).reshape(2, 3)
    write(tmp_path / "w.safetensors", {"a": tied, "b": tied, "c": tied.T})
    assert torch.equal(read(tmp_path / "w.safetensors")[0]["c"], tied.T)


@pytest.mark.parametrize("form", ["zip", "legacy", "plain pickle"])
def test_a_planted_call_is_refused_by_name_and_not_executed(tmp_path, form):
    path, marker = tmp_path / "w.pth", tmp_path / "executed"
    content = {"state_dict": STATE if form != "plain pickle" else {}, "extra": _Planted(marker)}
    if form == "plain pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(WeightsError, match=r"posix\.mkdir|nt\.mkdir"):
        read(path)
    assert not marker.exists()


@pytest.mark.parametrize("form", ["object array", "bare pickle"])
def test_a_planted_call_in_an_archive_of_arrays_is_refused_by_name_and_not_executed(tmp_path, form):
    path, marker = tmp_path / "w.npz", tmp_path / "executed"
    if form == "object array":
        np.savez(path, a=np.ones(2), b=np.array([_Planted(marker)], dtype=object))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("b.npy", pickle.dumps(_Planted(marker)))
    with pytest.raises(
        WeightsError, match=r"w\.npz: b\.npy: refused: .* wants to use (posix|nt)\.mkdir; nothing of it"
    ):
        read(path)
    assert not marker.exists()


def test_an_archive_of_arrays_is_no_checkpoint_and_one_is_told_how_to_make_it_one(tmp_path):
    path = tmp_path / "w.pth"
    with path.open("wb") as stream:
        np.savez_compressed(stream, **{f"a.{i}": np.ones(2) for i in range(6)})
    with pytest.raises(WeightsError, match=r"not a checkpoint: a \.npz archive of arrays") as caught:
        read(path)
    assert "'a.4', ..." in caught.value.what and "safetensors" in caught.value.expected
    assert "safetensors.numpy.save_file" in caught.value.hint and "download" not in str(caught.value)


def test_one_number_that_claims_to_be_a_terabyte_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1).expand(10**12)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"a of shape .* is no tensor whose values are all in the file"):
        read(tmp_path / "w.pth")


def test_a_packed_archive_and_one_with_places_elsewhere_are_refused_by_name(tmp_path):
    torch.save(STATE, tmp_path / "w.pth")
    for name, how, member in (("packed.pth", zipfile.ZIP_DEFLATED, "w/x"), ("slip.pth", zipfile.ZIP_STORED, "../../x")):
        with zipfile.ZipFile(tmp_path / "w.pth") as old, zipfile.ZipFile(tmp_path / name, "w") as new:
            for info in old.infolist():
                new.writestr(info.filename, old.read(info))
            new.writestr(member, bytes(10**6), compress_type=how)
        with pytest.raises(WeightsError, match=f"{name}: refused: .*{member}"):
            read(tmp_path / name)
    assert not (tmp_path.parent.parent / "x").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_word_that_torch_would_search_for_hours_is_refused(tmp_path, zipped):
    torch.save({"a": torch.zeros(1), "b": "x" * 1_000_000}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="a word of more than 5000 letters"):
        read(tmp_path / "w.pth")


@pytest.mark.parametrize("protocol", ["no JSON", "[1]", '{"colour": "cmyk"}', '{"no_field": 1}', "[" * 9999])
def test_a_protocol_in_the_metadata_that_is_none_is_told(tmp_path, protocol):
    variant = find_variant("simplebaseline_tiny")
    network = variant.build(num_joints=17, input_size=variant.input_size)
    write(tmp_path / "w.safetensors", network.state_dict(), {"protocol": protocol})
    with pytest.raises(WeightsError, match=r"w\.safetensors: the protocol in its metadata is none"):
        load_into(network, variant, tmp_path / "w.safetensors")


def test_numbers_of_numpy_beside_the_weights_are_admitted(tmp_path):
    torch.save({"state_dict": STATE, "meta": {"lr": np.float64(0.1), "order": np.arange(3)}}, tmp_path / "w.pth")
    assert _equal(read(tmp_path / "w.pth")[0])


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_of_plain_arrays_is_read(tmp_path, protocol):
    arrays = {"model": {k: v.numpy() for k, v in STATE.items()}, "__author__": "somebody"}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(arrays, protocol=protocol))
    state, metadata = read(tmp_path / "w.pkl")
    assert _equal(state) and metadata == {"__author__": "somebody"}


@pytest.mark.parametrize("array", [np.array([1, "x", None], object), np.array(["x"]), np.zeros(2, [("x", "f4")])])
def test_a_pickle_of_arrays_that_hold_no_numbers_is_refused(tmp_path, array):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": {"a": array}}))
    with pytest.raises(WeightsError, match="an array of"):
        read(tmp_path / "w.pkl")


def test_arrays_of_the_other_byte_order_are_read(tmp_path):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"a": np.arange(3, dtype=">f4")}))
    assert torch.equal(read(tmp_path / "w.pkl")[0]["a"], torch.arange(3.0))


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle", "safetensors"])
def test_a_truncated_file_is_named_as_damaged(tmp_path, kind):
    path = tmp_path / "w"
    if kind == "safetensors":
        write(path, STATE)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({k: v.numpy() for k, v in STATE.items()}))
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=kind == "zip")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(WeightsError, match="damaged") as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello, this is a text", pickle.dumps([1, 2]), pickle.dumps({"a": 1})])
def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path, content):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(WeightsError, match="not a checkpoint"):
        read(tmp_path / "w.pth")


def test_a_missing_file_is_named():
    with pytest.raises(WeightsError, match="no such file"):
        read("nowhere.pth")
