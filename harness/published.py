"""Published figures: results/published/*.csv, one row per figure set, each with its source. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from harness.cost.conventions import SCALED, Reproduction, reproduce, scaled
from harness.errors import DataError

__all__ = ["COLUMNS", "FOLDER", "NUMBERS", "TEXTS", "fitting", "load", "records", "reproduction", "rows_for", "size_of"]

FOLDER = Path(__file__).resolve().parent.parent / "results" / "published"

NUMBERS = (
    "input_h", "input_w", "heatmap_h", "heatmap_w", "params_m", "gflops", "ap", "ap50", "ap75", "apm", "apl", "ar",
    "pckh50", "fps", "latency_ms",
)  # fmt: skip
COLUMNS = (
    "our_variant", "our_knobs", "method", "variant", "backbone", "dataset", "split", "boxes", "input_h", "input_w",
    "heatmap_h", "heatmap_w", "post_process", "params_m", "gflops", "counted_at", "convention", "ap", "ap50", "ap75",
    "apm", "apl", "ar", "pckh50", "fps", "latency_ms", "speed_device", "note", "source",
)  # fmt: skip
"""`our_variant` (with `our_knobs`): the same network in this project, empty where there is none or it is not certain.
`convention`: the one under which its source counted, as counting it again shows; `none` where no convention reproduces
the figure, empty where the network is not ours. `counted_at`: the input size at which the figure is counted where its
source states none (`note` says why), or the size of the image for a network that takes whole images. A row that
repeats another one's network for its speed alone holds the speed alone. AP in 0 to 100, as printed."""
TEXTS = ("gflops", "params_m")
"""figures of which loading adds the characters as printed, as `gflops_text`: their last digit counts"""


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
    for name in TEXTS:
        table[f"{name}_text"] = table[name]
    for name in NUMBERS:
        table[name] = pd.to_numeric(table[name])
    return table


def load(folder: Path = FOLDER) -> pd.DataFrame:
    """All rows, columns as in COLUMNS and the printed texts; numbers are floats, nan where a source printed none.

    Raises DataError for a file with other columns or a row without a source.
    """
    return _read(folder).copy()


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as mappings."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


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


def fitting(rows: Sequence[Mapping[str, Any]], knobs: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Of the rows of a variant, those that are about the network with these knobs.

    Rows that name knobs, where ours have those values; where none does, the rows that name none.
    """
    named = [row for row in rows if row["our_knobs"] and _holds(row["our_knobs"], knobs)]
    return named or [row for row in rows if not row["our_knobs"]]


def _holds(text: str, knobs: Mapping[str, Any]) -> bool:
    pairs = (part.partition("=") for part in re.split(r"[;,\s]+", text) if part)
    return all(str(knobs.get(name)) == value for name, _, value in pairs)


def size_of(row: Mapping[str, Any]) -> tuple[int, int] | None:
    """(height, width) at which the row's GFLOPs are counted, None where nothing says it."""
    text = str(row["counted_at"])
    if text:
        height, _, width = text.partition("x")
        return int(height), int(width)
    return (int(row["input_h"]), int(row["input_w"])) if row["input_h"] == row["input_h"] else None  # nan != nan


def reproduction(row: Mapping[str, Any], giga: Mapping[str, float]) -> Reproduction:
    """The row's GFLOPs against ours of the same network at its size, `giga` by convention."""
    more: dict[str, float] = {}
    if row["convention"] == SCALED:
        small, size = _smaller(row), size_of(row)
        assert size is not None
        more[SCALED] = scaled(str(small["gflops_text"]), (256, 192), size)
    return reproduce(str(row["gflops_text"]), {**giga, **more}, str(row["convention"]))


def _smaller(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row of the same network at 256x192 under the same convention, of which a scaled figure is made."""
    table = _read(FOLDER)
    same = (table["our_variant"] == row["our_variant"]) & (table["our_knobs"] == row["our_knobs"])
    found = table[
        same & (table["input_h"] == 256) & (table["input_w"] == 192) & (table["convention"] == "hrnet-readme")
    ]
    if found.empty:
        raise DataError(f"{row['our_variant']}: no figure at 256x192 to scale", where="results/published")
    return dict(found.iloc[0])
