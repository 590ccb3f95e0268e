"""Cells -> records: what is missing, in what order, which cells share a pass, resume."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from harness import provenance, replay
from harness.ablation import effects_record, lines
from harness.data.boxes import Boxes
from harness.data.coco import Dataset
from harness.errors import HarnessError, MeasurementError, SuiteError
from harness.method import Predictor, find_variant
from harness.pose.skeletons import COCO
from harness.predict import Decoding, PassPlan, TopDownRunner, run_passes
from harness.rows import Options, Progress, Row, code_of, file_names, fitted, run_kind, settings_of
from harness.sources import Sources, data_key
from harness.store import SCHEMA, Record, Store, write_atomically
from harness.suite import AccuracySpec, Cell, LatencySpec, Suite, expand
from harness.train.checkpoints import open_variant
from harness.trained import Training

__all__ = ["Options", "Progress", "Row", "Run", "run_suite"]

_NO_TRUTH = "no ground truth"
# what a network, a driver or a foreign package may raise; a fault of ours shows its traceback on stderr
_FAULTS = (RuntimeError, ValueError, OSError, MemoryError, ArithmeticError, LookupError, TypeError, AttributeError)


class Inputs(NamedTuple):
    """The persons that a row is evaluated on, and what identifies them."""

    dataset: Dataset
    boxes: Boxes
    key: dict[str, str]


class Run:
    """One run of a suite: rows, and the steps that fill them."""

    def __init__(
        self, suite: Suite, cells: Sequence[Cell], store: Store, sources: Sources, options: Options, progress: Progress
    ) -> None:
        self.suite, self.store, self.sources = suite, store, sources
        self.options, self.progress = options, progress
        self._predictors: dict[str, Predictor] = {}
        self._datasets: dict[str, Dataset | None] = {}
        self._inputs: dict[str, Inputs] = {}
        self._trainings: dict[Row, Training] = {}
        self.effects: Record | None = None
        self.rows = [self._row(cell) for cell in cells]

    def _row(self, cell: Cell) -> Row:
        try:
            return self._to_train(cell) or fitted(cell, self.sources.weights_of(cell, self.suite.weights))
        except HarnessError as error:
            if self.options.fail_fast:
                raise
            self.progress.say(f"{cell.label}: no weights: {error}")
            return Row(cell, find_variant(cell.variant), lacking=str(error))

    def manifest(self) -> dict[str, Any]:
        """What the table of this suite consists of."""
        return {
            "schema_version": SCHEMA,
            "suite": self.suite.model_dump(mode="json"),
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "command": provenance.command(),
            "rows": [row.to_json() for row in self.rows],
            "effects": self.effects.id if self.effects else None,
        }

    # -- inputs ------------------------------------------------------------------------------------------------

    def dataset(self, row: Row) -> Dataset | None:
        """The data set of a row, read once; None when its root was not given."""
        spec = row.cell.data
        if spec.model_dump_json() not in self._datasets:
            self._datasets[spec.model_dump_json()] = self.sources.dataset(spec)
        return self._datasets[spec.model_dump_json()]

    def inputs(self, row: Row) -> Inputs:
        """The persons of a row; rows with the same boxes share them."""
        spec, protocol = row.cell.data, row.cell.protocol
        name = f"{spec.model_dump_json()} {protocol.box_cleaning} {protocol.box_score_threshold}"
        if name not in self._inputs:
            dataset = self.dataset(row)
            if dataset is None:
                raise SuiteError("no data", hint=f"--data {spec.root}=PATH")
            boxes = self.sources.boxes(spec, dataset, protocol)
            self._inputs[name] = Inputs(dataset, boxes, data_key(spec, dataset, boxes))
        return self._inputs[name]

    # -- networks ----------------------------------------------------------------------------------------------

    def joints(self, row: Row) -> int:
        """Joints of the network: those of the data set, COCO's where it is not here."""
        dataset = self.dataset(row)
        return (dataset.skeleton if dataset else COCO).num_joints

    def network_key(self, row: Row) -> dict[str, Any]:
        """What determines the network, but for its weights."""
        return {**row.cell.network_key(), "joints": self.joints(row)}

    def build(self, row: Row, weights: Path | None) -> Predictor:
        """A new network of a row; without weights the random one of seed 0."""
        cell, variant = row.cell, row.variant
        if variant.open_file is not None:
            size = cell.input_size if "input_size" in cell.chosen else None
            return open_variant(variant, weights, input_size=size, **cell.build)[0]
        options = {"num_joints": self.joints(row), "input_size": cell.input_size, **cell.build}
        return open_variant(variant, weights, **options)[0]

    def predictor(self, row: Row) -> Predictor:
        """The network of a row with its weights; one at a time is kept."""
        key = provenance.content_id([self.network_key(row), str(row.weights)])
        if key not in self._predictors:
            self._predictors.clear()
            self._predictors[key] = self.build(row, row.weights)
        return self._predictors[key]

    def runner(self, row: Row, predictor: Predictor) -> TopDownRunner:
        """The network of a row with everything around it."""
        dataset = self.dataset(row)
        skeleton = dataset.skeleton if dataset else COCO
        kind = run_kind(row.cell)
        return TopDownRunner(predictor, row.cell.protocol, skeleton, device=self.options.device, **kind)

    # -- failures ----------------------------------------------------------------------------------------------

    @contextmanager
    def guard(self, rows: Sequence[Row], what: str) -> Iterator[None]:
        """A failure becomes the reason in the rows' cells; the other cells go on."""
        try:
            yield
        except (HarnessError, *_FAULTS) as error:
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
            with self.guard([row], "cost"):
                if self.state_of_cost(row) == "to do":
                    row.records["cost"] = self._count(row)

    def state_of_cost(self, row: Row) -> str:
        """`cached` (the row has its record now), `to do`, or why there is none."""
        if row.variant.open_file is not None and row.weights is None:
            row.reasons["cost"] = row.lacking
            return row.lacking
        record = self.store.get("cost", self._cost_key(row))
        if record is None:
            return "to do"
        row.records["cost"] = record
        return "cached"

    def _cost_key(self, row: Row) -> dict[str, Any]:
        key = {**self.network_key(row), "settings": settings_of(row.cell), "code": code_of("cost", row.variant)}
        if row.variant.open_file is not None and row.weights is not None:
            key["weights"] = provenance.file_sha256(row.weights)  # the file is the network
        return key

    def _count(self, row: Row) -> Record:
        from harness.cost.account import account

        self.progress.say(f"{row.cell.label}: counting operators")
        network = self.build(row, row.weights if row.variant.open_file is not None else None)
        result = account(network, settings_of(row.cell), paradigm=row.variant.paradigm)
        return self.store.put(Record.make("cost", self._cost_key(row), result))

    # -- training ----------------------------------------------------------------------------------------------

    def _to_train(self, cell: Cell) -> Row | None:
        """The row of a cell whose weights are trained, finished ones attached; None for one that names files."""
        if cell.train is None:
            return None
        training = Training.of(cell, self.sources, self.store)
        row = Row(cell, training.variant, training.weights, "no weights (not trained yet)")
        self._trainings[row] = training
        return row

    def train(self) -> None:
        """Weights for the rows of a suite that trains; rows with the same network and seed share a training."""
        groups: dict[str, list[Row]] = {}
        for row, training in self._trainings.items():
            if row.weights is None:
                groups.setdefault(training.id, []).append(row)
        for rows in groups.values():
            with self.guard(rows, "training"):
                self.progress.say(f"{rows[0].cell.label}, seed {rows[0].cell.seed}: training")
                weights = self._trainings[rows[0]].run(self.options.device, self.options.workers)
                for row in rows:
                    row.weights = weights
            for row in rows:
                row.lacking = row.reasons.pop("training", row.lacking)

    # -- accuracy ----------------------------------------------------------------------------------------------

    def measure_accuracy(self, spec: AccuracySpec) -> None:
        """Accuracy records; cells that differ in select knobs only share a pass, alphas share a coarse stage."""
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            with self.guard([row], "accuracy"):
                if self.state_of_accuracy(row, spec) in ("cached", "to do", _NO_TRUTH):
                    groups.setdefault(self.joint_key(row), []).append(row)
        for rows in groups.values():
            waiting = [row for row in rows if self._waits(row)]
            with self.guard(waiting, "accuracy"):
                self._joint_pass(rows, waiting, spec)

    def state_of_accuracy(self, row: Row, spec: AccuracySpec) -> str:
        """`cached` (the row has its record now), `to do`, or why there is none."""
        dataset = self.dataset(row)
        if row.weights is None:
            row.reasons["accuracy"] = row.lacking
        elif dataset is None:
            row.reasons["accuracy"] = f"no data (--data {row.cell.data.root}=PATH)"
        elif not dataset.persons:
            row.reasons["accuracy"] = _NO_TRUTH
        else:
            return "cached" if self._known(row, spec) else "to do"
        return row.reasons["accuracy"]

    def _waits(self, row: Row) -> bool:
        """There is something to do for this row behind a pass: a record, or a result file."""
        return self.options.results is not None or not ({"accuracy"} & (row.records.keys() | row.reasons.keys()))

    def _base_key(self, row: Row) -> dict[str, Any]:
        """What all passes that may run together have in common."""
        assert row.weights is not None
        crop = {n: getattr(row.cell.protocol, n) for n in ("codec", "box_padding", "colour", "mean", "std")}
        return {
            **self.network_key(row),
            "weights": provenance.file_sha256(row.weights),
            "data": self.inputs(row).key,
            "crop": crop,
            "execution": run_kind(row.cell),
            "code": code_of("predict", row.variant),
        }

    def joint_key(self, row: Row) -> str:
        """Rows with the same key may share work: one pass over the same crops."""
        return provenance.content_id(self._base_key(row))

    def _joint_pass(self, rows: Sequence[Row], waiting: Sequence[Row], spec: AccuracySpec) -> None:
        """A pass for each run setting, planned for all `rows`, so that a later change of one finds its pass."""
        groups: dict[str, list[Row]] = {}
        for row in rows:
            groups.setdefault(provenance.content_id(settings_of(row.cell)), []).append(row)
        wanted = [group for group in groups.values() if set(group) & set(waiting)]
        plans = [_plan(group) for group in wanted]
        folders = [self._pass_folder(group[0], plan) for group, plan in zip(wanted, plans)]
        missing = [(p, f) for p, f in zip(plans, folders) if replay.load_pass(f) is None]
        if missing:
            self._predict([p for p, _ in missing], [f for _, f in missing], wanted[0][0])
        for group, folder in zip(wanted, folders):
            found = replay.load_pass(folder)
            if found is None:
                raise MeasurementError("a pass that was just written cannot be read", where=str(folder))
            for row in group:
                if row in waiting:
                    with self.guard([row], "accuracy"):
                        self._score(row, found, spec)

    def _pass_folder(self, row: Row, plan: PassPlan) -> Path:
        settings = {"settings": dict(plan.settings), "flip": plan.flip, "all_exits": plan.all_exits}
        key = [{**self._base_key(row), **settings}, [d.name for d in plan.decodings]]
        return self.store.pass_folder(provenance.content_id(key))

    def scored_pass(self, row: Row) -> replay.Pass | None:
        """The stored pass that a row is scored from, None where there is none (no weights, no data, not predicted)."""
        if row.weights is None or self.dataset(row) is None:
            return None
        key, settings = self.joint_key(row), settings_of(row.cell)
        others = [r for r in self.rows if r.weights is not None and r.cell.data == row.cell.data]
        group = [r for r in others if settings_of(r.cell) == settings and self.joint_key(r) == key]
        return replay.load_pass(self._pass_folder(row, _plan(group)))

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
            "settings": settings_of(row.cell),
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
        from harness.score import detections, score

        dataset, boxes, _ = self.inputs(row)
        results, chosen = detections(row.cell, found, dataset, boxes)
        if self.options.results is not None:
            file = self.options.results / f"{file_names(self.rows)[row]}.json"
            write_atomically(file, json.dumps(results).encode())
        if "accuracy" in row.records or not dataset.persons:
            return
        result, arrays = score(found, results, chosen, dataset, boxes, spec)
        key = self._accuracy_key(row, spec)
        row.records["accuracy"] = self.store.put(Record.make("accuracy", key, result), arrays)

    def measure_effects(self, spec: AccuracySpec) -> None:
        """The record of what each swept knob does to AP, from the matches that are stored now."""
        cells = sum("accuracy" in row.records for own in lines(self.rows).values() for row in own)
        if cells:
            with self.progress.task("effects of the swept knobs", cells) as advance:
                self.effects = effects_record(self.rows, self.store, spec, lambda: advance(1))

    # -- latency -----------------------------------------------------------------------------------------------

    def measure_latency(self, spec: LatencySpec) -> None:
        """Latency records: all cells of one batch size in the same interleaved rounds."""
        from harness.timing import measure_rows

        rows = [row for row in self.rows if row.weights is not None or row.variant.open_file is None]
        for batch in spec.batch:
            for row in self.rows:
                if row not in rows:
                    row.reasons[f"latency_b{batch}"] = row.lacking
            with self.guard(rows, f"latency_b{batch}"):
                measure_rows(self, rows, spec, batch)

    def settings(self, row: Row) -> dict[str, Any]:
        """Run knobs, and select knobs that the network itself understands, as a real forward takes them."""
        found = settings_of(row.cell)
        if "quality_threshold" in row.cell.select:
            found["quality_threshold"] = row.cell.select["quality_threshold"]
            if row.cell.select.get("exit_rate") is not None and "accuracy" in row.records:
                found["quality_threshold"] = row.records["accuracy"].result["quality_threshold"]
        return found


def _plan(rows: Sequence[Row]) -> PassPlan:
    """One pass that can answer all of `rows`: every decoder asked for; with flip, the plain outcomes come along."""
    decodings = sorted({Decoding.of(r.cell.protocol) for r in rows}, key=lambda d: d.name)
    return PassPlan(settings_of(rows[0].cell), tuple(decodings), any(r.cell.protocol.flip for r in rows))


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
            spec = spec if isinstance(spec, AccuracySpec) else AccuracySpec()
            run.train()
            run.measure_accuracy(spec)
            run.measure_effects(spec)
        if suite.measure.latency:
            timing = suite.measure.latency
            run.measure_latency(timing if isinstance(timing, LatencySpec) else LatencySpec())
    finally:
        manifest = run.manifest()
        store.write_run(suite.name, manifest)
    return manifest
