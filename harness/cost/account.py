"""The cost of one predictor: counted on a real forward, checked against its closed form, under every convention."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from harness.cost.conventions import figures, totals
from harness.cost.macs import Ledger, count, parameters
from harness.errors import CounterDisagreement
from harness.method import OneStageOutput, Predictor

__all__ = ["Account", "account", "closed_form", "measure", "performed", "sample_input"]


@dataclasses.dataclass(frozen=True)
class Account:
    """Cost of one forward of one image (top-down: one person crop). `ledger` is None for what is no torch module
    (an ONNX file), which is counted from its own graph. `as_published`: what the published code does for the same
    trace, where ours skips work that reaches no output (`predictor.as_published_macs`)."""

    macs: int
    closed_form: int
    counts: Mapping[str, int]
    params: int | None
    params_inference: int | None
    trace: Mapping[str, list[Any]]
    ledger: Ledger | None
    as_published: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: what a cost record holds."""
        return {
            "macs": self.macs,
            "gmacs": self.macs / 1e9,
            "gflops": 2 * self.macs / 1e9,
            "closed_form": self.closed_form,
            "as_published": self.as_published,
            "conventions": {n: {"count": c, "giga": figures({n: c})[n]} for n, c in self.counts.items()},
            "params": self.params,
            "params_inference": self.params_inference,
            "trace": dict(self.trace),
            "ledger": self.ledger.to_dict() if self.ledger else None,
        }


def sample_input(predictor: Predictor, paradigm: str, *, batch: int = 1) -> Any:
    """Seeded noise of the predictor's input size: (B, 3, H, W), or a list of (3, H, W) for a one-stage method."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((batch, 3, *predictor.input_size), generator=generator)
    return list(images) if paradigm == "one-stage" else images


def account(predictor: Predictor, settings: Mapping[str, Any], *, paradigm: str = "top-down") -> dict[str, Any]:
    """`measure(...)` as the dictionary that a cost record holds."""
    return measure(predictor, settings, paradigm=paradigm).to_dict()


def measure(
    predictor: Predictor, settings: Mapping[str, Any], *, paradigm: str = "top-down", images: Any = None
) -> Account:
    """Counts one forward on `images` (default: `sample_input`), with the method's own run knobs in `settings`.

    Raises CounterDisagreement when the counters differ, or when the closed form `predictor.macs(trace)` of that very
    forward is not the counted number to the integer.
    """
    if not isinstance(predictor, torch.nn.Module):
        given = sample_input(predictor, paradigm) if images is None else images
        trace = _traced(predictor, settings, given)
        macs, params = int(np.sum(predictor.macs(trace))), getattr(predictor, "params", None)
        return Account(macs, macs, {"macs": macs, "torch": 2 * macs}, params, params, _listed(trace), None)
    images = sample_input(predictor, paradigm) if images is None else images
    last: list[Any] = []

    def forward(given: Any) -> Any:
        last[:] = [predictor.predict(given, settings)]
        return last[0]

    ledger = count(forward, (images,), network=predictor)
    trace = _trace(last[0])
    closed = int(np.sum(predictor.macs(trace))) * (1 if trace else len(images))
    if closed != ledger.macs:
        raise CounterDisagreement(
            f"the closed form gives {closed:,} macs, the counters {ledger.macs:,}",
            where=type(predictor).__name__,
            expected="equal to the integer",
            hint="correct the method's macs()",
        )
    sizes = parameters(predictor)
    published: Any = getattr(predictor, "as_published_macs", None)
    official = int(np.sum(published(trace))) if published else None
    return Account(ledger.macs, closed, totals(ledger), sizes.total, sizes.inference, _listed(trace), ledger, official)


def closed_form(predictor: Predictor, settings: Mapping[str, Any], images: Any) -> int:
    """`predictor.macs` on the trace of one forward of a batch of one, without counting operators."""
    return int(np.sum(predictor.macs(_traced(predictor, settings, images))))


def _traced(predictor: Predictor, settings: Mapping[str, Any], images: Any) -> dict[str, np.ndarray]:
    with torch.inference_mode():
        return _trace(predictor.predict(images, settings))


def _listed(trace: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {name: np.asarray(values).tolist() for name, values in trace.items()}


def performed(predictor: Predictor, output: Any, batch: int) -> int:
    """Multiply-accumulates of the forward that gave `output`, in closed form, over all its `batch` images."""
    trace = _trace(output)
    macs = np.asarray(predictor.macs(trace))
    return int(macs.sum()) if macs.ndim else int(macs) * batch


def _trace(output: Any) -> dict[str, np.ndarray]:
    if isinstance(output, list) and output and isinstance(output[0], OneStageOutput):
        return {name: np.array([int(one.trace[name]) for one in output]) for name in output[0].trace}
    return {name: values.detach().cpu().numpy() for name, values in output.trace.items()}
