"""The parts of an image's multiply-accumulates."""

from __future__ import annotations

import numpy as np
import pytest

from harness.cost.per_image import image_macs
from harness.errors import MeasurementError


class Net:
    def __init__(self, macs):
        self.macs = macs


def test_an_image_is_its_fixed_part_and_its_persons():
    net = Net(lambda t: 100 * t["height"] + 7 * t["persons"])
    found = image_macs(net, {"height": np.array([2, 3]), "persons": np.array([0, 5])})
    assert [part.tolist() for part in found] == [[200, 335], [200, 300], [7, 7]]


def test_a_cost_that_is_not_linear_in_the_persons_is_refused():
    with pytest.raises(MeasurementError, match="not linear"):
        image_macs(Net(lambda t: t["persons"] ** 2), {"persons": np.array([3])})
    with pytest.raises(MeasurementError, match="no `persons`"):
        image_macs(Net(lambda t: 1), {"height": np.array([3])})


def test_a_network_that_costs_the_same_for_everybody_has_no_part_for_a_person():
    found = image_macs(Net(lambda t: 42), {"persons": np.array([0, 9])})
    assert found.whole.tolist() == [42, 42] and found.each.tolist() == [0, 0]
