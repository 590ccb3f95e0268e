"""Training inside a suite: once for each network and seed, resumed after a kill, refused where it cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from harness.data import synthetic
from harness.errors import SuiteError
from harness.records.store import Store
from harness.run.plan import plan_suite
from harness.run.rows import Options, Progress
from harness.run.run import run_suite
from harness.suite.cells import expand
from harness.suite.schema import load_suite
from harness.suite.sources import Sources
from harness.train import loop

SUITE = """name: trains
data: {name: other, root: people, annotations: annotations/person_keypoints_val2017.json, images: val2017}
measure: {accuracy: {bootstrap: 20, judge: false}, cost: true}
train:
  recipe: quick
  epochs: 1
  data: {root: people, annotations: annotations/person_keypoints_val2017.json, images: val2017}
seeds: [0, 1]
design: one_factor
methods:
  - {variant: simplebaseline_tiny, sweep: {decoder: [quarter, argmax]}}
"""


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("people")
    synthetic.write(root, images=6, seed=3)
    return root


@pytest.fixture
def steps(monkeypatch) -> list[tuple[int, int]]:
    """(seed, step) of every optimiser step that was taken."""
    taken: list[tuple[int, int]] = []
    step = loop._Run.step

    def counted(self, number, *rest):
        taken.append((self.seed, number))
        return step(self, number, *rest)

    monkeypatch.setattr(loop._Run, "step", counted)
    return taken


@pytest.fixture
def run(tmp_path, people):
    """run(*assignments, store=, text=) -> the manifest."""

    def go(*assignments: str, store: str = "store", text: str = SUITE, **options):
        path = tmp_path / "suite.yaml"
        path.write_text(text)
        suite, marked = load_suite(path, assignments)
        sources = Sources({"people": people})
        return run_suite(suite, Store(tmp_path / store), sources, Options(workers=0, **options), Progress(), marked)

    return go


def weights_of(folder: Path) -> dict[str, bytes]:
    """Tensors of the trained networks by folder; the metadata holds a command line, which differs."""
    found = {}
    for file in folder.glob("trained/*/*.safetensors"):
        with safe_open(file, "pt") as content:
            found[file.parent.name] = b"".join(content.get_tensor(k).numpy().tobytes() for k in sorted(content.keys()))
    return found


def test_each_seed_is_trained_once_and_cells_of_one_network_share_it(run, steps, tmp_path):
    manifest = run()
    assert [row["cell"]["seed"] for row in manifest["rows"]] == [0, 0, 1, 1]
    assert all("accuracy" in row["records"] and not row["reasons"] for row in manifest["rows"])
    assert {seed for seed, _ in steps} == {0, 1} and len(steps) == len(set(steps))
    first, second = weights_of(tmp_path / "store").values()
    assert first != second
    assert not list((tmp_path / "store").glob("trained/*/state/*"))
    steps.clear()
    again = run()
    assert steps == [] and again["rows"] == manifest["rows"] and again["effects"] == manifest["effects"]


def test_the_effects_over_images_and_seeds_are_a_record_of_the_run(run, tmp_path):
    manifest = run()
    record = Store(tmp_path / "store").by_id("effects", manifest["effects"])
    (line,) = record.result["lines"]
    base, changed = line["ablation"]["settings"]
    assert base["levels"] == {"decoder": "quarter"} and base["seeds"] == [0, 1] and base["difference"] is None
    assert changed["changed"] == ["decoder"] and changed["difference"]["p_holm"] is not None
    ids = [cell["accuracy"] for cell in record.key["lines"][0]["cells"]]
    assert sorted(ids) == sorted(row["records"]["accuracy"] for row in manifest["rows"])


def test_the_seed_draws_the_first_weights_too(run, tmp_path, monkeypatch):
    firsts = {}
    start = loop._Run.start

    def watched(self, resume):
        firsts[self.seed] = self.network.final_layer.weight.detach().numpy().copy()
        return start(self, resume)

    monkeypatch.setattr(loop._Run, "start", watched)
    run()
    assert (firsts[0] != firsts[1]).any()


def test_a_killed_training_goes_on_where_it_stopped_and_ends_the_same(run, steps, tmp_path, monkeypatch):
    short = ("train.epochs=3", "seeds=[0]")
    run(*short, store="undisturbed")
    total = len(steps)
    steps.clear()
    counted = loop._Run.step

    def killed(self, number, *rest):
        if number == total - 1:
            raise KeyboardInterrupt
        return counted(self, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "step", killed)
        with pytest.raises(KeyboardInterrupt):
            run(*short)
    assert weights_of(tmp_path / "store") == {} and 0 < len(steps) < total
    steps.clear()
    run(*short)
    assert 0 < len(steps) < total
    assert weights_of(tmp_path / "store") == weights_of(tmp_path / "undisturbed")


def test_another_recipe_length_or_training_set_is_another_training(run, steps, tmp_path):
    for assignments in ((), ("train.epochs=2",), ("train.limit=3",)):
        run("seeds=[0]", *assignments)
    assert len(weights_of(tmp_path / "store")) == 3


def test_a_training_that_fails_is_a_reason_in_its_cells_and_the_others_go_on(run, monkeypatch):
    step = loop._Run.step

    def fails(self, number, *rest):
        if self.seed == 0:
            raise RuntimeError("out of memory")
        return step(self, number, *rest)

    monkeypatch.setattr(loop._Run, "step", fails)
    rows = run()["rows"]
    assert ["out of memory" in row["reasons"].get("accuracy", "") for row in rows] == [True, True, False, False]
    assert all("accuracy" in row["records"] for row in rows[2:])


def test_a_plan_trains_nothing_and_says_what_is_not_trained_yet(tmp_path, people, steps):
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE)
    suite, marked = load_suite(path)
    plan = plan_suite(suite, Store(tmp_path / "store"), Sources({"people": people}), marked)
    assert steps == [] and all("after its training" in cell.state["accuracy"] for cell in plan.cells)


def test_without_training_data_a_row_says_what_to_give(run):
    (row, *_) = run(text=SUITE.replace("data: {root: people", "data: {root: nowhere"))["rows"]
    assert "--data nowhere=PATH" in row["reasons"]["accuracy"] and "cost" in row["records"]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.recipe=quik", r"suite.yaml:5: unknown recipe of simplebaseline_tiny 'quik'[\s\S]*did you mean quick"),
        ("train.recipe=", r"train.recipe: "),
        ("train.precision=float8", r"suite.yaml:4: train.precision"),
        ("train.epochs=0", r"suite.yaml:6: train.epochs"),
        ("train.data.annotation=x", r"unknown key 'annotation'"),
        ("seeds=[0, 0]", r"suite.yaml:8: seeds \[0, 0\]"),
        ("seeds=[]", r"suite.yaml:8: seeds"),
        ("train=null", r"suite.yaml:8: 2 seeds, but nothing is trained"),
        ("methods.0={variant: onnx}", r"onnx has no training recipe"),
    ],
)
def test_a_training_that_cannot_be_is_refused_before_anything_runs(tmp_path, assignment, message):
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE)
    with pytest.raises(SuiteError, match=message):
        suite, marked = load_suite(path, [assignment])
        expand(suite, marked)


def test_a_recipe_must_be_named(tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE.replace("  recipe: quick\n", ""))
    with pytest.raises(SuiteError, match=r"suite.yaml:4: train.recipe: Field required"):
        load_suite(path)


def test_weights_for_a_suite_that_trains_are_refused(tmp_path, people):
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE)
    suite, marked = load_suite(path)
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"")
    with pytest.raises(SuiteError, match="this suite trains its networks"):
        Sources({"people": people}, {"simplebaseline_tiny": file}).check(expand(suite, marked))


BEFORE_AFTER = (
    SUITE.replace("  epochs: 1\n", "  from: quickstart\n")
    .replace("decoder: [quarter, argmax]", "train.epochs: [0, 1]")
    .replace("seeds: [0, 1]", "seeds: [0]")
)


def test_before_and_after_a_training_from_given_weights_are_paired(run, steps, tmp_path):
    manifest = run(text=BEFORE_AFTER)
    before, after = manifest["rows"]
    assert (before["cell"]["train"]["epochs"], after["cell"]["train"]["epochs"]) == (0, 1) and steps
    record = Store(tmp_path / "store").by_id("effects", manifest["effects"])
    base, changed = record.result["lines"][0]["ablation"]["settings"]
    assert base["levels"] == {"train.epochs": 0} and changed["difference"]["low"] is not None
    (file,) = (tmp_path / "store").glob("trained/*/*.safetensors")
    with safe_open(file, "pt") as content:
        assert content.metadata()["init"].startswith("simplebaseline_tiny.safetensors sha256:")


def test_a_training_may_set_fields_of_its_recipe(run, tmp_path):
    run("seeds=[0]", "train.set={lr: 1.0e-4, target.sigma: 2.5}")
    (file,) = (tmp_path / "store").glob("trained/*/*.safetensors")
    with safe_open(file, "pt") as content:
        recipe = json.loads(content.metadata()["recipe"])
    assert (recipe["lr"], recipe["target"]["sigma"]) == (1e-4, 2.5)


def test_the_weights_name_their_recipe_seed_and_data(run, tmp_path):
    run("seeds=[7]")
    (file,) = (tmp_path / "store").glob("trained/*/simplebaseline_tiny.safetensors")
    with safe_open(file, "pt") as content:
        facts = content.metadata()
    assert (facts["recipe_name"], facts["seed"], facts["data_name"]) == ("quick", "7", "val2017")
    assert json.loads(facts["recipe"])["epochs"] == 1
