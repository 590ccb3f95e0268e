"""Rows of any batch become blocks of one size on disk."""

from __future__ import annotations

import numpy as np
import pytest

from harness.passes.blocks import BlockWriter, block_file
from harness.records.store import load_arrays


def rows(*index: int) -> dict[str, np.ndarray]:
    return {"index": np.array(index), "twice": 2.0 * np.array(index)[:, None]}


def written(folder) -> dict[str, list[int]]:
    return {p.name: load_arrays(p)["index"].tolist() for p in sorted(folder.glob("block-*"))}


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 7, 11, 100])
def test_whatever_the_batch_the_blocks_are_the_same(tmp_path, batch):
    writer = BlockWriter(tmp_path, 4)
    for start in range(0, 11, batch):
        writer.add(rows(*range(start, min(start + batch, 11))))
    writer.close()
    assert written(tmp_path) == {
        "block-0000000.npz": [0, 1, 2, 3], "block-0000004.npz": [4, 5, 6, 7], "block-0000008.npz": [8, 9, 10]
    }  # fmt: skip
    block = load_arrays(block_file(tmp_path, 4))
    assert block["twice"].tolist() == [[8.0], [10.0], [12.0], [14.0]]


def test_a_block_is_written_with_its_last_row_and_not_before(tmp_path):
    writer = BlockWriter(tmp_path, 4)
    writer.add(rows(0, 1, 2))
    assert written(tmp_path) == {}
    writer.add(rows(3))
    assert written(tmp_path) == {"block-0000000.npz": [0, 1, 2, 3]}


def test_absent_rows_end_a_block_when_a_later_row_comes(tmp_path):
    writer = BlockWriter(tmp_path, 4)
    writer.add(rows(1, 2))
    assert written(tmp_path) == {}
    writer.add(rows(9))
    assert written(tmp_path) == {"block-0000000.npz": [1, 2]}
    writer.close()
    writer.close()
    assert written(tmp_path) == {"block-0000000.npz": [1, 2], "block-0000008.npz": [9]}
