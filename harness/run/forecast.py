"""Minutes and disk of a run before it starts, from sizes alone: enough to tell minutes from days.

The rates are those of a modest CPU with two cores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.cost.macs import parameters
from harness.cost.size import constant_macs, unfilled
from harness.data.synthetic import SYNTHETIC
from harness.passes.decoding import Decoding
from harness.run.rows import Row, settings_of
from harness.run.session import Session
from harness.run.trained import Training
from harness.suite.schema import LatencySpec

__all__ = ["Forecast", "forecast", "people"]

_GMACS_PER_SECOND = 40.0
_FORWARD = 0.004  # seconds beside the multiply-accumulates: image, crop, many small operators
_BACKWARD = 3  # forwards that a training step is worth
_AUGMENTED = 0.008  # seconds of a training sample
_PICTURE, _PICTURE_MB = 0.03, 0.033  # to draw one of the built-in set
_COUNTING, _COUNTERS = 2.0, 3  # seconds to build a network and list its operators; forwards that are counted
_SCORING, _SCORING_PERSON = 1.0, 0.002  # seconds for the AP of a row with its interval
_WARM_UP = 10  # calls
_PEAK = 4.0  # seconds for the machine's own rate
_POSE, _OUTCOMES, _MATCH = 17 * 3 * 4, 2, 60  # bytes of a pose, stored outcomes, bytes of a match


@dataclass(frozen=True)
class Forecast:
    """`minutes` by part of the run; `uncounted`: rows whose work depends on the image and is not known before their
    cost was counted, so that it is in no minute."""

    minutes: dict[str, float]
    megabytes: float
    uncounted: tuple[str, ...]


def forecast(
    session: Session, waiting: Mapping[str, Sequence[Row]], passes: Sequence[Sequence[Row]], trainings: Sequence[Row]
) -> Forecast:
    """What is to come: `waiting` rows by measurement (of those that share a count one), the rows of each pass, a row of
    each training."""
    sizes = _Sizes(session)
    pictures = sum(SYNTHETIC[split][0] for split in session.sources.undrawn)
    scored = [(len(rows), people(session, rows[0])) for rows in passes]
    spec = session.suite.measure.latency
    seconds = {
        "people": pictures * _PICTURE,
        "cost": sum(_COUNTING + _COUNTERS * (sizes.gmacs(row) or 0) / _GMACS_PER_SECOND for row in waiting["cost"]),
        "training": sum(_training(session.trainings[row], sizes.gmacs(row)) for row in trainings),
        "accuracy": sum(_pass(session, rows, sizes) for rows in passes)
        + sum(cells * (_SCORING + _SCORING_PERSON * persons) for cells, persons in scored),
        "latency": _latency(waiting["latency"], spec, sizes.gmacs) if spec and waiting["latency"] else 0.0,
    }
    numbers = pictures * _PICTURE_MB * 1e6 + sum(sizes.parameters(row) * 4 for row in trainings)
    numbers += sum(cells * persons * _MATCH for cells, persons in scored)
    numbers += sum(_stored(session, rows) for rows in passes)
    networks = (*(rows[0] for rows in passes), *trainings)
    heavy = dict.fromkeys(row.variant.name for row in networks if sizes.gmacs(row) is None)
    return Forecast({n: s / 60 for n, s in seconds.items() if s}, numbers / 1e6, tuple(heavy))


def people(session: Session, row: Row) -> int:
    """Person boxes of a top-down row (the annotated persons, where a one-stage row is to find them); images of a
    one-stage row."""
    dataset = session.dataset(row)
    assert dataset is not None
    if row.variant.paradigm == "one-stage":
        return len(dataset.images)
    return len(dataset.persons) if session.lacking_boxes(row) else len(session.inputs(row).boxes.scores)


class _Sizes:
    """Work and size of the networks of rows; each network is built once, without memory."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._built: dict[str, Any] = {}

    def gmacs(self, row: Row) -> float | None:
        """Of one forward: of the cost record, else in closed form; None where that depends on the image."""
        if "cost" in row.records:
            return float(row.records["cost"].result["macs"]) / 1e9
        if row.variant.build is None:
            return None
        macs = constant_macs(self._network(row))
        return None if macs is None else macs / 1e9

    def parameters(self, row: Row) -> int:
        return parameters(self._network(row)).total

    def _network(self, row: Row) -> Any:
        key = repr(self.session.network_key(row))
        if key not in self._built:
            options = {
                "num_joints": self.session.skeleton(row).num_joints,
                "input_size": row.cell.input_size,
                **row.cell.build,
            }
            self._built[key] = unfilled(row.variant, **options)
        return self._built[key]


def _training(training: Training, gmacs: float | None) -> float:
    whole = training.variant.paradigm == "one-stage"
    labelled = sum(p.num_keypoints > 0 and not p.iscrowd for p in training.dataset.persons)
    recipe, each = training.recipe, len(training.dataset.images) if whole else labelled
    samples = recipe.steps * recipe.batch if recipe.steps else recipe.epochs * each
    return samples * (_AUGMENTED + _BACKWARD * (gmacs or 0.0) / _GMACS_PER_SECOND)


def _pass(session: Session, rows: Sequence[Row], sizes: _Sizes) -> float:
    """Seconds of the forwards of a pass: one for each run setting, two with flip test."""
    flip = rows[0].variant.paradigm == "top-down" and any(row.cell.protocol.flip for row in rows)
    settings = {repr(settings_of(row.cell)) for row in rows}
    forwards = people(session, rows[0]) * len(settings) * (2 if flip else 1)
    return forwards * (_FORWARD + (sizes.gmacs(rows[0]) or 0.0) / _GMACS_PER_SECOND)


def _stored(session: Session, rows: Sequence[Row]) -> int:
    """Bytes of the poses of a pass."""
    kinds = {(repr(settings_of(row.cell)), Decoding.of(row.cell.protocol).name) for row in rows}
    return people(session, rows[0]) * len(kinds) * _POSE * _OUTCOMES


def _latency(rows: Sequence[Row], spec: LatencySpec, gmacs: Callable[[Row], float | None]) -> float:
    """Seconds of the rounds, for each batch size at most those of the suite; a network of unknown work takes them."""
    total = _PEAK
    for batch in spec.batch:
        works = [gmacs(row) for row in rows]
        calls = [batch * (_FORWARD + work / _GMACS_PER_SECOND) for work in works if work is not None]
        wanted = (spec.rounds + _WARM_UP) * sum(calls)
        total += spec.seconds if None in works else min(spec.seconds, wanted)
    return total
