"""What an evaluation of poses has found: statistics with intervals, and what they were computed from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from harness.accuracy.ap import Stats
from harness.accuracy.bootstrap import FEW_IMAGES, Interval
from harness.accuracy.judges import Verdict
from harness.accuracy.scored import Scored
from harness.words import counted

__all__ = ["SCHEMA", "Evaluated", "rough"]

SCHEMA = "paretopose.evaluation/1"


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What one set of predictions reaches, in 0 to 1, and how sure that is. `verdict`: what a reference evaluator says,
    where there is one."""

    evaluator: str
    stats: Stats
    intervals: dict[str, Interval | None]
    matches: Scored = field(repr=False)
    images: int
    persons: int
    detections: int
    resamples: int
    seed: int
    verdict: Verdict | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the matches. A statistic that is not defined is null, with the reason."""
        return {
            "schema": SCHEMA,
            "evaluator": self.evaluator,
            "images": self.images,
            "persons": self.persons,
            "detections": self.detections,
            "stats": {name: self._stat(name) for name in self.stats},
            "bootstrap": {"resamples": self.resamples, "seed": self.seed, "unit": "image"},
            "judge": self.verdict.to_dict() if self.verdict else None,
            "notes": list(self.notes),
        }

    def _stat(self, name: str) -> dict[str, Any]:
        if name in self.stats.reasons:
            return {"value": None, "interval": None, "reason": self.stats.reasons[name]}
        found = self.intervals.get(name)
        return {"value": self.stats[name], "interval": found.to_dict() if found else None}


def rough(images: int, resamples: int) -> list[str]:
    """The note on intervals from few images."""
    few = resamples and images < FEW_IMAGES
    return [f"only {counted(images, 'image')}: intervals from fewer than {FEW_IMAGES} are rough"] if few else []
