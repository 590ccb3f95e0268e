"""The training loop on a toy network: it learns, is exact, goes on where it stopped, notices divergence."""

from __future__ import annotations

import json

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
from harness.train import loop, state
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


def run(dataset, out, network=None, recipe=RECIPE, seed=0, metadata=None, **options):
    network = network or Toy()
    options = loop.Options(**{"workers": 0, "quiet": True, **options})
    result = loop.train(network, VARIANT, recipe, dataset, out=out, seed=seed, metadata=metadata, options=options)
    return result, network


def weights(path):
    with safe_open(str(path), "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def equal_bits(a, b):
    a, b = weights(a), weights(b)
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


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


def test_a_loss_that_is_not_finite_names_step_persons_and_parameters_and_keeps_the_last_good_state(dataset, tmp_path):
    with pytest.raises(MeasurementError, match="diverged at step 7: loss nan, heatmap nan, size 0") as caught:
        run(dataset, tmp_path, Toy(poison_at=7))
    assert "persons 10" in caught.value.where
    assert "all parameters are finite; gradients that are not: body.0.weight" in caught.value.what
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
    assert json.loads(facts["recipe"])["epochs"] == 4 and "source" in json.loads(facts["recipe"])
    assert facts["revision"] and torch.__version__.startswith(json.loads(facts["versions"])["torch"])
    assert (facts["device"], facts["processes"], facts["accumulate"]) == ("cpu", "1", "1")


def test_a_state_of_a_run_from_other_weights_is_refused(dataset, tmp_path):
    run(dataset, tmp_path, metadata={"init": "trunk.pth sha256:12"})
    with pytest.raises(UserError, match=r"init: trunk\.pth sha256:12 there, random weights of seed 0 now"):
        run(dataset, tmp_path, metadata={"init": "random weights of seed 0"})


def test_what_a_kill_left_half_written_goes_when_the_run_goes_on(dataset, tmp_path):
    run(dataset, tmp_path)
    cut = tmp_path / "state" / ".state-000000099.pt.abc.tmp"
    cut.write_bytes(b"x")
    run(dataset, tmp_path)
    assert not cut.exists()


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


class Exploding(Toy):
    """Its loss is multiplied from one step on."""

    def losses(self, batch, progress):
        found = super().losses(batch, progress)
        return {name: loss * (1e6 if progress.step >= 11 else 1) for name, loss in found.items()}


def test_a_loss_that_explodes_stops_the_run_before_its_weights_move(dataset, tmp_path):
    recipe = Recipe(epochs=6, batch=3, lr=1e-3)
    with pytest.raises(MeasurementError, match=r"diverged at step 11: .*times that of the first steps") as caught:
        run(dataset, tmp_path, Exploding(), recipe)
    assert "largest gradients: body." in caught.value.what
    assert (tmp_path / "state" / "state-000000009.pt").is_file() and not (tmp_path / "toy.safetensors").exists()


@pytest.mark.parametrize("fault", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_a_batch_that_does_not_fit_suggests_accumulation(dataset, tmp_path, fault, monkeypatch):
    def losses(self, batch, progress):
        raise fault

    monkeypatch.setattr(Toy, "losses", losses)
    with pytest.raises(UserError, match="a batch of 3 does not fit into memory") as caught:
        run(dataset, tmp_path)
    assert "--accumulate 2" in caught.value.hint


def test_other_faults_of_a_network_pass_through(dataset, tmp_path, monkeypatch):
    def losses(self, batch, progress):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(Toy, "losses", losses)
    with pytest.raises(RuntimeError, match="shapes differ"):
        run(dataset, tmp_path)


def test_a_full_disk_keeps_the_state_before_and_the_run_goes_on_from_it(dataset, tmp_path, monkeypatch):
    whole, _ = run(dataset, tmp_path / "whole")
    save = state.save

    def fails(folder, step, content):
        if step == 6:
            raise OSError(28, "No space left on device")
        return save(folder, step, content)

    with monkeypatch.context() as patch:
        patch.setattr(state, "save", fails)
        with pytest.raises(MeasurementError, match="the disk is full"):
            run(dataset, tmp_path / "parts")
    result, network = run(dataset, tmp_path / "parts")
    assert network.seen[0][1] == 3 and equal_bits(whole.weights, result.weights)


def test_a_run_that_is_out_of_time_saves_and_goes_on_to_the_same_bits(dataset, tmp_path):
    whole, _ = run(dataset, tmp_path / "whole")
    parts = [run(dataset, tmp_path / "parts", stop_after=0)[0] for _ in range(2)]
    assert [(part.done, part.steps) for part in parts] == [(False, 1), (False, 2)]
    assert not parts[0].weights.exists()
    last, _ = run(dataset, tmp_path / "parts")
    assert last.done and equal_bits(whole.weights, last.weights)


class Plain(Toy):
    """Without batch norm and dropout, so that pieces of a batch know nothing of one another."""

    def __init__(self):
        super().__init__()
        self.body[1], self.body[5] = nn.Identity(), nn.Identity()


@pytest.mark.parametrize("pieces", [2, 3])
def test_a_batch_in_pieces_is_the_whole_batch(dataset, tmp_path, pieces):
    recipe = Recipe(epochs=3, batch=5, lr=1e-3, clip_norm=0.1)
    run(dataset, tmp_path / "whole", Plain(), recipe)
    run(dataset, tmp_path / "pieces", Plain(), recipe, accumulate=pieces)
    whole, divided = (
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("whole", "pieces")
    )
    for name in ("loss", "heatmap", "size"):
        assert [line[name] for line in divided] == pytest.approx([line[name] for line in whole], rel=1e-5)


def test_the_best_weights_are_those_of_the_highest_ap_also_after_a_resume(dataset, tmp_path):
    scores = iter([0.3, 0.5, 0.4, 0.2])

    def validate(network):
        return {"ap": next(scores)}

    def interrupted(network):
        if network.seen[-1][0] == 2:
            raise KeyboardInterrupt
        return validate(network)

    with pytest.raises(KeyboardInterrupt):
        run(dataset, tmp_path, validate=interrupted, validate_every=1)
    result, _ = run(dataset, tmp_path, validate=validate, validate_every=1)
    with safe_open(str(result.best), "pt") as file:
        facts = file.metadata()
    assert (facts["steps"], json.loads(facts["scores"])) == ("6", {"ap": 0.5})
    assert not equal_bits(result.best, result.weights)


def test_the_running_mean_of_the_weights_is_what_is_validated_and_written(dataset, tmp_path):
    recipe = Recipe(epochs=2, batch=8, lr=1e-2, ema=0.5)
    seen = []
    result, network = run(dataset, tmp_path, recipe=recipe, validate=lambda n: seen.append(n) or {}, validate_every=1)
    written, trained = weights(result.weights), network.state_dict()
    assert seen[0] is not network and written.keys() == trained.keys()
    assert not torch.equal(written["body.0.weight"], trained["body.0.weight"])
    assert torch.equal(written["body.1.running_mean"], trained["body.1.running_mean"])
    whole, _ = run(dataset, tmp_path / "whole", recipe=recipe)
    with pytest.raises(KeyboardInterrupt):
        run(dataset, tmp_path / "parts", Toy(fail_at=1), recipe=recipe)
    parts, _ = run(dataset, tmp_path / "parts", recipe=recipe)
    assert equal_bits(whole.weights, parts.weights)


def test_a_recipe_for_another_input_size_is_refused(dataset, tmp_path):
    with pytest.raises(UserError, match="for an input of 256x192, the network takes 64x48") as caught:
        run(dataset, tmp_path, recipe=Recipe(epochs=1, batch=8, lr=1e-3, input_size=(256, 192)))
    assert "--set recipe.input_size=64x48" in caught.value.hint


def test_norms_are_synchronised_on_gpus_only(dataset, tmp_path):
    with pytest.raises(UserError, match="between GPUs only"):
        run(dataset, tmp_path, sync_norms=True)


def test_a_run_counts_steps_where_its_recipe_does(dataset, tmp_path):
    result, network = run(dataset, tmp_path, recipe=Recipe(epochs=99, steps=4, batch=3, lr=1e-3, milestones=(2,)))
    assert result.steps == 4 and network.seen == [(0, 0), (0, 1), (0, 2), (1, 3)]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["lr"] for line in lines] == pytest.approx([1e-4, 1e-4])
