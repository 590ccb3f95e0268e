"""What the stages of a run share: its rows, their data and networks, and what happens when one of them fails."""

from __future__ import annotations

import traceback
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from harness import provenance, stopping
from harness.data.boxes import Boxes, at_least
from harness.data.coco import Dataset
from harness.errors import HarnessError, MeasurementError, SuiteError, is_out_of_memory
from harness.method import Predictor, find_variant
from harness.passes.predict import TopDownRunner
from harness.passes.predict_images import OneStageRunner
from harness.pose.skeletons import COCO
from harness.records.store import Store
from harness.run.rows import Options, Progress, Row, fitted, run_kind, settings_of
from harness.run.trained import Training
from harness.suite.schema import BoxesFrom, Cell, Suite
from harness.suite.sources import Sources, data_key
from harness.train.checkpoints import open_variant

__all__ = ["Inputs", "Session"]


class Inputs(NamedTuple):
    """The persons that a row is evaluated on, and what identifies them."""

    dataset: Dataset
    boxes: Boxes
    key: dict[str, str]


class Session:
    """A suite's rows with what every stage needs to fill them. `trainings`: of the rows whose weights are trained."""

    def __init__(
        self, suite: Suite, cells: Sequence[Cell], store: Store, sources: Sources, options: Options, progress: Progress
    ) -> None:
        self.suite, self.store, self.sources = suite, store, sources
        self.options, self.progress = options, progress
        self.trainings: dict[Row, Training] = {}
        self.detected: dict[str, Boxes] = {}
        """boxes by the one-stage variant that found them, for the rows that take theirs from it"""
        self.base_keys: dict[tuple[Any, ...], dict[str, Any]] = {}
        """what rows that share a pass have in common, by row, weights and data"""
        self._predictors: dict[str, Predictor] = {}
        self._notes: dict[str, list[str]] = {}
        self._datasets: dict[str, Dataset | None] = {}
        self._inputs: dict[str, Inputs] = {}
        self.rows = [self._row(cell) for cell in cells]

    def _row(self, cell: Cell) -> Row:
        try:
            return self._to_train(cell) or fitted(cell, self.sources.weights_of(cell, self.suite.weights))
        except HarnessError as error:
            if self.options.fail_fast:
                raise
            self.progress.say(f"{cell.label}: no weights: {error}")
            return Row(cell, find_variant(cell.variant), lacking=str(error))

    def _to_train(self, cell: Cell) -> Row | None:
        """The row of a cell whose weights are trained, finished ones attached; None for one that names files."""
        if cell.train is None:
            return None
        training = Training.of(cell, self.sources, self.store)
        row = Row(cell, training.variant, training.weights, "no weights (not trained yet)")
        self.trainings[row] = training
        return row

    # -- inputs ------------------------------------------------------------------------------------------------

    def dataset(self, row: Row) -> Dataset | None:
        """The data set of a row, read once; None when its root was not given."""
        spec = row.cell.data
        if spec.text not in self._datasets:
            self._datasets[spec.text] = self.sources.dataset(spec)
        return self._datasets[spec.text]

    def inputs(self, row: Row) -> Inputs:
        """The persons of a row; rows with the same boxes share them."""
        spec, protocol = row.cell.data, row.cell.protocol
        name = f"{spec.text} {protocol.box_cleaning} {protocol.box_score_threshold}"
        if name not in self._inputs:
            dataset = self.dataset(row)
            if dataset is None:
                raise SuiteError("no data", hint=f"--data {spec.root}=PATH")
            boxes = self._boxes(row, dataset)
            self._inputs[name] = Inputs(dataset, boxes, data_key(spec, dataset, boxes))
        return self._inputs[name]

    def _boxes(self, row: Row, dataset: Dataset) -> Boxes:
        spec, protocol = row.cell.data, row.cell.protocol
        if not isinstance(spec.boxes, BoxesFrom):
            return self.sources.boxes(spec, dataset, protocol)
        if self.lacking_boxes(row):
            raise MeasurementError(self.lacking_boxes(row), where=row.cell.label)
        return at_least(self.detected[spec.boxes.variant], protocol.box_score_threshold)

    def box_sources(self) -> set[str]:
        """The one-stage variants whose boxes other rows take."""
        return {row.cell.data.boxes.variant for row in self.rows if isinstance(row.cell.data.boxes, BoxesFrom)}

    def lacking_boxes(self, row: Row) -> str:
        """Why the boxes that a top-down row takes from a one-stage row are not there; empty when they are."""
        source = row.cell.data.boxes
        if row.variant.paradigm == "one-stage" or not isinstance(source, BoxesFrom) or source.variant in self.detected:
            return ""
        origin = next(r for r in self.rows if r.variant.name == source.variant)
        why = origin.reasons.get("accuracy") or (origin.lacking if origin.weights is None else "not predicted yet")
        return f"no boxes: they come from {source.variant}, which has none ({why})"

    def image_key(self, row: Row) -> dict[str, str]:
        """What identifies the images that a one-stage row is evaluated on."""
        dataset = self.dataset(row)
        assert dataset is not None
        return {"name": row.cell.data.name, "dataset": dataset.fingerprint}

    def lose_files(self, row: Row, image_ids: Collection[int]) -> None:
        """Image files that a pass found missing, though they were there before: from now on keys say so."""
        name = row.cell.data.text
        before = self._datasets[name]
        assert before is not None
        self._datasets[name] = before.without_files(image_ids)
        self._inputs = {n: inputs for n, inputs in self._inputs.items() if inputs.dataset is not before}

    # -- networks ----------------------------------------------------------------------------------------------

    def joints(self, row: Row) -> int:
        """Joints of the network: those of the data set, COCO's where it is not here."""
        dataset = self.dataset(row)
        return (dataset.skeleton if dataset else COCO).num_joints

    def network_key(self, row: Row) -> dict[str, Any]:
        """What determines the network, but for its weights."""
        return {**row.cell.network_key(), "joints": self.joints(row)}

    def settings(self, row: Row) -> dict[str, Any]:
        """Run knobs, and select knobs that the network itself understands, as a real forward takes them."""
        found = settings_of(row.cell)
        if "quality_threshold" in row.cell.select:
            found["quality_threshold"] = row.cell.select["quality_threshold"]
        if row.cell.select.get("exit_rate") is not None:
            if "accuracy" not in row.records:
                raise MeasurementError("an exit rate becomes a threshold where persons are scored, and none was")
            found["quality_threshold"] = row.records["accuracy"].result["quality_threshold"]
        return found

    def _network(self, row: Row) -> str:
        return provenance.content_id([self.network_key(row), str(row.weights)])

    def build(self, row: Row, weights: Path | None) -> Predictor:
        """A new network of a row; without weights the random one of seed 0."""
        cell, variant = row.cell, row.variant
        if variant.open_file is not None:
            size = cell.input_size if "input_size" in cell.chosen else None
            options: dict[str, Any] = {"input_size": size, **cell.build}
        else:
            options = {"num_joints": self.joints(row), "input_size": cell.input_size, **cell.build}
        network, report = open_variant(variant, weights, **options)
        if report is not None:
            self._notes[self._network(row)] = list(report.notes)
        return network

    def notes(self, row: Row) -> list[str]:
        """What was said when the weights of a row were loaded: interpolated, or not to be told for sure."""
        return self._notes.get(self._network(row), [])

    def predictor(self, row: Row) -> Predictor:
        """The network of a row with its weights; one at a time is kept."""
        key = self._network(row)
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

    def image_runner(self, row: Row, predictor: Predictor) -> OneStageRunner:
        """The one-stage network of a row with everything around it."""
        return OneStageRunner(predictor, row.cell.protocol, device=self.options.device, **run_kind(row.cell))

    def attach(self, row: Row, key: dict[str, Any]) -> bool:
        """Gives a row the accuracy record of this key, if it and its arrays are there already."""
        record = self.store.get("accuracy", key)
        if record is None or not self.store.has_sound_arrays(record.id):
            return False
        row.records["accuracy"] = record
        return True

    # -- failures ----------------------------------------------------------------------------------------------

    @contextmanager
    def guard(self, rows: Sequence[Row], what: str) -> Iterator[None]:
        """A failure becomes the reason in the rows' cells; the other cells go on. Stopped, if somebody asked for it."""
        stopping.check()
        try:
            yield
        except Exception as error:  # of a network, a driver, a foreign package; a fault of ours shows its traceback
            if self.options.fail_fast:
                raise
            text = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
            if is_out_of_memory(error) and not isinstance(error, HarnessError):
                text = f"it does not fit into memory ({text})\n  to do: a smaller batch or input, or fewer --workers"
            elif not isinstance(error, HarnessError):
                self.progress.say(traceback.format_exc())
            for row in rows:
                row.reasons[what] = text
                row.failed.add(what)
            self.progress.say(f"{', '.join(r.cell.label for r in rows)}: {what} failed: {text}")
