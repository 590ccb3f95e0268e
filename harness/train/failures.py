"""What can go wrong within a run, noticed early and said so that it can be mended."""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from harness.errors import MeasurementError, UserError, is_out_of_memory

__all__ = ["Watch", "diverged", "explained", "not_finite"]

EXPLODED = 100.0  # times the mean of the run's first losses: those of a network that has learned nothing
_FIRST = 10  # losses that this mean is taken of
_NAMED = 8  # samples and parameters that a message lists
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_HINT = "lower the learning rate or lengthen the warm-up; the states before it are kept in OUT/state"


class Watch:
    """Looks at every loss of a run. `first`: its first losses, kept with the state."""

    def __init__(self, first: Sequence[float] = ()) -> None:
        self.first = list(first)

    def fault(self, loss: float) -> str:
        """What is wrong with the loss of a step; empty when nothing is."""
        if not math.isfinite(loss):
            return "the loss is not finite"
        if len(self.first) < _FIRST:
            self.first.append(loss)
            return ""
        usual = sum(self.first) / _FIRST
        if not usual or loss <= EXPLODED * usual:
            return ""
        return f"the loss is {loss / usual:.0f} times that of the first steps"


def diverged(
    what: str, where: str, step: int, losses: Mapping[str, float], samples: str, network: nn.Module
) -> MeasurementError:
    """The error of a step that went wrong: its losses, its `samples`, and the parameters to suspect."""
    values = ", ".join(f"{name} {value:g}" for name, value in losses.items())
    return MeasurementError(
        f"training diverged at step {step}: {values} ({what}); {_suspects(network)}",
        where=f"{where}, {samples}",
        expected="finite losses that do not grow",
        hint=_HINT,
    )


def not_finite(where: str, step: int, weights: Mapping[str, Tensor]) -> MeasurementError | None:
    """The error of weights that hold nan or inf after `step`, None when all are finite."""
    bad = [name for name, value in weights.items() if not torch.isfinite(value).all()]
    if not bad:
        return None
    return MeasurementError(
        f"training diverged: {len(bad)} tensors are no longer finite after step {step}, first {_some(bad)}",
        where=where,
        hint=_HINT,
    )


def listed(noun: str, ids: Sequence[int]) -> str:
    """`persons 3, 5, 9 and 12 more`."""
    return f"{noun} {_some([str(i) for i in ids])}"


def _suspects(network: nn.Module) -> str:
    """The parameters that are no longer finite, else those with such gradients, else the largest gradients."""
    named = dict(network.named_parameters())
    gradients = {name: p.grad for name, p in named.items() if p.grad is not None}
    weights = [name for name, p in named.items() if not torch.isfinite(p).all()]
    if weights:
        return f"parameters that are not finite: {_some(weights)}"
    bad = [name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()]
    if bad:
        return f"all parameters are finite; gradients that are not: {_some(bad)}"
    norms = {name: float(gradient.norm()) for name, gradient in gradients.items()}
    largest = sorted(norms, key=norms.__getitem__, reverse=True)[:3]
    return "largest gradients: " + ", ".join(f"{name} {norms[name]:.3g}" for name in largest)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


@contextmanager
def explained(where: str, samples: int, pieces: int = 1) -> Iterator[None]:
    """Memory and disk that do not suffice, as errors that say what to do. `samples`: handled at once by a process, in
    so many `pieces` of its share."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"a batch of {samples} does not fit into memory ({_line(error)})",
            where=where,
            hint=f"--accumulate {2 * pieces} or more computes it in as many pieces, one after the other; "
            "the total batch stays",
        ) from error
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        raise MeasurementError(
            f"the disk is full ({error.strerror})",
            where=where,
            hint="free some space and call again: training goes on from the last state that is complete",
        ) from error


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
