"""The training loop that every method uses: one seeded stream of batches, an exact resume, a log, a weights file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from harness.data.coco import Dataset
from harness.errors import HarnessError, MeasurementError, UserError
from harness.method import Trainable, Variant
from harness.predict import Normaliser
from harness.train import checkpoints, state
from harness.train.display import Display
from harness.train.log import LOG_STEPS, Clock, Log
from harness.train.recipes import Progress, Recipe, TrainBatch, describe
from harness.train.samples import Order, PersonCrops, Stacked, loader, to_batch, torch_seed
from harness.train.schedules import rate_factor

__all__ = ["Losses", "TrainResult", "optimiser", "train"]

Precision = Literal["float32", "bfloat16"]
Validate = Callable[[nn.Module], Mapping[str, float]]
_DIVERGED_HINT = "lower the learning rate or lengthen the warm-up; the last good state is kept in OUT/state"


@dataclass(frozen=True)
class TrainResult:
    """`loss` is the mean over the last epoch's logged steps, `scores` what the last validation gave."""

    weights: Path
    epochs: int
    steps: int
    persons: int
    loss: float
    images_per_second: float
    scores: Mapping[str, float] = field(default_factory=dict)


class Losses(nn.Module):
    """A trainable network as a module whose `forward` is its `losses`, so that wrappers around it see every call."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: TrainBatch, progress: Progress) -> dict[str, Tensor]:
        return self.network.losses(batch, progress)  # type: ignore[operator]


def optimiser(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over its parameter groups; parameters that need no gradient are left out."""
    if recipe.groups is not None:
        groups: Iterable[Any] = recipe.groups(network, recipe)
    else:
        groups = [p for p in network.parameters() if p.requires_grad]
    options: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(groups, momentum=recipe.momentum, **options)
    kind = torch.optim.AdamW if recipe.optimiser == "adamw" else torch.optim.Adam
    return kind(groups, betas=recipe.betas, **options)


def train(
    predictor: nn.Module,
    variant: Variant,
    recipe: Recipe,
    dataset: Dataset,
    *,
    out: Path,
    seed: int = 0,
    device: str = "cpu",
    workers: int = 1,
    precision: Precision = "float32",
    validate: Validate | None = None,
    validate_every: int = 10,
    save_every: int | None = None,
    resume: bool = True,
    metadata: Mapping[str, str] | None = None,
    quiet: bool = False,
) -> TrainResult:
    """Train `predictor` in place; write `out/VARIANT.safetensors`, `out/log.jsonl` and the states in `out/state`.

    A state is saved every `save_every` steps (default: once an epoch) and `resume` goes on from the newest one; on
    a CPU, with the same number of threads, the result is bit for bit that of an undisturbed run.
    `validate(predictor)` is called every `validate_every` epochs and after the last one. `metadata` goes into the
    weights file beside what the loop knows itself. Convolutions run in the channels-last layout; `precision`
    'bfloat16' computes the forward pass under autocast (twice as fast on CPUs that know it), weights stay float32.

    Raises DataError for a set without usable persons, UserError for a state of another run, MeasurementError when a
    loss or a weight is no longer finite (the last good state stays).
    """
    where = torch.device(device)
    run = _Run(predictor, variant, recipe, dataset, Path(out), seed, where, precision, save_every, quiet)
    first = run.start(resume)
    with _threads(workers, where):
        result = run.go(first, workers, validate, validate_every)
    facts = {**run.identity, "recipe": json.dumps(run.identity["recipe"]), "steps": run.total, **(metadata or {})}
    weights = run.network.state_dict()
    checkpoints.write(result.weights, weights, {name: str(value) for name, value in facts.items()})
    return result


@contextmanager
def _threads(workers: int, device: torch.device) -> Iterator[None]:
    """On a CPU, one thread for each core that no worker occupies: more of them only wait for each other."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(max(1, before - workers))
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
        device: torch.device,
        precision: Precision,
        save_every: int | None,
        quiet: bool,
    ) -> None:
        _check_trainable(network, variant)
        self.variant, self.recipe, self.out, self.seed, self.quiet = variant, recipe, out, seed, quiet
        height, width = network.input_size
        self.crops = PersonCrops(dataset, variant.protocol, recipe, (height, width), seed=seed)
        self.order = Order(len(self.crops), recipe.batch, recipe.epochs, seed=seed)
        self.per_epoch, self.total = self.order.steps_per_epoch, len(self.order)
        self.save_every = save_every or self.per_epoch
        self.network = network.to(device, memory_format=torch.channels_last)
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
        self.model = Losses(self.network)
        self.optimiser = optimiser(self.network, recipe)
        self.rates = [group["lr"] for group in self.optimiser.param_groups]
        self.normalise = Normaliser(variant.protocol, device)
        self.log = Log(out / "log.jsonl")
        self.identity = {
            "variant": variant.name,
            "recipe": describe(recipe),
            "seed": seed,
            "precision": precision,
            "input_size": [height, width],
            "data": dataset.fingerprint,
            "persons": len(self.crops),
        }

    def start(self, resume: bool) -> int:
        """The step to begin with: that of the newest state, or 0 with a clean folder."""
        found = state.load(self.out / "state", self.identity) if resume else None
        if not resume:
            state.clear(self.out / "state")
        first = 0 if found is None else int(found["step"])
        if found is not None:
            self.network.load_state_dict(found["network"])
            self.optimiser.load_state_dict(found["optimiser"])
        self.log.open(first)
        return first

    def go(self, first: int, workers: int, validate: Validate | None, validate_every: int) -> TrainResult:
        """Steps `first` to the end."""
        self.order.start, device = first, self.normalise.device
        batches = loader(self.crops, self.order, workers=workers, device=device)
        scores: Mapping[str, float] = {}
        self.model.train()
        clock, title = Clock(), f"train {self.variant.name}"
        with Display(title, self.recipe.epochs, self.total, done=first, quiet=self.quiet) as display:
            for step, stacked in enumerate(batches, start=first):
                if isinstance(stacked, HarnessError):
                    raise stacked
                loss, rate = self.step(step, stacked)
                epoch, ends_epoch = step // self.per_epoch, (step + 1) % self.per_epoch == 0
                speed = clock.count(len(stacked.images))
                display.step(epoch, loss, rate, speed)
                validates = ends_epoch and validate is not None and self._is_due(epoch, validate_every)
                if validate is not None and validates:
                    scores = self._validated(validate)
                if ends_epoch or (step + 1) % LOG_STEPS == 0:
                    self.log.write(
                        step=step,
                        epoch=epoch,
                        lr=rate,
                        images_per_second=round(speed, 1),
                        **(scores if validates else {}),
                    )
                if ends_epoch:
                    display.epoch(epoch, self.log.last, rate, speed, _text(scores) if validates else "")
                if (step + 1) % self.save_every == 0 or step + 1 == self.total:
                    self.save(step + 1)
        weights = self.out / f"{self.variant.name}.safetensors"
        persons = len(self.crops)
        return TrainResult(weights, self.recipe.epochs, self.total, persons, self.log.last, clock.speed, scores)

    def step(self, step: int, stacked: Stacked) -> tuple[float, float]:
        """One optimiser step; (loss, learning rate of the first group)."""
        rate = rate_factor(self.recipe, step, self.per_epoch)
        for group, base in zip(self.optimiser.param_groups, self.rates):
            group["lr"] = base * rate
        # random layers depend on the step alone, so a resumed run draws what an undisturbed one draws
        torch.manual_seed(torch_seed(self.seed, step))
        batch = to_batch(stacked, self.normalise)
        with self.autocast:
            losses = self.model(batch, Progress(step // self.per_epoch, step, self.recipe.epochs))
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
        loss = total.item()
        if not math.isfinite(loss):
            raise self._diverged(step, losses, stacked)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip_norm)
        self.optimiser.step()
        self.log.add(loss, losses)
        return loss, self.rates[0] * rate

    def save(self, step: int) -> None:
        """Keep the state after `step` steps. MeasurementError, with nothing written, when a weight is not finite."""
        weights = self.network.state_dict()
        bad = [name for name, value in weights.items() if not torch.isfinite(value).all()]
        if bad:
            raise MeasurementError(
                f"training diverged: {len(bad)} tensors are no longer finite after step {step - 1}, first {bad[0]}",
                where=self.variant.name,
                hint=_DIVERGED_HINT,
            )
        content = {"network": weights, "optimiser": self.optimiser.state_dict(), "identity": self.identity}
        state.save(self.out / "state", step, content)

    def _diverged(self, step: int, losses: Mapping[str, Tensor], stacked: Stacked) -> MeasurementError:
        values = ", ".join(f"{name} {value.item():g}" for name, value in losses.items())
        persons = ", ".join(str(int(p)) for p in stacked.persons)
        return MeasurementError(
            f"training diverged at step {step}: {values}",
            where=f"{self.variant.name}, persons {persons}",
            expected="finite losses",
            hint=_DIVERGED_HINT,
        )

    def _is_due(self, epoch: int, every: int) -> bool:
        return (epoch + 1) % every == 0 or epoch + 1 == self.recipe.epochs

    def _validated(self, validate: Validate) -> Mapping[str, float]:
        self.network.eval()
        scores = validate(self.network)
        self.model.train()
        return scores


def _check_trainable(network: object, variant: Variant) -> None:
    if variant.paradigm != "top-down":
        raise UserError(f"{variant.name} is a one-stage network", expected="a top-down one: the loop trains on crops")
    if not isinstance(network, Trainable):
        raise UserError(f"{variant.name} cannot be trained", hint="`paretopose methods` shows which ones can")


def _text(scores: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in scores.items())
