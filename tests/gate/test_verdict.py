"""The gate's rules: what passes, what is a regression, what cannot be told."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.accuracy.ap import summarise
from harness.accuracy.match import THRESHOLDS, Matches
from harness.errors import DataError, UserError
from harness.gate.measure import Bench, add_runs, confirm
from harness.gate.report import headline, markdown, to_junit, wording
from harness.gate.runs import exit_code, judge
from harness.gate.snapshot import Accuracy, Cost, Row, Snapshot, Speed, load_snapshot, pack, read_snapshot, unpack
from harness.gate.verdict import Limits, Verdict, judge_ap, judge_cost, judge_speed

QUICK = Limits(resamples=200)
MACHINE = {"cpu": "A CPU", "cores": 2, "torch": "2.15"}


def matches(images: int = 400, seed: int = 0, lost: float = 0.0, persons: int = 2) -> Matches:
    """`persons` on each image, each with one pose; a share `lost` of the poses is wrong at every threshold."""
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(images), persons)
    oks = rng.uniform(0.4, 1.0, len(image))
    oks = np.where(np.random.default_rng(99).random(len(image)) < lost, 0.0, oks)
    status = np.repeat((oks[:, None] >= THRESHOLDS).astype(np.uint8)[:, None], 3, axis=1)
    positives = np.tile([[persons, 0, persons]], (images, 1))
    score = rng.random(len(image))
    order = np.argsort(-score, kind="stable")
    groups = ("all", "medium", "large")
    return Matches("coco", groups, np.arange(images), image[order], score[order], status[order], positives)


def ratios(centre: float, runs: int = 4, rounds: int = 60, seed: int = 0, noise: float = 0.02) -> list[list[float]]:
    rng = np.random.default_rng(seed)
    return [(centre * np.exp(noise * rng.normal(size=rounds))).tolist() for _ in range(runs)]


def row(label: str = "net", *, centre: float = 1.5, macs: int = 100, lost: float = 0.0, **more) -> Row:
    found = matches(lost=lost)
    values = {
        "label": label,
        "variant": label,
        "accuracy": Accuracy(
            context={"protocol": {"flip": True, "codec": "biased"}}, value=summarise(found)["AP"], matches=pack(found)
        ),
        "cost": Cost(context={"input_size": [128, 96]}, macs=macs, params=7),
        "speed": {
            "latency_b1": Speed(
                context={"threads": 1}, reference="ref", machine=MACHINE, median_ms=3.0,
                runs=tuple(map(tuple, ratios(centre))),
            )
        },
    }  # fmt: skip
    return Row(**(values | more))


def snapshot(*rows: Row) -> Snapshot:
    return Snapshot(suite="s", created="2026-01-01T00:00:00Z", revision="abc", command="paretopose", rows=rows)


# -- AP ------------------------------------------------------------------------------------------------------------


def test_equal_poses_differ_by_exactly_nothing_and_pass():
    found = judge_ap("net", matches(), matches(), QUICK)
    assert (found.verdict, found.difference, found.interval) == ("pass", 0.0, (0.0, 0.0))
    assert found.smallest_visible_change == QUICK.margin


def test_a_large_loss_is_a_regression_and_a_gain_passes():
    worse = judge_ap("net", matches(), matches(lost=0.1), QUICK)
    assert worse.verdict == "regression" and worse.interval[1] < 0
    assert worse.difference == pytest.approx(summarise(matches(lost=0.1))["AP"] - summarise(matches())["AP"])
    assert judge_ap("net", matches(lost=0.1), matches(), QUICK).verdict == "pass"


def test_two_networks_too_different_to_compare_are_inconclusive_with_the_loss_that_could_have_been_seen():
    found = judge_ap("net", matches(images=60, seed=1), matches(images=60, seed=2), QUICK)
    assert found.verdict == "inconclusive"
    assert found.smallest_visible_change > QUICK.margin


def test_a_certain_loss_within_the_margin_passes_with_a_note():
    found = judge_ap("net", matches(), matches(lost=0.02), Limits(margin=0.2, resamples=200))
    assert found.verdict == "pass" and "within the margin" in found.note


def test_few_images_are_judged_with_a_warning():
    assert "29 images" in judge_ap("net", matches(images=29), matches(images=29), QUICK).note


def test_other_images_or_persons_are_refused():
    with pytest.raises(DataError, match="different ground"):
        judge_ap("net", matches(images=50), matches(images=51), QUICK)
    with pytest.raises(DataError, match="persons"):
        judge_ap("net", matches(images=50), matches(images=50, persons=3), QUICK)


def test_ap_that_is_not_defined_is_no_pass():
    nobody = matches(images=40, persons=0)
    assert judge_ap("net", nobody, nobody, QUICK).verdict == "unmeasured"


def test_packed_matches_give_the_same_ap_and_stay_small():
    found = matches(images=2000)
    text = pack(found)
    assert summarise(unpack(text))["AP"] == summarise(found)["AP"]
    assert len(text) < 300_000
    with pytest.raises(UserError, match="cannot be read"):
        unpack(text[: len(text) // 2])


# -- cost and speed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("macs", "params", "verdict"), [(100, 7, "pass"), (101, 7, "regression"), (99, 7, "pass"), (100, 8, "regression")]
)
def test_cost_is_exact(macs, params, verdict):
    before = Cost(context={}, macs=100, params=7)
    assert judge_cost("net", before, Cost(context={}, macs=macs, params=params)).verdict == verdict


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.0, "pass"), (0.8, "pass"), (1.02, "pass"), (1.06, "inconclusive"), (1.2, "regression")]
)
def test_the_ratio_to_the_reference_decides_on_time(factor, verdict):
    found = judge_speed("net", ratios(1.5), ratios(1.5 * factor, seed=1), Limits(tolerance=0.05), drift=0.01)
    expected = ("inconclusive", "regression") if factor == 1.06 else (verdict,)
    assert found.verdict in expected
    assert found.difference == pytest.approx(factor - 1, abs=0.01)


def test_more_rounds_in_one_run_do_not_hide_the_error_between_runs():
    few, many = (judge_speed("n", ratios(1.5, 1, n), ratios(1.5, 1, n, seed=1)) for n in (60, 6000))
    assert many.smallest_visible_change > 0.8 * few.smallest_visible_change > 0.05


def test_runs_that_differ_widen_the_interval():
    calm = ratios(1.5)
    wild = [ratios(c, 1)[0] for c in (1.3, 1.5, 1.7, 1.4)]
    narrow, wide = judge_speed("n", calm, ratios(1.5, seed=1)), judge_speed("n", calm, wild)
    assert wide.smallest_visible_change > 2 * narrow.smallest_visible_change
    assert wide.verdict == "inconclusive"


def test_too_few_rounds_are_no_measurement():
    for runs in ([], [[]], [[1.5] * 9]):
        assert judge_speed("net", ratios(1.5), runs).verdict == "unmeasured"


def test_another_machine_is_compared_by_ratio_but_must_differ_more_to_fail():
    def verdict(factor: float, other: str) -> str:
        return judge_speed("n", ratios(1.5), ratios(1.5 * factor, seed=1), other_machine=other).verdict

    assert (verdict(1.0, ""), verdict(1.0, "cpu A -> B")) == ("pass", "inconclusive"), "ratios differ between machines"
    assert verdict(0.7, "cpu A -> B") == "pass"
    assert (verdict(1.15, ""), verdict(1.15, "cpu A -> B")) == ("regression", "inconclusive")
    assert verdict(1.6, "cpu A -> B") == "regression"


@settings(max_examples=30, deadline=None)
@given(st.floats(0.5, 2.0), st.floats(0.2, 5.0))
def test_a_machine_that_is_slower_at_everything_changes_no_verdict(factor, speed):
    """Ratios hold no milliseconds, so only their quotient counts."""
    a, b = ratios(1.5), ratios(1.5 * factor, seed=1)
    scaled = [[[speed * r for r in run] for run in side] for side in (a, b)]
    first, second = judge_speed("n", a, b), judge_speed("n", *scaled)
    assert first.verdict == second.verdict
    assert first.difference == pytest.approx(second.difference, abs=1e-9)


# -- whole runs ----------------------------------------------------------------------------------------------------


def reference() -> Row:
    return row("ref", speed={"latency_b1": row().speed["latency_b1"].model_copy(update={"runs": ()})})


def test_a_run_against_itself_passes_in_every_metric():
    run = snapshot(reference(), row())
    found = judge(run, run, QUICK)
    assert [(v.label, v.metric, v.verdict) for v in found] == [
        ("ref", "ap", "pass"),
        ("ref", "cost", "pass"),
        ("net", "ap", "pass"),
        ("net", "cost", "pass"),
        ("net", "latency_b1", "pass"),
        ("ref", "latency_b1", "pass"),
    ]
    assert exit_code(found) == 0


@pytest.mark.parametrize(
    ("faster", "verdict"),
    [(("a", "b"), "regression"), (("a",), "pass"), ((), "pass")],
)
def test_the_reference_became_slower_when_all_others_seem_faster(faster, verdict):
    before = snapshot(reference(), row("a"), row("b"))
    after = snapshot(reference(), *(row(name, centre=1.2 if name in faster else 1.5) for name in ("a", "b")))
    found = judge(before, after, QUICK)[-1]
    assert (found.label, found.verdict) == ("ref", verdict)


def test_with_one_other_network_nobody_can_tell_which_of_the_two_changed():
    found = judge(snapshot(reference(), row()), snapshot(reference(), row(centre=1.2)), QUICK)
    assert [v.verdict for v in found if v.metric == "latency_b1"] == ["pass", "inconclusive"]


def test_other_protocols_are_refused_with_every_differing_field():
    other = row()
    accuracy = other.accuracy.model_copy(update={"context": {"protocol": {"flip": False, "codec": "udp"}}})
    other = other.model_copy(
        update={"accuracy": accuracy, "cost": Cost(context={"input_size": [9, 9]}, macs=1, params=1)}
    )
    with pytest.raises(DataError) as caught:
        judge(snapshot(row()), snapshot(other), QUICK)
    for text in ("protocol.flip: True -> False", "protocol.codec: biased -> udp", "input_size: [128, 96] -> [9, 9]"):
        assert text in str(caught.value)


def test_what_the_candidate_lacks_is_never_a_pass():
    for candidate in (
        snapshot(),
        snapshot(row("else")),
        snapshot(row(accuracy=None, reasons={"accuracy": "no weights"})),
        snapshot(row(cost=None)),
        snapshot(row(speed={})),
    ):
        assert exit_code(judge(snapshot(row()), candidate, QUICK)) == 2
    assert exit_code([]) == 2
    lacking = judge(snapshot(row()), snapshot(row(accuracy=None, reasons={"accuracy": "no weights"})), QUICK)
    assert lacking[0].note == "no weights"


def test_a_candidate_whose_statistics_are_all_missing_could_not_be_measured():
    empty = Accuracy(context=row().accuracy.context, value=None, reason="no person with keypoints", matches=None)
    found = judge(snapshot(row()), snapshot(row(accuracy=empty)), QUICK)
    assert found[0].verdict == "unmeasured" and "no person" in found[0].note


def test_a_new_configuration_is_not_judged():
    found = judge(snapshot(row()), snapshot(row(), row("fresh")), QUICK)
    assert {v.verdict for v in found if v.label == "fresh"} == {"new"}
    assert (exit_code(found), exit_code(found, strict=True)) == (0, 4)


@pytest.mark.parametrize(
    ("seen", "plain", "strict"),
    [
        (["pass"], 0, 0),
        (["pass", "inconclusive"], 0, 4),
        (["pass", "unmeasured"], 2, 2),
        (["unmeasured", "regression"], 1, 1),
        (["new"], 2, 2),
    ],
)
def test_exit_codes(seen, plain, strict):
    found = [Verdict("ap", "net", v) for v in seen]
    assert (exit_code(found), exit_code(found, strict=True)) == (plain, strict)


def test_a_baseline_file_gives_back_what_was_recorded(tmp_path):
    taken = snapshot(row("ref"), row())
    taken.write(tmp_path / "b.json")
    assert load_snapshot(tmp_path / "b.json") == taken


def test_more_runs_of_the_timer_join_those_of_the_same_configuration():
    twice = add_runs(snapshot(reference(), row()), [snapshot(row(centre=1.7), row("else"))])
    assert [len(r.speed["latency_b1"].runs) for r in twice.rows] == [0, 8]
    assert twice.rows[1].speed["latency_b1"].runs[4:] == row(centre=1.7).speed["latency_b1"].runs


@pytest.mark.parametrize(
    ("change", "message"),
    [({"schema_version": 99}, "schema version 99"), ({"rows": 3}, "rows"), ({"surplus": 1}, "surplus")],
)
def test_a_baseline_of_another_schema_is_refused(change, message):
    content = json.loads(snapshot(row()).model_dump_json())
    with pytest.raises(UserError, match=message):
        read_snapshot({**content, **change}, "b.json")


@pytest.mark.parametrize("ratio", [0.0, -1.0, float("nan"), float("inf")])
def test_a_ratio_that_no_clock_gives_is_refused_with_its_place(ratio):
    content = snapshot(row()).model_dump(mode="json")
    content["rows"][0]["speed"]["latency_b1"]["runs"][1][3] = ratio
    with pytest.raises(UserError, match=r"rows\.0\.speed\.latency_b1\.runs\.1\.3"):
        read_snapshot(content, "b.json")


@pytest.mark.parametrize("content", [[], None, 3, {}, {"rows": []}])
def test_another_json_file_is_no_baseline(content):
    with pytest.raises(UserError, match="no baseline file"):
        read_snapshot(content, "b.json")


@pytest.mark.parametrize(
    "change",
    [
        {"evaluator": np.array("voc")},
        {"groups": np.array(["all"])},
        {"status": np.zeros(800, dtype=np.uint8)},
        {"image": np.full(800, 400)},
        {"image": np.full(800, -1)},
        {"score": np.zeros(799)},
    ],
)
def test_matches_that_do_not_fit_together_are_refused(change):
    with np.load(io.BytesIO(base64.b64decode(pack(matches())))) as archive:
        arrays = {name: archive[name] for name in archive.files} | change
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    with pytest.raises(UserError, match="cannot be read"):
        unpack(base64.b64encode(buffer.getvalue()).decode(), "net")


# -- a second look -------------------------------------------------------------------------------------------------


class Again(Bench):
    """A bench that measures `after` anew; it remembers which variants were asked for."""

    def measure(self, metrics, variants=()) -> Snapshot:
        self.manifest["asked"].append(set(variants))
        kept = [r for r in self.manifest["after"].rows if r.label == "ref" or not variants or r.variant in variants]
        return snapshot(*kept)


def test_a_reference_that_became_slower_is_measured_again_with_all_the_others():
    before = snapshot(reference(), row("a"), row("b"))
    after = snapshot(reference(), row("a", centre=1.2), row("b", centre=1.2))
    bench = Again({"after": after, "asked": []}, None, None, None)
    verdicts = confirm(judge(before, after, QUICK), before, bench, QUICK)
    (slower,) = [v for v in verdicts if v.verdict == "regression"]
    assert (slower.label, bench.manifest["asked"][-1]) == ("ref", set()) and "confirmed" in slower.note


def test_a_regression_that_cannot_be_measured_again_is_none_and_no_pass():
    before = snapshot(reference(), row("a"), row("b"))
    after, lost = snapshot(reference(), row("a", macs=101), row("b")), snapshot(reference(), row("b"))
    bench = Again({"after": lost, "asked": []}, None, None, None)
    verdicts = confirm(judge(before, after, QUICK), before, bench, QUICK)
    (found,) = [v for v in verdicts if (v.label, v.metric) == ("a", "cost")]
    assert found.verdict == "unmeasured" and exit_code([found]) == 2


# -- what is shown -------------------------------------------------------------------------------------------------


def test_the_summary_and_the_junit_file_say_the_same(tmp_path):
    import xml.etree.ElementTree as ET

    verdicts = judge(snapshot(row(), row("gone|<b>")), snapshot(row(lost=0.1, macs=101)), QUICK)
    text = markdown(verdicts, snapshot(), snapshot())
    assert headline(verdicts).startswith("2 regression, 3 could not measure")
    assert "gone\\|&lt;b>" in text and text.count("❌ regression") == 2
    suite = ET.fromstring(to_junit(verdicts, "s").partition("\n")[2])
    assert {k: suite.get(k) for k in ("tests", "failures", "errors")} == {"tests": "7", "failures": "2", "errors": "3"}
    assert len(suite.findall("testcase/failure")) == 2


def test_names_cannot_break_the_summary_or_the_junit_file():
    import xml.etree.ElementTree as ET

    name = "a\x1b[31m\x00 `b` *c* [l](u) \\| <i> ]]>\r\n# d"
    verdicts = [Verdict("ap", name, "regression", 0.5, 0.4, -0.1, note=name)]
    text = markdown(verdicts, snapshot(), snapshot().model_copy(update={"suite": name}))
    shown = "a?\\[31m? \\`b\\` \\*c\\* \\[l\\](u) \\\\\\| &lt;i> \\]\\]>  # d"
    assert text.count(shown) == 3 and len(text.splitlines()) == 7
    suite = ET.fromstring(to_junit(verdicts, name).partition("\n")[2])
    assert suite.find("testcase").get("classname").startswith("a?[31m? `b`")


def test_people_read_ap_on_the_scale_to_100_and_time_in_percent():
    ap = Verdict("ap", "n", "pass", 0.5, 0.49, -0.01, (-0.02, -0.001), 0.004)
    time = Verdict("latency_b1", "n", "pass", 1.5, 1.65, 0.1, (0.05, 0.15), 0.07)
    assert wording(ap) == ("50.00", "49.00", "-1.00", "-2.00 to -0.10", "0.40")
    assert wording(time)[2:] == ("+10.0 %", "+5.0 % to +15.0 %", "7.0 %")
