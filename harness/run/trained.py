"""Training inside a suite: each distinct network, recipe, data set and seed is trained once and kept in the store.

STORE/trained/ID/ holds VARIANT.safetensors (written last: its presence means that the training is finished), the log,
and while a training is under way its newest states, from which it goes on after a kill. In a process or on a node of
its own (--jobs, Ray) the states are in that worker's store: what is lost there begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import provenance
from harness.data.coco import Dataset
from harness.method import Variant, find_variant
from harness.records.store import Store
from harness.run.rows import code_of
from harness.suite.schema import Cell, TrainSpec
from harness.suite.sources import Sources
from harness.train.checkpoints import open_variant
from harness.train.recipes import Recipe, determined, with_epochs
from harness.train.settings import with_fields

__all__ = ["Training"]


@dataclass(frozen=True)
class Training:
    """One training that a suite asks for. Cells with the same `id` share it."""

    variant: Variant
    recipe: Recipe
    spec: TrainSpec
    dataset: Dataset
    seed: int
    start: Path | None
    """the weights it starts from; random ones of the seed where there are none"""
    build: dict[str, Any]
    """the build knobs"""
    options: dict[str, Any]
    """what the network is built with: joints, input size, build knobs"""
    folder: Path

    @classmethod
    def of(cls, cell: Cell, sources: Sources, store: Store) -> Training:
        """The training of a cell that has one. SuiteError without the data root, DataError for unreadable data."""
        spec = cell.train
        assert spec is not None
        variant = find_variant(cell.variant)
        recipe = with_fields(variant.recipes[spec.recipe], spec.set)
        if spec.epochs:
            recipe = with_epochs(recipe, spec.epochs)
        start = sources.start_of(cell)
        dataset = sources.training_set(spec)
        options = {"num_joints": dataset.skeleton.num_joints, "input_size": cell.input_size, **cell.build}
        key = {
            **cell.network_key(),
            "joints": dataset.skeleton.num_joints,
            "seed": cell.seed,
            "recipe": determined(recipe) if spec.epochs != 0 else None,
            "start": provenance.file_sha256(start) if start else None,
            "precision": spec.precision,
            "data": dataset.fingerprint,
            "code": code_of("train", variant),
        }
        folder = store.folder / "trained" / provenance.content_id(key)
        return cls(variant, recipe, spec, dataset, cell.seed, start, cell.build, options, folder)

    @property
    def id(self) -> str:
        """Content id: what determines the weights, but for the machine."""
        return self.folder.name

    @property
    def weights(self) -> Path | None:
        """The finished weights, None while there are none; those of the start where nothing is trained."""
        if self.spec.epochs == 0:
            return self.start
        path = self.folder / f"{self.variant.name}.safetensors"
        return path if path.is_file() else None

    def run(self, device: str, workers: int) -> Path:
        """Train, or go on where a killed run stopped; the weights. Shows its progress on stderr.

        Raises what `harness.train.loop.train` raises: data without usable persons, divergence.
        """
        from harness.train import loop, state

        options = loop.Options(device=device, workers=workers, precision=self.spec.precision)
        facts = {"recipe_name": self.spec.recipe, "data_name": self.dataset.name, "command": provenance.command()}
        if self.start:
            facts["init"] = f"{self.start.name} sha256:{provenance.file_sha256(self.start)[:16]}"
        result = loop.train(
            self._network(), self.variant, self.recipe, self.dataset,
            out=self.folder, seed=self.seed, build=self.build, metadata=facts, options=options,
        )  # fmt: skip
        state.clear(self.folder / "state")
        return result.weights

    def _network(self) -> Any:
        """The network with the weights of the start, or the random ones of the seed."""
        return open_variant(self.variant, self.start, seed=self.seed, **self.options)[0]
