from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.accuracy import stream
from harness.accuracy.checks import read_json
from harness.accuracy.evaluate import evaluate
from harness.accuracy.inputs import Detections, GroundTruth
from harness.accuracy.stream import stream_json
from harness.errors import DataError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(elements=st.lists(VALUES, max_size=6), chunk=st.integers(1, 40), indent=st.sampled_from([None, 1]))
def test_every_array_reads_the_same_however_it_is_cut_into_chunks(tmp_path_factory, elements, chunk, indent):
    path = tmp_path_factory.mktemp("array") / "a.json"
    path.write_text(json.dumps(elements, indent=indent, ensure_ascii=False), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "_CHUNK", chunk)
        assert list(stream_json(path)) == elements


def test_a_number_at_the_end_of_a_chunk_goes_on_in_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "_CHUNK", 3)  # "[12" | "345" | "e1," | " 6]"
    (tmp_path / "a.json").write_text("[12345e1, 6]")
    assert list(stream_json(tmp_path / "a.json")) == [123450.0, 6]


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize("text", ["[", "[1", "[1,", '[{"a": 1}, {"b', '[{"a": "x', "[[1, 2"])
def test_an_array_that_was_cut_short_says_so(tmp_path, monkeypatch, chunk, text):
    monkeypatch.setattr(stream, "_CHUNK", chunk)
    (tmp_path / "a.json").write_text("\n\n" + text)
    with pytest.raises(DataError, match="ends too early") as caught:
        list(stream_json(tmp_path / "a.json"))
    assert "a.json:3" in str(caught.value)


@pytest.mark.parametrize("text", ["[1 2]", "[1] 2", "[1,]", '[{"a" 1}]', "[1, x, 2" + " " * 40 + "]", "[}"])
def test_what_is_no_json_is_named_with_its_line(tmp_path, monkeypatch, text):
    monkeypatch.setattr(stream, "_CHUNK", 5)
    (tmp_path / "a.json").write_text("\n" + text)
    with pytest.raises(DataError, match=r"a.json:2: not valid JSON"):
        list(stream_json(tmp_path / "a.json"))


def test_an_endless_text_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "_CHUNK", 100)
    monkeypatch.setattr(stream, "_LONGEST", 1000)
    (tmp_path / "a.json").write_text('["' + "x" * 100_000)
    with pytest.raises(DataError, match="not valid JSON"):
        list(stream_json(tmp_path / "a.json"))


def test_other_values_missing_files_and_wrong_encodings_are_told(tmp_path):
    (tmp_path / "object.json").write_text('{"a": [1]}')
    assert stream_json(tmp_path / "object.json") == {"a": [1]}
    (tmp_path / "bytes.json").write_bytes(b'["\xff"]')
    with pytest.raises(DataError, match="cannot be read"):
        list(stream_json(tmp_path / "bytes.json"))
    with pytest.raises(DataError, match="no such file"):
        stream_json(tmp_path / "none.json")


def test_a_file_gives_what_the_list_gives(tmp_path, monkeypatch, made_up, jittered):
    gt = made_up(12, 1)
    results = jittered(gt, 1, boxes=True)
    (tmp_path / "r.json").write_text(json.dumps(results, indent=1))
    assert read_json(tmp_path / "r.json") == results
    monkeypatch.setattr(stream, "_CHUNK", 999)
    streamed, listed = (evaluate(gt, source, bootstrap=0) for source in (tmp_path / "r.json", results))
    assert dict(streamed.stats) == dict(listed.stats)
    assert streamed.verdict == listed.verdict


def test_the_twenty_best_of_an_image_are_kept_however_results_are_divided(made_up, jittered, monkeypatch):
    gt = made_up(6, 2)
    results = jittered(gt, 2, levels=4, copies=15)  # many ties, far more than 20 in an image
    truth = GroundTruth.from_coco(gt, num_joints=17)
    whole = Detections.from_results(results, truth)
    monkeypatch.setattr("harness.accuracy.inputs.AT_ONCE", 7)
    monkeypatch.setattr("harness.accuracy.best._SLACK", 20)
    parts = Detections.from_results(iter(results), truth)
    assert np.bincount(whole.image).max() == 20
    assert whole.count == parts.count == len(results)
    for name in ("image", "xy", "score", "area"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))


def test_memory_does_not_grow_with_the_number_of_results(made_up, monkeypatch):
    monkeypatch.setattr("harness.accuracy.inputs.AT_ONCE", 500)
    monkeypatch.setattr("harness.accuracy.best._SLACK", 1000)
    gt = made_up(3, 1)
    truth = GroundTruth.from_coco(gt, num_joints=17)

    def results(count):
        for i in range(count):
            yield {"image_id": i % 3 + 1, "category_id": 1, "keypoints": [float(i)] * 51, "score": i / count}

    def peak(count):
        tracemalloc.start()
        Detections.from_results(results(count), truth)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert peak(12_000) < 1.3 * peak(4_000)
