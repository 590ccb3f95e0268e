"""The measuring instrument: accuracy against cost for human pose estimation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["load"]


def load(folder: str | Path = "results") -> pd.DataFrame:
    """All records below `folder` as one table, one row for each record; see `harness.records.frame` for the columns."""
    from harness.records.frame import load as load_frame

    return load_frame(folder)
