"""AP while a network trains."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from harness.data import coco, synthetic
from harness.errors import DataError
from harness.method import TopDownOutput, find_variant
from harness.train.validation import validator


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    root = tmp_path_factory.mktemp("people")
    synthetic.write(root, images=3, seed=3)
    return coco.load(root / "annotations/person_keypoints_val2017.json", root / "val2017", name="people")


class Fixed(nn.Module):
    """Answers the same map for everybody: zeros with one peak, or nan."""

    def __init__(self, value):
        super().__init__()
        self.input_size, self.value = (128, 96), value

    def predict(self, images, settings):
        maps = torch.zeros(len(images), 17, 32, 24)
        maps[:, :, 16, 12] = self.value
        return TopDownOutput(exits=[maps])

    def macs(self, trace):
        return 1


VARIANT = find_variant("simplebaseline_tiny")


def test_scores_are_those_of_the_instrument_in_0_to_1(people):
    scores = validator(VARIANT, people)(Fixed(1.0))
    assert scores.keys() == {"ap", "ap50", "ar"} and 0 <= scores["ap"] <= scores["ap50"] <= 1


def test_a_network_that_writes_nan_scores_nothing(people):
    assert validator(VARIANT, people)(Fixed(float("nan"))) == {"ap": 0.0, "ap50": 0.0, "ar": 0.0}


def test_the_project_s_tiny_weights_score_on_the_built_in_people(people):
    from harness.suite.sources import QUICKSTART
    from harness.train.checkpoints import open_variant

    network, _ = open_variant(VARIANT, QUICKSTART / "simplebaseline_tiny.safetensors")
    assert validator(VARIANT, people)(network)["ap"] > 0.4


def test_a_set_without_persons_is_refused(people):
    with pytest.raises(DataError, match="nobody to validate on"):
        validator(VARIANT, dataclasses.replace(people, persons=()))
