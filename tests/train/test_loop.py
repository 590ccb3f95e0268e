"""The training loop on a toy network: it learns, is exact, goes on where it stopped, notices divergence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from harness.data.coco import Dataset, ImageInfo, Person
from harness.errors import MeasurementError, UserError
from harness.method import Variant
from harness.pose.skeletons import COCO
from harness.train import loop
from harness.train.recipes import Augmentation, Recipe

SIZE = (64, 48)
RECIPE = Recipe(epochs=4, batch=3, lr=1e-3, warmup_steps=3, schedule="cosine", augmentation=Augmentation(rotation=20))


class Toy(nn.Module):
    """Three convolutions with batch norm and dropout, so that buffers and random layers take part."""

    input_size = SIZE

    def __init__(self, fail_at: int | None = None, poison_at: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
            nn.Dropout(0.1), nn.Conv2d(32, 17, 3, 1, 1),
        )  # fmt: skip
        self.fail_at, self.poison_at = fail_at, poison_at
        self.seen: list[tuple[int, int]] = []

    def losses(self, batch, progress):
        if progress.step == self.fail_at:
            raise KeyboardInterrupt
        self.seen.append((progress.epoch, progress.step))
        error = (self.body(batch.images) - batch.target).square() * batch.weight[..., None, None]
        factor = float("nan") if progress.step == self.poison_at else 100.0
        return {"heatmap": error.mean() * factor, "size": self.body(batch.images).square().mean() * 0.1}


VARIANT = Variant(name="toy", method="toy", build=None, input_size=SIZE)


def make(folder, count=8):
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    persons = []
    for number in range(count):
        points = np.stack([rng.uniform(30, 70, 17), rng.uniform(15, 65, 17)], axis=1)
        image = cv2.resize(rng.integers(0, 256, (10, 12, 3), dtype=np.uint8), (100, 80))
        for joint, point in enumerate(points):
            cv2.circle(image, tuple(int(v) for v in point), 3, (15 * joint, 255 - 15 * joint, 40), -1)
        cv2.imwrite(str(folder / f"{number}.png"), image)
        keypoints = np.concatenate([points, np.full((17, 1), 2.0)], axis=1)
        persons.append(Person(100 + number, number, (25.0, 10.0, 50.0, 60.0), 3000.0, keypoints, False, 17))
    images = tuple(ImageInfo(n, f"{n}.png", 100, 80) for n in range(count))
    return Dataset("toy", folder, images, tuple(persons), COCO, {})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make(tmp_path_factory.mktemp("images"))


def run(dataset, out, network=None, recipe=RECIPE, **options):
    network = network or Toy()
    options = {"workers": 0, "quiet": True, **options}
    return loop.train(network, VARIANT, recipe, dataset, out=out, **options), network


def weights(path):
    with safe_open(str(path), "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def equal_bits(a, b):
    a, b = weights(a), weights(b)
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def one_thread():
    """Sums of several threads are added in another order: bits are compared at one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_training_on_eight_crops_lowers_the_loss_to_a_third(dataset, tmp_path):
    still = Augmentation(flip=0, scale=0, rotation_prob=0, half_body=0)
    recipe = Recipe(epochs=60, batch=8, lr=5e-3, augmentation=still)
    result, _ = run(dataset, tmp_path, recipe=recipe)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(lines) == 60 and lines[-1]["step"] == 59
    assert result.loss == lines[-1]["loss"] < lines[0]["loss"] / 3
    assert lines[0]["loss"] == pytest.approx(lines[0]["heatmap"] + lines[0]["size"], rel=1e-5)


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(dataset, tmp_path, one_thread):
    a, _ = run(dataset, tmp_path / "a")
    b, _ = run(dataset, tmp_path / "b", workers=1)
    c, _ = run(dataset, tmp_path / "c", seed=1)
    assert equal_bits(a.weights, b.weights)
    assert not equal_bits(a.weights, c.weights)


@pytest.mark.parametrize(("fail_at", "goes_on_at"), [(6, 6), (8, 8), (11, 10)])
def test_an_interrupted_run_goes_on_to_the_same_bits(dataset, tmp_path, fail_at, goes_on_at):
    whole, _ = run(dataset, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(dataset, tmp_path / "parts", Toy(fail_at=fail_at), save_every=2)
    result, network = run(dataset, tmp_path / "parts", save_every=2)
    assert network.seen[0] == (goes_on_at // 3, goes_on_at)
    assert equal_bits(whole.weights, result.weights)
    lines = [json.loads(line)["step"] for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert lines == [2, 5, 8, 11]


def test_a_finished_run_is_not_trained_again_unless_asked(dataset, tmp_path):
    first, _ = run(dataset, tmp_path)
    again, network = run(dataset, tmp_path)
    assert network.seen == [] and equal_bits(first.weights, again.weights) and again.loss == first.loss
    _, network = run(dataset, tmp_path, resume=False)
    assert len(network.seen) == 12


def test_a_state_of_another_recipe_is_refused(dataset, tmp_path):
    run(dataset, tmp_path)
    with pytest.raises(UserError, match="another run"):
        run(dataset, tmp_path, recipe=Recipe(epochs=4, batch=3, lr=2e-3))


def test_a_loss_that_is_not_finite_names_step_and_persons_and_keeps_the_last_good_state(dataset, tmp_path):
    with pytest.raises(MeasurementError, match="diverged at step 7: heatmap nan") as caught:
        run(dataset, tmp_path, Toy(poison_at=7))
    assert "persons 10" in caught.value.where
    assert sorted(p.name for p in (tmp_path / "state").iterdir()) == ["state-000000003.pt", "state-000000006.pt"]
    assert not (tmp_path / "toy.safetensors").exists()


def test_a_weight_that_is_not_finite_is_never_saved(dataset, tmp_path):
    recipe = Recipe(epochs=1, batch=8, lr=float("inf"))
    with pytest.raises(MeasurementError, match="no longer finite after step 0"):
        run(dataset, tmp_path, recipe=recipe)
    assert not (tmp_path / "state").exists()


def test_validation_sees_the_network_in_evaluation_mode_and_training_goes_on_after_it(dataset, tmp_path):
    modes = []

    def validate(network):
        modes.append(network.training)
        return {"ap": 0.25}

    result, network = run(dataset, tmp_path, validate=validate, validate_every=3)
    assert modes == [False, False] and network.training
    assert result.scores == {"ap": 0.25}
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if "ap" in line] == [2, 3]


def test_the_weights_file_says_what_made_it(dataset, tmp_path):
    result, _ = run(dataset, tmp_path, seed=5, metadata={"command": "paretopose train toy"})
    with safe_open(str(result.weights), "pt") as file:
        facts = file.metadata()
    assert (facts["variant"], facts["seed"], facts["steps"]) == ("toy", "5", "12")
    assert facts["data"] == dataset.fingerprint and facts["command"] == "paretopose train toy"
    assert json.loads(facts["recipe"])["epochs"] == 4


def by_kind(module, recipe):
    slow = [p for n, p in module.named_parameters() if n.endswith("bias")]
    rest = [p for n, p in module.named_parameters() if not n.endswith("bias")]
    return [{"params": slow, "lr": recipe.lr * 0.5, "weight_decay": 0.0}, {"params": rest}]


def test_parameter_groups_keep_their_own_rate_under_the_schedule(dataset, tmp_path):
    recipe = Recipe(
        epochs=2, batch=8, lr=1e-2, optimiser="adamw", weight_decay=0.1, milestones=(1,), clip_norm=1.0, groups=by_kind
    )
    run(dataset, tmp_path, recipe=recipe)
    state = torch.load(tmp_path / "state" / "state-000000002.pt", weights_only=True)
    groups = state["optimiser"]["param_groups"]
    assert [g["lr"] for g in groups] == pytest.approx([5e-4, 1e-3])
    assert [g["weight_decay"] for g in groups] == [0.0, 0.1]


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_the_optimiser_is_the_one_of_the_recipe(name, kind):
    network = Toy()
    network.body[0].requires_grad_(False)
    made = loop.optimiser(network, Recipe(epochs=1, batch=1, lr=0.1, optimiser=name, weight_decay=0.2))
    assert type(made) is kind and made.defaults["weight_decay"] == 0.2
    assert len(made.param_groups[0]["params"]) == len(list(network.parameters())) - 2


def test_a_bfloat16_forward_learns_with_float32_weights(dataset, tmp_path):
    recipe = Recipe(epochs=10, batch=8, lr=5e-3)
    result, network = run(dataset, tmp_path, recipe=recipe, precision="bfloat16")
    first = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])["loss"]
    assert result.loss < first and {p.dtype for p in network.parameters()} == {torch.float32}
    with pytest.raises(UserError, match="precision: bfloat16 there, float32 now"):
        run(dataset, tmp_path, recipe=recipe)


def test_training_leaves_the_number_of_threads_as_it_was(dataset, tmp_path):
    before = torch.get_num_threads()
    run(dataset, tmp_path, workers=1, recipe=Recipe(epochs=1, batch=8, lr=1e-3))
    assert torch.get_num_threads() == before


def test_what_has_no_losses_cannot_be_trained(dataset, tmp_path):
    with pytest.raises(UserError, match="toy cannot be trained"):
        run(dataset, tmp_path, nn.Conv2d(3, 3, 1))


_CHILD = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("toy_tests", sys.argv[1])
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)
out = Path(sys.argv[2])
toy.run(toy.make(out / "images"), out / "run", save_every=3, recipe=toy.LONG)
"""
LONG = Recipe(epochs=60, batch=3, lr=1e-3, augmentation=Augmentation(rotation=20))


@pytest.mark.slow
def test_a_run_killed_at_any_moment_goes_on_to_the_same_bits(tmp_path):
    dataset = make(tmp_path / "images")
    whole, _ = run(dataset, tmp_path / "whole", recipe=LONG)
    command = [sys.executable, "-c", _CHILD, str(Path(__file__)), str(tmp_path)]
    kills = 0
    for seconds in (0.05, 0.2, 0.35):
        child = subprocess.Popen(command)
        states = tmp_path / "run" / "state"
        known = set(states.glob("*.pt"))
        while set(states.glob("*.pt")) == known and child.poll() is None:
            time.sleep(0.01)
        time.sleep(seconds)
        os.kill(child.pid, signal.SIGKILL)
        kills += child.wait() == -signal.SIGKILL
    assert kills >= 1
    result, _ = run(dataset, tmp_path / "run", recipe=LONG, save_every=3)
    assert equal_bits(whole.weights, result.weights)
