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
from harness.data.joints import on_joints
from harness.errors import HarnessError, MeasurementError, SuiteError, is_out_of_memory
from harness.method import Predictor, find_variant
from harness.passes.predict import TopDownRunner
from harness.passes.predict_images import OneStageRunner
from harness.pose.joint_map import JointMap, joint_map
from harness.pose.skeletons import COCO, Skeleton
from harness.records.store import Store
from harness.run.joints import network_skeleton
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
        self._skeletons: dict[tuple[Any, ...], Skeleton] = {}
        self._predictors: dict[str, Predictor] = {}
        self._notes: dict[str, list[str]] = {}
        self._datasets: dict[str, Dataset | None] = {}
        self._inputs: dict[str, Inputs] = {}
        self.rows = [self._row(cell) for cell in cells]

    def _row(self, cell: Cell) -> Row:
        try:
            cell = self._on_its_data(cell)
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
        """The data set of a row, with the joints that it is evaluated on; None when its root was not given."""
        whole = self._whole_dataset(row.cell)
        if whole is None or row.cell.data.joints is None:
            return whole
        chart = self.joint_map(row)
        assert chart is not None
        name = f"{row.cell.data.text} {chart.network.name}"
        if name not in self._datasets:
            self._datasets[name] = on_joints(whole, chart)
        return self._datasets[name]

    def _whole_dataset(self, cell: Cell) -> Dataset | None:
        """The data set of a cell, read once."""
        name = cell.data.text
        if name not in self._datasets:
            self._datasets[name] = self.sources.dataset(cell.data)
        return self._datasets[name]

    def _on_its_data(self, cell: Cell) -> Cell:
        """The cell with what its data set's evaluation prescribes, where the suite leaves it open."""
        try:
            dataset = self._whole_dataset(cell)
        except HarnessError:  # told where the data are asked for
            return cell
        own = {n: v for n, v in (dataset.protocol if dataset else {}).items() if n not in cell.chosen}
        return cell.model_copy(update={"protocol": cell.protocol.model_copy(update=own)}) if own else cell

    def joint_map(self, row: Row) -> JointMap | None:
        """Which joint of its network stands for which of the data set; None where both have the same.

        SuiteError where they differ and the suite says nothing about it.
        """
        whole = self._whole_dataset(row.cell)
        return joint_map(whole.skeleton, self._weights_skeleton(row), row.cell.data.joints) if whole else None

    def inputs(self, row: Row) -> Inputs:
        """The persons of a row; rows with the same boxes share them."""
        spec, protocol = row.cell.data, row.cell.protocol
        dataset = self.dataset(row)
        if dataset is None:
            raise SuiteError("no data", hint=f"--data {spec.root}=PATH")
        chart = dataset.joint_map.network.name if dataset.joint_map else ""
        name = f"{spec.text} {protocol.box_cleaning} {protocol.box_score_threshold} {chart}"
        if name not in self._inputs:
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
        whole = self._datasets[name]
        assert whole is not None
        before = [d for n, d in self._datasets.items() if n.startswith(name)]  # with it those of mapped joints
        self._datasets = {n: d for n, d in self._datasets.items() if not n.startswith(name)}
        self._datasets[name] = whole.without_files(image_ids)
        self._inputs = {n: i for n, i in self._inputs.items() if not any(i.dataset is d for d in before)}

    # -- networks ----------------------------------------------------------------------------------------------

    def skeleton(self, row: Row) -> Skeleton:
        """The joint set of the network: that of the data set, or what its weights are for where joints are mapped."""
        whole = self._whole_dataset(row.cell)
        if row.cell.data.joints is None:
            return whole.skeleton if whole else COCO
        return self._weights_skeleton(row)

    def _weights_skeleton(self, row: Row) -> Skeleton:
        """What the weights of a row are for, else the joint set of the data."""
        training, cell = self.trainings.get(row), row.cell
        trained = training.id if training else ""
        network = (trained, cell.variant, row.weights, cell.input_size, repr(cell.build), cell.data.text)
        if network not in self._skeletons:
            trained_on = training.dataset.skeleton if training else None
            self._skeletons[network] = network_skeleton(row, self._whole_dataset(cell), trained_on)
        return self._skeletons[network]

    def joints_key(self, row: Row) -> dict[str, Any]:
        """What determines which joints are evaluated; empty where they are those of the data set."""
        chart = self.joint_map(row)
        return {"joint_map": dict(chart.pairs)} if chart else {}

    def network_key(self, row: Row) -> dict[str, Any]:
        """What determines the network, but for its weights."""
        return {**row.cell.network_key(), "joints": self.skeleton(row).num_joints}

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
            options = {"num_joints": self.skeleton(row).num_joints, "input_size": cell.input_size, **cell.build}
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
        kind = run_kind(row.cell)
        return TopDownRunner(predictor, row.cell.protocol, self.skeleton(row), device=self.options.device, **kind)

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
