"""Cells -> records: what is missing, in what order, which cells share a pass, resume."""

from __future__ import annotations

import inspect
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import provenance, replay
from harness.errors import HarnessError, SuiteError
from harness.method import Predictor, Variant, find_variant
from harness.pose.skeletons import COCO
from harness.predict import Decoding, PassPlan, TopDownRunner, run_passes
from harness.sources import Sources, data_key
from harness.store import SCHEMA, Record, Store
from harness.suite import AccuracySpec, Cell, LatencySpec, Suite, expand
from harness.train.checkpoints import open_variant, wanted_protocol

__all__ = ["Options", "Progress", "Row", "run_suite"]


class Progress:
    """What a run tells while it works; the command line shows it with rich, tests stay silent."""

    def say(self, text: str) -> None:
        """One line."""

    @contextmanager
    def task(self, text: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar of `total` steps; yields the function that advances it."""
        yield lambda count: None


@dataclass(frozen=True)
class Options:
    """How to run: it moves no number but milliseconds."""

    device: str = "cpu"
    batch: int = 16
    workers: int = 2
    fail_fast: bool = False


@dataclass
class Row:
    """One line of the table: a cell, the ids of its records, and why one is missing."""

    cell: Cell
    variant: Variant
    weights: Path | None = None
    records: dict[str, Record] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The row of a run manifest."""
        return {
            "label": self.cell.label,
            "note": self.variant.note,
            "method": self.variant.method,
            "cell": self.cell.model_dump(mode="json"),
            "records": {name: record.id for name, record in self.records.items()},
            "reasons": self.reasons,
        }


class Run:
    """One run of a suite: rows, and the steps that fill them."""

    def __init__(
        self,
        suite: Suite,
        cells: Sequence[Cell],
        store: Store,
        sources: Sources,
        options: Options,
        progress: Progress,
    ) -> None:
        self.suite, self.store, self.sources, self.options, self.progress = (
            suite,
            store,
            sources,
            options,
            progress,
        )
        self.rows = [_row(cell, sources.weights_of(cell, suite.weights)) for cell in cells]
        self._predictors: dict[str, Predictor] = {}

    def manifest(self) -> dict[str, Any]:
        """What the table of this suite consists of."""
        return {
            "schema_version": SCHEMA,
            "suite": self.suite.model_dump(mode="json"),
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "command": provenance.command(),
            "rows": [row.to_json() for row in self.rows],
        }

    # -- networks ----------------------------------------------------------------------------------------------

    def predictor(self, row: Row) -> Predictor:
        """The network of a row, with its weights when there are any (random ones from seed 0 otherwise)."""
        key = provenance.content_id([row.cell.network_key(), str(row.weights)])
        if key not in self._predictors:
            self._predictors.clear()  # one network in memory at a time, but for the latency rounds
            self._predictors[key] = self.build(row)
        return self._predictors[key]

    def build(self, row: Row) -> Predictor:
        """A new network of a row."""
        size = None if row.variant.open_file and "input_size" not in row.cell.chosen else row.cell.input_size
        return open_variant(row.variant, row.weights, input_size=size, **row.cell.build)[0]

    def runner(self, row: Row, predictor: Predictor) -> TopDownRunner:
        """The network of a row with everything around it."""
        dataset = self.sources.dataset(row.cell.data)
        skeleton = dataset.skeleton if dataset else COCO
        return TopDownRunner(
            predictor, row.cell.protocol, skeleton, device=self.options.device, **_run_kind(row.cell)
        )

    # -- failures ----------------------------------------------------------------------------------------------

    @contextmanager
    def _guard(self, rows: Sequence[Row], what: str) -> Iterator[None]:
        """A failure becomes the reason in the rows' cells; the other cells go on."""
        try:
            yield
        except (
            HarnessError,
            RuntimeError,
            ValueError,
            OSError,
            MemoryError,
            ArithmeticError,
            LookupError,
            TypeError,
        ) as error:
            if self.options.fail_fast:
                raise
            text = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
            if not isinstance(error, HarnessError):
                self.progress.say(traceback.format_exc())
            for row in rows:
                row.reasons[what] = text
            self.progress.say(f"{', '.join(r.cell.label for r in rows)}: {what} failed: {text}")

    # -- cost --------------------------------------------------------------------------------------------------

    def measure_cost(self) -> None:
        """A cost record for each network and run setting; no weights, no machine in its id."""
        for row in self.rows:
            with self._guard([row], "cost"):
                if self.state_of_cost(row) == "to do":
                    row.records["cost"] = self._count(row)

    def state_of_cost(self, row: Row) -> str:
        """`cached` (the row has its record now), `to do`, or why there is none."""
        if row.variant.open_file is not None and row.weights is None:
            row.reasons["cost"] = "no weights"
            return "no weights"
        record = self.store.get("cost", self._cost_key(row))
        if record is None:
            return "to do"
        row.records["cost"] = record
        return "cached"

    def _cost_key(self, row: Row) -> dict[str, Any]:
        key = {**row.cell.network_key(), "settings": _settings(row.cell), "code": _code("cost", row.variant)}
        if row.variant.open_file is not None and row.weights is not None:
            key["weights"] = provenance.file_sha256(row.weights)  # the file is the network
        return key

    def _count(self, row: Row) -> Record:
        from harness.cost.account import account

        self.progress.say(f"{row.cell.label}: counting operators")
        result = account(self.predictor(row), _settings(row.cell), paradigm=row.variant.paradigm)
        return self.store.put(Record.make("cost", self._cost_key(row), result))

    # -- accuracy ----------------------------------------------------------------------------------------------

    def measure_accuracy(self, spec: AccuracySpec) -> None:
        """Accuracy records; cells that differ in select knobs only share a pass, alphas share a coarse stage."""
        waiting: dict[str, list[Row]] = {}
        for row in self.rows:
            with self._guard([row], "accuracy"):
                if self.state_of_accuracy(row, spec) == "to do":
                    waiting.setdefault(self.joint_key(row), []).append(row)
        for rows in waiting.values():
            with self._guard(rows, "accuracy"):
                self._joint_pass(rows, spec)

    def state_of_accuracy(self, row: Row, spec: AccuracySpec) -> str:
        """`cached` (the row has its record now), `to do`, or why there is none."""
        if row.weights is None:
            row.reasons["accuracy"] = "no weights"
        elif self.sources.dataset(row.cell.data) is None:
            row.reasons["accuracy"] = f"no data (--data {row.cell.data.root}=PATH)"
        else:
            return "cached" if self._known(row, spec) else "to do"
        return row.reasons["accuracy"]

    def inputs(self, row: Row) -> tuple[Any, Any, dict[str, Any]]:
        dataset = self.sources.dataset(row.cell.data)
        if dataset is None:
            raise SuiteError("no data", hint=f"--data {row.cell.data.root}=PATH")
        boxes = self.sources.boxes(row.cell.data, dataset, row.cell.protocol)
        return dataset, boxes, data_key(row.cell.data, dataset, boxes)

    def _base_key(self, row: Row) -> dict[str, Any]:
        """What all passes that may run together have in common."""
        assert row.weights is not None
        crop = {n: getattr(row.cell.protocol, n) for n in ("codec", "box_padding", "colour", "mean", "std")}
        return {
            **row.cell.network_key(),
            "weights": provenance.file_sha256(row.weights),
            "data": self.inputs(row)[2],
            "crop": crop,
            "execution": _run_kind(row.cell),
            "code": _code("predict", row.variant),
        }

    def joint_key(self, row: Row) -> str:
        return provenance.content_id(self._base_key(row))

    def _joint_pass(self, rows: Sequence[Row], spec: AccuracySpec) -> None:
        by_settings: dict[str, list[Row]] = {}
        for row in rows:
            by_settings.setdefault(provenance.content_id(_settings(row.cell)), []).append(row)
        plans = [_plan(group) for group in by_settings.values()]
        folders = [self._pass_folder(group[0], plan) for group, plan in zip(by_settings.values(), plans)]
        missing = [
            (p, f, g) for p, f, g in zip(plans, folders, by_settings.values()) if replay.load_pass(f) is None
        ]
        if missing:
            self._predict([m[0] for m in missing], [m[1] for m in missing], missing[0][2][0])
        for group, folder in zip(by_settings.values(), folders):
            found = replay.load_pass(folder)
            if found is None:
                raise SuiteError("a pass that was just written cannot be read", where=str(folder))
            for row in group:
                with self._guard([row], "accuracy"):
                    self._score(row, found, spec)

    def _pass_folder(self, row: Row, plan: PassPlan) -> Path:
        key = {
            **self._base_key(row),
            "settings": dict(plan.settings),
            "flip": plan.flip,
            "all_exits": plan.all_exits,
        }
        return self.store.pass_folder(provenance.content_id([key, [d.name for d in plan.decodings]]))

    def _predict(self, plans: Sequence[PassPlan], folders: Sequence[Path], row: Row) -> None:
        dataset, boxes, _ = self.inputs(row)
        runner = self.runner(row, self.predictor(row))
        began = time.perf_counter()
        text = f"{row.variant.name}: {len(boxes.scores)} persons"
        with self.progress.task(text, len(boxes.scores)) as advance:
            run_passes(
                runner, plans, folders, dataset, boxes,
                batch=self.options.batch, workers=self.options.workers, missing=row.cell.data.missing, advance=advance,
            )  # fmt: skip
        for folder in folders:
            replay.seal_pass(folder, {"seconds": time.perf_counter() - began, "device": self.options.device})

    def _accuracy_key(self, row: Row, spec: AccuracySpec) -> dict[str, Any]:
        return {
            **self._base_key(row),
            "settings": _settings(row.cell),
            "select": row.cell.select,
            "protocol": row.cell.protocol.model_dump(mode="json"),
            "missing": row.cell.data.missing,
            "spec": spec.model_dump(mode="json"),
            "score_code": provenance.code("score"),
        }

    def _known(self, row: Row, spec: AccuracySpec) -> bool:
        record = self.store.get("accuracy", self._accuracy_key(row, spec))
        if record is None or self.store.arrays(record.id) is None:
            return False
        row.records["accuracy"] = record
        return True

    def _score(self, row: Row, found: replay.Pass, spec: AccuracySpec) -> None:
        from harness.score import score

        dataset, boxes, _ = self.inputs(row)
        result, arrays = score(row.cell, found, dataset, boxes, spec)
        key = self._accuracy_key(row, spec)
        row.records["accuracy"] = self.store.put(Record.make("accuracy", key, result), arrays)

    # -- latency -----------------------------------------------------------------------------------------------

    def measure_latency(self, spec: LatencySpec) -> None:
        """Latency records: all cells of one batch size in the same interleaved rounds."""
        from harness.timing import measure_rows

        rows = [row for row in self.rows if row.weights is not None or row.variant.open_file is None]
        for batch in spec.batch:
            with self._guard(self.rows, f"latency_b{batch}"):
                for row in self.rows:
                    if row not in rows:
                        row.reasons[f"latency_b{batch}"] = "no weights"
                if rows:
                    measure_rows(self, rows, spec, batch)

    def settings(self, row: Row) -> dict[str, Any]:
        """Run knobs, and select knobs that the network itself understands, as a real forward takes them."""
        found = _settings(row.cell)
        if "quality_threshold" in row.cell.select:
            found["quality_threshold"] = row.cell.select["quality_threshold"]
            if row.cell.select.get("exit_rate") is not None and "accuracy" in row.records:
                found["quality_threshold"] = row.records["accuracy"].result["quality_threshold"]
        return found

    def code(self, stage: str, row: Row) -> str:
        """Fingerprint of the code that a stage runs for this row's method."""
        return _code(stage, row.variant)


def _row(cell: Cell, weights: Path | None) -> Row:
    """The row of a cell; what the suite leaves open follows the weights: colour order, an ONNX file's input size."""
    variant = find_variant(cell.variant)
    if weights is not None:
        wishes = {n: v for n, v in wanted_protocol(variant, weights).items() if n not in cell.chosen}
        update: dict[str, Any] = {"protocol": cell.protocol.model_copy(update=wishes)}
        if variant.open_file is not None and "input_size" not in cell.chosen:
            update["input_size"] = open_variant(variant, weights, **cell.build)[0].input_size
        cell = cell.model_copy(update=update)
    return Row(cell, variant, weights)


def _settings(cell: Cell) -> dict[str, Any]:
    """The method's own run knobs (dtype and runtime are the harness's)."""
    return {n: v for n, v in cell.run.items() if n not in ("dtype", "runtime")}


def _run_kind(cell: Cell) -> dict[str, Any]:
    return {n: cell.run[n] for n in ("dtype", "runtime")}


def _plan(rows: Sequence[Row]) -> PassPlan:
    """One pass that can answer all of `rows`: every decoder asked for; with flip, the plain outcomes come along."""
    decodings = sorted({Decoding.of(r.cell.protocol) for r in rows}, key=lambda d: d.name)
    return PassPlan(_settings(rows[0].cell), tuple(decodings), any(r.cell.protocol.flip for r in rows))


def _code(stage: str, variant: Variant) -> str:
    origin = variant.build or variant.open_file
    assert origin is not None
    file = inspect.getsourcefile(inspect.unwrap(getattr(origin, "func", origin)))
    return provenance.code(stage, Path(file) if file else None)


def run_suite(
    suite: Suite, store: Store, sources: Sources, options: Options, progress: Progress, marked: Any = None
) -> dict[str, Any]:
    """Measure what is missing and return the manifest of the table; records are written as they come."""
    cells = expand(suite, marked)
    sources.check(cells)
    store.check_writable()
    run = Run(suite, cells, store, sources, options, progress)
    try:
        if suite.measure.cost:
            run.measure_cost()
        if suite.measure.accuracy:
            spec = suite.measure.accuracy
            run.measure_accuracy(spec if isinstance(spec, AccuracySpec) else AccuracySpec())
        if suite.measure.latency:
            timing = suite.measure.latency
            run.measure_latency(timing if isinstance(timing, LatencySpec) else LatencySpec())
    finally:
        manifest = run.manifest()
        store.write_run(suite.name, manifest)
    return manifest
