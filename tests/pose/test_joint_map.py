"""Which joint of a network stands for which of a data set: said, never guessed."""

from __future__ import annotations

import pytest

from harness.errors import SuiteError
from harness.pose.joint_map import JointMap, joint_map
from harness.pose.skeletons import COCO, CROWDPOSE, MPII, SKELETONS


def test_equal_joint_sets_need_no_map():
    assert joint_map(COCO, COCO, None) is None


def test_different_joint_sets_are_refused_with_both_lists_and_the_option():
    with pytest.raises(SuiteError) as caught:
        joint_map(CROWDPOSE, COCO, None, "suite.yaml:3")
    text = str(caught.value)
    assert ", ".join(COCO.joints) in text and ", ".join(CROWDPOSE.joints) in text
    assert "joints: common" in text and "suite.yaml:3" in text


@pytest.mark.parametrize("data", [CROWDPOSE, MPII])
def test_common_joints_are_those_of_one_name_and_keep_the_order_of_the_data(data):
    chart = joint_map(data, COCO, "common")
    assert chart is not None and len(chart.pairs) == 12
    assert [data.joints[i] for i in chart.data_rows] == [COCO.joints[i] for i in chart.network_rows]
    assert sorted(chart.data_rows) == chart.data_rows.tolist()


def test_an_explicit_mapping_may_join_joints_of_different_names_and_leaves_the_others_out():
    chart = joint_map(CROWDPOSE, COCO, {"head": "nose", "left_hip": "left_hip"})
    assert chart is not None and chart.pairs == (("left_hip", "left_hip"), ("head", "nose"))
    written = chart.to_json()
    assert written["evaluated"] == ["left_hip", "head"]
    assert set(written["left_out"]) == set(CROWDPOSE.joints) - {"left_hip", "head"}
    assert written["sigmas"] == pytest.approx([0.107, 0.079])
    assert JointMap.from_json(CROWDPOSE, written) == chart


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"left_hipp": "left_hip"}, r"joint of the data set \(crowdpose\) 'left_hipp'.*\n.*left_hip"),
        ({"left_hip": "left_hipp"}, r"joint of the network \(coco\) 'left_hipp'"),
        ({}, "no joint is common"),
    ],
)
def test_unknown_joints_are_named_with_the_near_ones(asked, message):
    with pytest.raises(SuiteError, match=message):
        joint_map(CROWDPOSE, COCO, asked)


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
def test_a_part_of_a_joint_set_keeps_sides_constants_and_limbs_in_step(skeleton):
    part = skeleton.only([name for name in skeleton.joints if "knee" not in name])
    assert [dict(zip(skeleton.joints, skeleton.sigmas))[name] for name in part.joints] == list(part.sigmas)
    for a, b in part.flip_pairs:
        assert part.joints[a].partition("_")[2] == part.joints[b].partition("_")[2]
    whole = {tuple(skeleton.joints[j] for j in limb) for limb in skeleton.limbs}
    assert {tuple(part.joints[j] for j in limb) for limb in part.limbs} == {
        limb for limb in whole if not any("knee" in name for name in limb)
    }
    assert {part.joints[j] for j in part.upper} == {skeleton.joints[j] for j in skeleton.upper}
