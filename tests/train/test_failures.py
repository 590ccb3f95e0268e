"""Faults of a run, told so that they can be mended."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from harness.errors import MeasurementError, UserError
from harness.train.failures import Watch, diverged, explained, listed, not_finite


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_a_fault_at_once(value):
    assert "not finite" in Watch().fault(value)


def test_a_loss_far_above_those_of_an_untrained_network_is_a_fault():
    watch = Watch()
    assert [watch.fault(1.0) for _ in range(10)] == [""] * 10
    assert watch.fault(99.0) == "" and "101 times" in watch.fault(101.0)
    assert "101 times" in Watch(watch.first).fault(101.0)  # a resumed run knows the first losses


def test_losses_of_zero_at_the_start_explode_into_nothing():
    watch = Watch()
    assert not any(watch.fault(loss) for loss in [*[0.0] * 10, 1.0])


def test_the_first_losses_may_be_large():
    watch = Watch()
    assert all(watch.fault(loss) == "" for loss in (1e6, 1.0, 1e-3, 1e5))


def network():
    return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))


def test_parameters_that_are_not_finite_are_named_first_then_gradients():
    made = network()
    made(torch.ones(1, 2)).sum().backward()
    assert "largest gradients: " in str(diverged("x", "toy", 3, {"loss": 1.0}, "persons 1", made))
    made[1].weight.grad[0, 0] = math.nan
    assert "gradients that are not: 1.weight" in str(diverged("x", "toy", 3, {"loss": 1.0}, "persons 1", made))
    with torch.no_grad():
        made[0].bias[0] = math.inf
    assert "parameters that are not finite: 0.bias" in str(diverged("x", "toy", 3, {"loss": 1.0}, "persons 1", made))


def test_weights_that_are_not_finite_are_counted_and_named():
    assert not_finite("toy", 3, {"a": torch.ones(2)}) is None
    fault = not_finite("toy", 3, {"a": torch.ones(2), "b": torch.tensor([math.nan])})
    assert "1 tensors are no longer finite after step 3, first b" in str(fault)


def test_long_lists_are_cut():
    assert listed("persons", range(3)) == "persons 0, 1, 2"
    assert listed("persons", range(20)).endswith("7 and 12 more")


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), UserError, "a batch of 64 does not fit"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), UserError, "--accumulate 2"),
        (MemoryError(), UserError, "--accumulate 2"),
        (OSError(28, "No space left on device"), MeasurementError, "the disk is full"),
        (FileNotFoundError(2, "gone"), FileNotFoundError, "gone"),
        (RuntimeError("shapes"), RuntimeError, "shapes"),
    ],
)
def test_memory_and_disk_are_told_apart_from_other_faults(error, kind, text):
    with pytest.raises(kind, match=text), explained("toy", 64):
        raise error
