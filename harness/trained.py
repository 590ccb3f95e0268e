"""Training inside a suite: each distinct network, recipe, data set and seed is trained once and kept in the store.

STORE/trained/ID/ holds VARIANT.safetensors (written last: its presence means that the training is finished), the log,
and while a training is under way its newest states, from which it goes on after a kill.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import provenance
from harness.data.coco import Dataset
from harness.method import Variant, find_variant
from harness.rows import code_of
from harness.sources import Sources
from harness.store import Store
from harness.suite import Cell, TrainSpec
from harness.train.checkpoints import open_variant
from harness.train.recipes import Recipe, describe, with_epochs

__all__ = ["Training"]


@dataclass(frozen=True)
class Training:
    """One training that a suite asks for. Cells with the same `id` share it."""

    variant: Variant
    recipe: Recipe
    spec: TrainSpec
    dataset: Dataset
    seed: int
    options: dict[str, Any]
    """what the network is built with: joints, input size, build knobs"""
    folder: Path

    @classmethod
    def of(cls, cell: Cell, sources: Sources, store: Store) -> Training:
        """The training of a cell that has one. SuiteError without the data root, DataError for unreadable data."""
        spec = cell.train
        assert spec is not None
        variant = find_variant(cell.variant)
        recipe = variant.recipes[spec.recipe]
        if spec.epochs is not None:
            recipe = with_epochs(recipe, spec.epochs)
        dataset = sources.training_set(spec)
        options = {"num_joints": dataset.skeleton.num_joints, "input_size": cell.input_size, **cell.build}
        key = {
            **cell.network_key(),
            "joints": dataset.skeleton.num_joints,
            "seed": cell.seed,
            "recipe": describe(recipe),
            "precision": spec.precision,
            "data": dataset.fingerprint,
            "code": code_of("train", variant),
        }
        folder = store.folder / "trained" / provenance.content_id(key)
        return cls(variant, recipe, spec, dataset, cell.seed, options, folder)

    @property
    def id(self) -> str:
        """Content id: what determines the weights, but for the machine."""
        return self.folder.name

    @property
    def weights(self) -> Path | None:
        """The finished weights, None while there are none."""
        path = self.folder / f"{self.variant.name}.safetensors"
        return path if path.is_file() else None

    def run(self, device: str, workers: int) -> Path:
        """Train, or go on where a killed run stopped; the weights. Shows its progress on stderr.

        Raises what `harness.train.loop.train` raises: data without usable persons, divergence.
        """
        from harness.train import loop, state

        facts = {"recipe_name": self.spec.recipe, "data_name": self.dataset.name, "command": provenance.command()}
        result = loop.train(
            self._network(), self.variant, self.recipe, self.dataset,
            out=self.folder, seed=self.seed, device=device, workers=workers, precision=self.spec.precision,
            metadata=facts,
        )  # fmt: skip
        state.clear(self.folder / "state")
        return result.weights

    def _network(self) -> Any:
        """The network with the random weights of the seed."""
        return open_variant(self.variant, None, seed=self.seed, **self.options)[0]
