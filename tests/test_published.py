"""Published figures: every row has a source, belongs to one network, and its convention reproduces it."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from harness import published
from harness.errors import DataError

TABLE = published.load()
COUNTED = TABLE[TABLE["convention"] != ""]


def test_every_row_has_a_source_and_a_figure():
    assert (TABLE["source"].str.len() > 5).all()
    assert TABLE[["ap", "pckh50", "params_m", "gflops", "fps", "latency_ms"]].notna().any(axis=1).all()
    assert not TABLE.duplicated().any()


def test_figures_are_in_their_ranges():
    for name in ("ap", "ap50", "ap75", "apm", "apl", "ar", "pckh50"):
        assert TABLE[name].dropna().between(0, 100).all()
    assert (TABLE["gflops"].dropna() > 0).all()


def test_nothing_is_claimed_for_a_network_without_published_figures():
    assert not TABLE["our_variant"].str.startswith("fasterpose").any()
    assert not TABLE["our_variant"].str.endswith("_tiny").any()


def test_headline_figures_are_found_under_our_names():
    row = published.rows_for(SimpleNamespace(name="simplebaseline_r50", published=()), (256, 192), dataset="COCO")
    official = row[row["gflops_text"] == "8.9"]
    assert 70.4 in set(official["ap"])
    assert set(official["convention"]) == {"hrnet-readme"}


def test_a_pattern_selects_rows_of_methods_that_are_not_ours():
    rows = published.rows_for(SimpleNamespace(name="mine", published=(("Lite-HRNet", "LiteHRNet-18"),)), (256, 192))
    assert len(rows) and set(rows["variant"]) == {"LiteHRNet-18"}


def test_a_pattern_does_not_take_rows_that_were_assigned():
    rows = published.rows_for(SimpleNamespace(name="mine", published=(("HRNet", "*"),)))
    assert rows.empty


def test_a_row_without_a_source_is_refused(tmp_path):
    values = dict.fromkeys(published.COLUMNS, "")
    (tmp_path / "bad.csv").write_text(",".join(values) + "\n" + ",".join(values.values()) + "\n")
    with pytest.raises(DataError, match="source"):
        published.load(tmp_path)
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="columns"):
        published.load(tmp_path)


def test_loading_does_not_import_torch():
    code = "import sys; from harness.published import load; load(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _networks():
    """The quick ones first; each of the others counts a larger network."""
    found = sorted({(r.our_variant, int(r.input_h), int(r.input_w)) for r in COUNTED.itertuples()})
    quick = {("simplebaseline_r50", 256), ("simplebaseline_r50", 384), ("hrnet_w32", 256)}
    return [pytest.param(n, (h, w), marks=() if (n, h) in quick else pytest.mark.slow) for n, h, w in found]


@pytest.mark.parametrize(("variant", "size"), _networks())
def test_the_convention_of_a_row_reproduces_its_figure(variant, size):
    from harness.cost.account import measure
    from harness.cost.conventions import reproducing, scaled
    from harness.method import find_variant
    from harness.train.checkpoints import open_variant

    counts = measure(open_variant(find_variant(variant), None, input_size=size)[0], {}).counts
    rows = COUNTED[
        (COUNTED["our_variant"] == variant) & (COUNTED["input_h"] == size[0]) & (COUNTED["input_w"] == size[1])
    ]
    small = COUNTED[(COUNTED["our_variant"] == variant) & (COUNTED["input_h"] == 256)]
    for row in rows.itertuples():
        if row.convention == "hrnet-readme scaled":
            printed = set(small.loc[small["convention"] == "hrnet-readme", "gflops_text"])
            assert min(abs(scaled(p, (256, 192), size) - row.gflops) for p in printed) <= 0.1
        else:
            assert row.convention == reproducing(row.gflops_text, counts)[0]
