"""Our matcher against pycocotools and xtcocotools, which are asked, not read."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.accuracy import judges
from harness.accuracy.ap import summarise
from harness.accuracy.evaluate import evaluate
from harness.accuracy.inputs import Detections, GroundTruth
from harness.accuracy.match import match
from harness.errors import JudgeDisagreement, MissingPackage
from harness.pose.skeletons import COCO, CROWDPOSE

PARTS = (("images", "id"), ("annotations", "image_id"))
SIGMAS = {"coco": COCO.sigmas, "crowdpose": CROWDPOSE.sigmas}


def _both(gt, results, evaluator="coco"):
    sigmas = SIGMAS[evaluator]
    truth = GroundTruth.from_coco(gt, num_joints=len(sigmas), evaluator=evaluator)
    found = Detections.from_results(results, truth)
    ours = summarise(match(truth, found, sigmas, evaluator=evaluator))
    return ours, judges.judge(truth, found, sigmas, evaluator=evaluator)


def _assert_equal(ours, theirs):
    assert list(ours) == list(theirs)
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=0, atol=1e-9, equal_nan=True)


@given(
    seed=st.integers(0, 10**6),
    boxes=st.booleans(),
    levels=st.sampled_from([0, 3]),
    copies=st.sampled_from([1, 9]),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_made_up_set_scores_as_in_pycocotools(made_up, jittered, seed, boxes, levels, copies):
    gt = made_up(8, seed)
    _assert_equal(*_both(gt, jittered(gt, seed, boxes=boxes, levels=levels, copies=copies)))


@given(seed=st.integers(0, 10**6), copies=st.sampled_from([1, 9]), boxes=st.booleans())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_made_up_set_scores_as_in_xtcocotools(made_up, jittered, seed, copies, boxes):
    pytest.importorskip("xtcocotools.cocoeval", exc_type=(ImportError, ValueError))
    gt = made_up(10, seed, 14)
    _assert_equal(*_both(gt, jittered(gt, seed, copies=copies, boxes=boxes, levels=4), "crowdpose"))


@pytest.mark.parametrize("options", [{}, {"boxes": True}, {"levels": 5}, {"copies": 30, "levels": 20}], ids=str)
def test_coco_photographs_score_as_in_pycocotools_to_the_last_bit(val188, jittered, options):
    ours, theirs = _both(val188, jittered(val188, 1, **options))
    assert dict(ours) == dict(theirs)
    assert 0.1 < ours["AP"] < 0.9


def test_crowdpose_val_scores_as_in_xtcocotools_with_its_crowd_ranges(crowdpose, jittered):
    pytest.importorskip("xtcocotools.cocoeval", exc_type=(ImportError, ValueError))
    ids = {p["id"] for p in crowdpose["images"][::6]}
    part = {key: [row for row in crowdpose[key] if row[name] in ids] for key, name in PARTS}
    part["categories"] = crowdpose["categories"]
    ours, theirs = _both(part, jittered(part, 1), "crowdpose")
    _assert_equal(ours, theirs)
    assert len({ours["AP_easy"], ours["AP_medium"], ours["AP_hard"]}) == 3


def test_a_box_in_the_first_result_moves_the_area_statistics_only(val188, jittered):
    plain, _ = _both(val188, jittered(val188, 3))
    results = [dict(r, bbox=[0, 0, 10, 10]) for r in jittered(val188, 3)]
    boxed, theirs = _both(val188, results)
    _assert_equal(boxed, theirs)
    same = ("AP", "AP50", "AP75", "AR", "AR50", "AR75")
    assert [plain[k] for k in same] == [boxed[k] for k in same]
    assert plain["APm"] != boxed["APm"]


def test_a_disagreement_names_the_statistic_and_both_figures(made_up, jittered, monkeypatch):
    gt = made_up()
    monkeypatch.setattr(judges, "judge", lambda *a, **k: dict.fromkeys(judges.STAT_NAMES["coco"], 0.123))
    with pytest.raises(JudgeDisagreement, match=r"is 0\.\d+ here and 0\.123 in pycocotools"):
        evaluate(gt, jittered(gt), bootstrap=0)


def test_very_many_results_are_judged_on_a_sample_of_images(made_up, jittered, monkeypatch):
    gt = made_up(20)
    results = jittered(gt)
    monkeypatch.setattr(judges, "MOST_DETECTIONS", len(results) // 2)
    verdict = evaluate(gt, results, bootstrap=0).verdict
    assert verdict.sampled
    assert 0 < verdict.detections <= len(results) // 2
    assert verdict.images < 20
    assert verdict.largest_difference <= judges.TOLERANCE


def test_a_judge_that_is_not_installed_is_named_with_its_install_line(made_up, jittered, monkeypatch):
    monkeypatch.setitem(sys.modules, "xtcocotools.coco", None)
    gt = made_up(joints=14)
    with pytest.raises(MissingPackage, match="xtcocotools") as caught:
        evaluate(gt, jittered(gt), evaluator="crowdpose", bootstrap=0)
    assert "--no-binary xtcocotools" in str(caught.value)


def test_annotations_numbered_from_zero_lose_nobody(made_up, jittered):
    gt = made_up()
    shifted = {**gt, "annotations": [{**a, "id": a["id"] - 1} for a in gt["annotations"]]}
    results = jittered(gt)
    a, b = evaluate(gt, results, bootstrap=0), evaluate(shifted, results, bootstrap=0)
    assert dict(a.stats) == pytest.approx(dict(b.stats), nan_ok=True)
    assert any("start at 0" in note for note in b.notes)


def test_the_judge_says_nothing_on_stdout(made_up, jittered, capsys):
    gt = made_up()
    evaluate(gt, jittered(gt), bootstrap=0)
    assert capsys.readouterr().out == ""
