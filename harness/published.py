"""Published figures: results/published/*.csv, one row per figure set, each with its source. Torch-free."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import pandas as pd

from harness.errors import DataError

__all__ = ["COLUMNS", "FOLDER", "NUMBERS", "load", "rows_for"]

FOLDER = Path(__file__).resolve().parent.parent / "results" / "published"

NUMBERS = (
    "input_h", "input_w", "heatmap_h", "heatmap_w", "params_m", "gflops", "ap", "ap50", "ap75", "apm", "apl", "ar",
    "pckh50", "fps", "latency_ms",
)  # fmt: skip
COLUMNS = (
    "our_variant", "our_knobs", "method", "variant", "backbone", "dataset", "split", "boxes", "input_h", "input_w",
    "heatmap_h", "heatmap_w", "post_process", "params_m", "gflops", "convention", "ap", "ap50", "ap75", "apm", "apl",
    "ar", "pckh50", "fps", "latency_ms", "speed_device", "note", "source",
)  # fmt: skip
"""`our_variant` (with `our_knobs`): the same network in this project, empty where there is none or it is not certain.
`gflops_text`, added on loading, is the figure as printed; `convention` is the one that reproduces it to one unit of
its last digit, determined by counting, empty where none does or none was counted. AP in 0 to 100, as printed."""


class _Named(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def published(self) -> tuple[tuple[str, str], ...]: ...


@lru_cache(maxsize=4)
def _read(folder: Path) -> pd.DataFrame:
    files = sorted(folder.glob("*.csv"))
    if not files:
        raise DataError("no published figures", where=str(folder), expected="CSV files, one per method family")
    frames = []
    for file in files:
        frame = pd.read_csv(file, dtype=str, keep_default_na=False)
        if tuple(frame.columns) != COLUMNS:
            raise DataError("unexpected columns", where=str(file), expected=", ".join(COLUMNS))
        if (frame["source"] == "").any():
            raise DataError("a figure without a source", where=str(file))
        frames.append(frame)
    table = pd.concat(frames, ignore_index=True)
    table["gflops_text"] = table["gflops"]
    for name in NUMBERS:
        table[name] = pd.to_numeric(table[name])
    return table


def load(folder: Path = FOLDER) -> pd.DataFrame:
    """All rows, columns as in COLUMNS; numbers are floats, nan where a source printed none.

    Raises DataError for a file with other columns or a row without a source.
    """
    return _read(folder).copy()


def rows_for(
    variant: _Named, input_size: tuple[int, int] | None = None, *, dataset: str = "", folder: Path = FOLDER
) -> pd.DataFrame:
    """Rows of one variant of ours: those that name it, and those without a name of ours that one of its
    (method, variant) patterns selects. `input_size`, `dataset` narrow them (a row that states none stays out)."""
    table = load(folder)
    mine = table["our_variant"] == variant.name
    for method, pattern in variant.published:
        matches = [
            row.our_variant == "" and row.method == method and fnmatchcase(str(row.variant), pattern)
            for row in table.itertuples()
        ]
        # a row that names a variant of ours belongs to that one alone
        mine |= pd.Series(matches, index=table.index) & ~table["method"].isin(_named_methods(table))
    if input_size is not None:
        mine &= (table["input_h"] == input_size[0]) & (table["input_w"] == input_size[1])
    if dataset:
        mine &= table["dataset"] == dataset
    return table[mine].reset_index(drop=True)


def _named_methods(table: pd.DataFrame) -> set[str]:
    """Methods whose rows were assigned by hand: there an empty name means that no network of ours is the same."""
    return set(table.loc[table["our_variant"] != "", "method"])
