"""The training loop that every method uses: one seeded stream of batches, an exact resume, a log, weights files.

The gradient of a step is that of the mean loss over all its samples, however they are divided among processes, and
among pieces for losses that are means over samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness import provenance, stopping
from harness.data.coco import Dataset
from harness.errors import HarnessError
from harness.method import Variant
from harness.train import failures, processes, state
from harness.train.display import Display
from harness.train.log import LOG_STEPS, Clock, Log
from harness.train.network import Losses, check, placed, threads
from harness.train.optimiser import Update
from harness.train.outputs import Outputs
from harness.train.recipes import Precision, Progress, Recipe, describe, determined
from harness.train.stream import Order, Piece, Place, loader, torch_seed, training_data

__all__ = ["Options", "TrainResult", "train"]

Validate = Callable[[nn.Module], Mapping[str, float]]
_FORMATS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Options:
    """How a run is done. On a network without batch norms and random layers all but `precision` moves the weights by
    rounding only; statistics and draws are those of a piece.

    `precision` is that of the forward pass under autocast, weights stay float32. `accumulate`: each process computes
    its share of a batch in so many pieces; a loss over a count of something else than samples (`Progress.pooled`) then
    divides by that of the piece. `sync_norms`: batch norms take their statistics over all processes.
    `validate(network)` gives scores every `validate_every` epochs and after the last one. A state is saved every
    `save_every` steps (default: once an epoch), and when the run has lasted `stop_after` seconds, which ends the call.
    `resume` goes on from the newest state; without it there is a clean start.
    """

    device: str = "cpu"
    workers: int = 1
    precision: Precision = "float32"
    accumulate: int = 1
    sync_norms: bool = False
    validate: Validate | None = None
    validate_every: int = 10
    save_every: int | None = None
    stop_after: float | None = None
    resume: bool = True
    quiet: bool = False


@dataclass(frozen=True)
class TrainResult:
    """`samples`: of an epoch. `loss`: mean over the last epoch's logged steps. `scores`: of the last validation.
    `best`: file of the weights with the highest AP. `done` is False for a run that `stop_after` ended: no `weights`
    yet."""

    weights: Path
    epochs: int
    steps: int
    samples: int
    loss: float
    images_per_second: float
    scores: Mapping[str, float] = field(default_factory=dict)
    best: Path | None = None
    done: bool = True


def train(
    predictor: nn.Module,
    variant: Variant,
    recipe: Recipe,
    dataset: Dataset,
    *,
    out: Path,
    seed: int = 0,
    build: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
    options: Options = Options(),
) -> TrainResult:
    """Train `predictor` in place; write `out/VARIANT.safetensors`, `out/log.jsonl` and the states in `out/state`.

    On a CPU, with the same number of threads, a resumed run ends with the bits of an undisturbed one. Convolutions run
    in the channels-last layout. `build`: the knobs that the network was built with; they and `metadata` go into the
    weights files beside what the loop knows itself. With validation, the weights of the highest first score so far are
    in `out/VARIANT.best.safetensors`. Launched by `accelerate launch` or `torchrun` with several processes, they share
    each batch; `out` has to be a folder that all of them see.

    Raises DataError for a set without usable samples, UserError for a state of another run, a recipe for another input
    size and a batch that does not fit into memory, MeasurementError for a training that diverges and for a full disk
    (good states stay).
    """
    check(predictor, variant, recipe)
    run = _Run(predictor, variant, recipe, dataset, Path(out), seed, build or {}, metadata or {}, options)
    with failures.explained(variant.name, _at_once(recipe, run), options.accumulate):
        first = run.start(options.resume)
        with threads(options.workers, run.processes.device):
            return run.go(first)


class _Run:
    """One training run: what does not change, and the steps."""

    def __init__(
        self,
        network: Any,
        variant: Variant,
        recipe: Recipe,
        dataset: Dataset,
        out: Path,
        seed: int,
        build: Mapping[str, Any],
        facts: Mapping[str, str],
        options: Options,
    ) -> None:
        self.variant, self.seed, self.options = variant, seed, options
        self.processes = processes.start(options.device)
        self.data = training_data(variant, recipe, dataset, tuple(network.input_size), seed)
        self.order = Order(len(self.data), recipe.batch, recipe.epochs, seed=seed, steps=recipe.steps)
        self.per_epoch, self.total = self.order.steps_per_epoch, self.order.total
        self.epochs = -(-self.total // self.per_epoch)
        self.share = self.processes.share(options.accumulate)
        device = self.processes.device
        self.network = placed(network, device, sync_norms=options.sync_norms)
        self.autocast = torch.autocast(
            device.type, _FORMATS.get(options.precision, torch.bfloat16), enabled=options.precision in _FORMATS
        )
        self.model = self.processes.wrap(Losses(self.network))
        self.update = Update(self.network, recipe, device, scaled=options.precision == "float16")
        self.watch = failures.Watch()
        self.log = Log(out, active=self.processes.first)
        identity = {
            "variant": variant.name,
            "recipe": determined(recipe),
            "init": facts.get("init", ""),
            "seed": seed,
            "precision": options.precision,
            "input_size": list(network.input_size),
            "build": dict(build),
            "data": dataset.fingerprint,
            self.data.noun: len(self.data),
        }
        self.outputs = Outputs(
            out,
            variant.name,
            identity,
            {**facts, "recipe": describe(recipe), **_circumstances(self.processes, options)},
        )

    def start(self, resume: bool) -> int:
        """The step to begin with: that of the newest state, or 0 with a clean folder."""
        found = self.outputs.load() if resume else None
        first = 0 if found is None else int(found["step"])
        self.processes.agree(first, "the state to go on from", "OUT has to be a folder that all processes see")
        if self.processes.first:
            (state.tidy if resume else state.clear)(self.outputs.states)
        if found is not None:
            self.network.load_state_dict(found["network"])
            self.update.load_state_dict(found["update"])
            self.watch = failures.Watch(found["first_losses"])
        self.log.open(first)
        return first

    def go(self, first: int) -> TrainResult:
        """Steps `first` to the end, or until time is up. Stopped, with the state saved, when a signal asked for it."""
        self.order.start = first
        options, began, step = self.options, time.monotonic(), first
        batches = iter(
            loader(self.data, self.order, workers=options.workers, device=self.processes.device, share=self.share)
        )
        scores: Mapping[str, float] = {}
        self.model.train()
        clock, quiet = Clock(), options.quiet or not self.processes.first
        with Display(f"train {self.variant.name}", self.epochs, self.total, done=first, quiet=quiet) as display:
            for step, places in enumerate(self.order, start=first + 1):  # steps done
                loss, rate = self.step(step - 1, places, clock.waiting(batches))
                epoch, ends_epoch = (step - 1) // self.per_epoch, step % self.per_epoch == 0 or step == self.total
                clock.count(len(places))
                display.step(epoch, loss, rate, clock.speed)
                new = self.validated(step) if ends_epoch and self._is_due(epoch) else {}
                scores = new or scores
                stops = step < self.total and self._is_to_stop(began)
                if ends_epoch or stops or step % LOG_STEPS == 0:
                    self.log.write(step=step - 1, epoch=epoch, lr=rate, **clock.facts(), **new)
                if ends_epoch:
                    display.epoch(epoch, self.log.last, rate, clock.speed, _text(new))
                if step % (options.save_every or self.per_epoch) == 0 or step == self.total or stops:
                    self.save(step)
                if stops:
                    break
        files, done = self.outputs, step == self.total
        if done and self.processes.first:
            files.write(files.weights, self.update.result, scores, step)
        self.processes.wait()
        self.log.close()
        stopping.check()
        best = files.best_weights if files.best_weights.is_file() else None
        numbers = (self.epochs, step, len(self.data), self.log.last, clock.speed, scores)
        return TrainResult(files.weights, *numbers, best, done)

    def step(self, step: int, places: list[Place], batches: Iterator[Any]) -> tuple[float, float]:
        """One optimiser step over the samples at `places`; (loss, learning rate of the first group)."""
        rate = self.update.begin(step, self.per_epoch)
        # random layers depend on step and process alone, so a resumed run draws what an undisturbed one draws
        torch.manual_seed(torch_seed(self.seed, step, self.processes.index))
        found: dict[str, Tensor] = {}
        pieces = self.share.split(places)
        for number, piece in enumerate(pieces, start=1):
            stacked = next(batches)
            if isinstance(stacked, HarnessError):
                raise stacked
            with nullcontext() if number == len(pieces) else self.processes.apart(self.model):
                for name, value in self._backward(stacked, piece, step).items():
                    found[name] = found.get(name, 0) + value
        values = self.processes.sum(torch.stack(list(found.values()))) / self.processes.count
        losses = dict(zip(found, values.tolist()))
        fault = self.watch.fault(losses["loss"])
        if fault:
            samples = failures.listed(self.data.noun, [self.data.ids[index] for _, index in places])
            raise failures.diverged(fault, self.variant.name, step, losses, samples, self.network)
        self.update.finish()
        self.log.add(losses)
        return losses["loss"], rate

    def _backward(self, stacked: Any, piece: Piece, step: int) -> dict[str, Tensor]:
        """Add the gradients of one piece; its losses, weighted, the sum of all first."""
        batch = self.data.to_batch(stacked, self.processes.device)
        progress = Progress(step // self.per_epoch, step, self.epochs, self.processes.pooled(piece))
        with self.autocast:
            losses = {name: loss.float() for name, loss in self.model(batch, progress).items()}
        total = torch.stack(list(losses.values())).sum() * piece.weight
        self.update.backward(total)
        parts = losses if len(losses) > 1 else {}
        return {"loss": total.detach(), **{name: loss.detach() * piece.weight for name, loss in parts.items()}}

    def save(self, step: int) -> None:
        """Keep the state after `step` steps."""
        if self.processes.first:
            self.outputs.save(step, self.network, self.update, self.watch)
        self.processes.wait()

    def validated(self, step: int) -> Mapping[str, float]:
        """What the first process's validation after `step` steps gives; the best weights so far are written."""
        assert self.options.validate is not None
        scores: Mapping[str, float] = {}
        if self.processes.first:
            with stopping.postponed():
                scores = self.options.validate(self.update.result.eval())
            self.network.train()
            self.outputs.write_if_best(self.update.result, scores, step)
        self.processes.wait()
        return scores

    def _is_due(self, epoch: int) -> bool:
        last = epoch + 1 == self.epochs
        return self.options.validate is not None and ((epoch + 1) % self.options.validate_every == 0 or last)

    def _is_to_stop(self, began: float) -> bool:
        """Time is up on the first process's clock, or a signal came to any: all have to stop at the same step."""
        limit = self.options.stop_after
        own = stopping.asked() or (limit is not None and self.processes.first and time.monotonic() - began >= limit)
        if self.processes.count == 1:
            return own
        return bool(self.processes.sum(torch.tensor(float(own), device=self.processes.device)) > 0)


def _at_once(recipe: Recipe, run: _Run) -> int:
    """Samples that a process handles at once."""
    return max(1, recipe.batch // run.processes.count // run.options.accumulate)


def _circumstances(started: processes.Alone, options: Options) -> dict[str, Any]:
    """What a run was done with, for the weights file."""
    how = {"device": str(started.device), "processes": started.count}
    how |= {"accumulate": options.accumulate, "sync_norms": options.sync_norms}
    return {**how, "revision": provenance.revision(), "versions": provenance.versions()}


def _text(scores: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in scores.items())
