"""Where a suite's files come from."""

from __future__ import annotations

import pytest

from harness.data import synthetic
from harness.errors import DataError
from harness.suite.sources import synthetic_folder


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(synthetic.SYNTHETIC, "val", (2, 1))


def test_the_synthetic_set_is_made_once(small, tmp_path):
    place = synthetic_folder("val", tmp_path)
    annotations = place / "annotations" / "person_keypoints_val2017.json"
    first = annotations.stat().st_mtime_ns
    assert synthetic_folder("val", tmp_path) == place and annotations.stat().st_mtime_ns == first
    assert [p.name for p in tmp_path.iterdir()] == [place.name]


def test_of_two_processes_that_make_the_synthetic_set_the_faster_ones_files_stay(small, tmp_path, monkeypatch):
    made = synthetic.write

    def slower(folder, **options):
        monkeypatch.setattr(synthetic, "write", made)
        synthetic_folder("val", tmp_path)  # the other process, in the meantime
        for image in tmp_path.glob("synthetic-*/val2017/*.jpg"):
            image.write_bytes(b"theirs")
        return made(folder, **options)

    monkeypatch.setattr(synthetic, "write", slower)
    place = synthetic_folder("val", tmp_path)
    assert {image.read_bytes() for image in (place / "val2017").iterdir()} == {b"theirs"}


def test_a_synthetic_set_without_annotations_is_named(small, tmp_path):
    (synthetic_folder("val", tmp_path) / "annotations" / "person_keypoints_val2017.json").unlink()
    with pytest.raises(DataError, match="its annotations are not"):
        synthetic_folder("val", tmp_path)
