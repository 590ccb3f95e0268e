"""What a stage's results are said to depend on."""

import pytest

from harness import provenance
from harness.method import find_variant
from harness.run.rows import code_of


def _names(stage):
    return {str(file.relative_to(provenance.PROJECT / "harness")) for file in provenance.files_of(stage)}


@pytest.mark.parametrize(
    "stage, needed",
    [
        (
            "predict",
            {"passes/predict.py", "data/crops.py", "pose/decoders.py", "pose/skeletons.py", "data/normaliser.py"},
        ),
        (
            "score",
            {"passes/replay.py", "pose/nms.py", "accuracy/match.py", "accuracy/bootstrap.py", "pose/skeletons.py"},
        ),
        ("train", {"train/loop.py", "train/samples.py", "data/augment.py", "pose/targets.py", "pose/skeletons.py"}),
        ("effects", {"run/effects.py", "accuracy/bootstrap.py", "accuracy/ap.py"}),
        ("cost", {"cost/account.py", "cost/macs.py", "cost/witnesses.py", "cost/conventions.py"}),
        (
            "latency",
            {
                "run/timing.py",
                "cost/latency.py",
                "run/timed_calls.py",
                "data/crops.py",
                "pose/decoders.py",
                "passes/replay.py",
            },
        ),
    ],
)
def test_a_stage_depends_on_what_it_imports(stage, needed):
    assert needed <= _names(stage)


@pytest.mark.parametrize("stage", provenance.STAGES)
def test_no_stage_depends_on_what_only_shows_reads_or_writes(stage):
    found = _names(stage)
    assert not [name for name in found if name.startswith("cli/")]
    assert not found & {"records/store.py", "errors.py", "provenance.py", "suite/schema.py", "train/display.py"}


def test_a_change_in_scoring_does_not_repeat_predictions_or_times():
    for stage in ("predict", "latency", "train", "cost"):
        assert not {name for name in _names(stage) if name.startswith("accuracy/") or name == "passes/score.py"}


def test_a_method_counts_with_its_own_file_and_parts_alone():
    codes = {name: code_of("predict", find_variant(name)) for name in ("hrnet_w32", "hrnet_w48", "vitpose_b")}
    assert codes["hrnet_w32"] == codes["hrnet_w48"] != codes["vitpose_b"]


def test_comments_and_docstrings_are_not_part_of_the_fingerprint(tmp_path):
    file = tmp_path / "method.py"
    digests = []
    for text in ('"""One."""\nx = 1\n', '"""Two."""\n# why\nx = 1\n', "x = 2\n"):
        file.write_text(text)
        digests.append(provenance._tree_digest(str(file), len(digests)))
    assert digests[0] == digests[1] != digests[2]


def test_the_digest_of_a_file_is_that_of_its_bytes_and_follows_them(tmp_path):
    file = tmp_path / "f"
    file.write_bytes(b"abc")
    assert provenance.file_sha256(file) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    file.write_bytes(b"abcd")
    assert provenance.file_sha256(file) != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
