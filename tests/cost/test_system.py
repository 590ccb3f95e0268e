"""The cost of a whole image: lines in the number of persons, and where they cross."""

from __future__ import annotations

import numpy as np
import pytest

from harness.cost.system import Crossing, Line, TimedLine, Timing, crossing, fit, measured_crossing, timing_of


@pytest.mark.parametrize(
    ("one_stage", "top_down", "expected"),
    [
        (Line(210, 3.5), Line(0, 7), Crossing("from", 60)),
        (Line(210, 3.5), Line(140, 7), Crossing("from", 20)),
        (Line(210, 3.5), Line(210, 7), Crossing("from", 0)),
        (Line(100, 3.5), Line(140, 7), Crossing("always")),
        (Line(100, 8), Line(140, 4), Crossing("up to", 10)),
        (Line(210, 8), Line(140, 4), Crossing("never")),
        (Line(210, 4), Line(140, 4), Crossing("never")),
        (Line(100, 4), Line(140, 4), Crossing("always")),
        (Line(140, 4), Line(140, 4), Crossing("never")),
    ],
)
def test_the_crossing_by_hand(one_stage, top_down, expected):
    assert crossing(one_stage, top_down) == expected


def test_both_systems_cost_the_same_at_the_crossing():
    rng = np.random.default_rng(0)
    for _ in range(200):
        a, b = Line(*rng.uniform(0, 10, 2)), Line(*rng.uniform(0, 10, 2))
        found = crossing(a, b)
        if found.persons is not None:
            assert a.at(found.persons) == pytest.approx(b.at(found.persons))
            more = a.at(found.persons + 1) - b.at(found.persons + 1)
            assert (more < 0) == (found.verdict == "from")


def calls(line, persons, noise=0.0, seed=0, share=None):
    rng = np.random.default_rng(seed)
    n = np.asarray(persons, dtype=float)
    share = np.ones(len(n)) if share is None else np.asarray(share)
    ms = line.fixed * share + line.each * n + noise * rng.standard_normal(len(n))
    return Timing(np.arange(len(n)), ms, np.stack([share, n], axis=1))


def test_the_line_through_exact_calls_is_found_whatever_an_outlier_does():
    timing = calls(Line(100, 5), [1, 2, 3, 4, 5, 6, 7] * 4)
    timing.ms[3] += 1000
    np.testing.assert_allclose(fit(timing, np.ones((1, 28))), [[100, 5]], atol=0.01)


def test_images_of_other_sizes_hold_the_fixed_part_in_proportion():
    share = np.tile([0.8, 1.0, 1.2], 8)
    timing = calls(Line(100, 5), np.tile([1, 4, 2, 6], 6), share=share)
    np.testing.assert_allclose(fit(timing, np.ones((1, 24))), [[100, 5]], atol=0.01)


def test_without_a_fixed_part_the_slope_is_the_median():
    ms = np.array([10.0, 11, 12, 13, 99])
    timing = Timing(np.arange(5), ms, np.stack([np.zeros(5), np.ones(5)], axis=1))
    np.testing.assert_allclose(fit(timing, np.ones((1, 5))), [[0, 12]], atol=0.01)
    weights = np.array([[1, 1, 1, 9, 1]])
    np.testing.assert_allclose(fit(timing, weights), [[0, 13]], atol=0.01)


def test_calls_that_cannot_tell_the_persons_apart_say_so():
    assert "same number of persons" in calls(Line(100, 5), [3] * 9).reason
    assert calls(Line(100, 5), [3, 4, 5]).reason == ""
    assert "2 timed calls" in calls(Line(100, 5), [3, 4]).reason


def test_the_interval_holds_the_crossing_and_narrows_with_less_noise():
    persons = np.tile(np.arange(1, 9), 5)
    truth = crossing(Line(100, 5), Line(40, 15))
    widths = []
    for noise in (4.0, 0.4):
        one = TimedLine(calls(Line(100, 5), persons, noise, 1))
        detector = TimedLine(calls(Line(40, 5), persons, noise, 2))
        pose = Timing(
            np.arange(40), 14 + noise * np.random.default_rng(3).standard_normal(40), np.tile([0.0, 1.0], (40, 1))
        )
        two = TimedLine(pose, added=(0, 1), detector=detector)
        found = measured_crossing(one, two, n=300)
        assert found["low"] <= truth.persons <= found["high"] and found["verdict"] == "from"
        assert found["shares"]["from"] == 1 and found["low"] <= found["persons"] <= found["high"]
        widths.append(found["high"] - found["low"])
    assert widths[1] < widths[0] / 3


def test_flips_and_crops_come_on_top_of_the_timed_forward():
    pose = Timing(np.arange(4), np.full(4, 10.0), np.tile([0.0, 1.0], (4, 1)))
    line = TimedLine(pose, factors=(1, 2), added=(0, 0.5)).line
    assert line.fixed == 0 and line.each == pytest.approx(20.5)


def test_a_crossing_that_never_comes_has_no_upper_end():
    persons = np.tile(np.arange(1, 9), 5)
    one = TimedLine(calls(Line(100, 20), persons))
    two = TimedLine(calls(Line(40, 15), persons))
    found = measured_crossing(one, two, n=50)
    assert found["verdict"] == "never" and found["low"] is found["high"] is None and found["shares"]["never"] == 1


def test_starved_calls_are_left_out():
    samples = [{"round": i, "wall_ms": 10.0 + i, "starved": i == 2} for i in range(5)]
    timing = timing_of(samples, [1] * 5, [1, 2, 3, 4, 5])
    assert timing.round.tolist() == [0, 1, 3, 4] and timing.design[:, 1].tolist() == [1, 2, 4, 5] and not timing.busy


def test_a_busy_machine_gives_a_line_with_a_warning_and_no_interval():
    persons = [1, 2, 3, 4, 5, 6]
    samples = [{"round": i, "wall_ms": 10.0 + 5 * n, "starved": True} for i, n in enumerate(persons)]
    busy = TimedLine(timing_of(samples, [1] * 6, persons))
    quiet = TimedLine(calls(Line(5, 9), persons))
    found = measured_crossing(busy, quiet, n=20)
    assert found["persons"] == pytest.approx(1.25, abs=0.01) and "busy" in found["warning"]
    assert found["low"] is found["high"] is None
    assert measured_crossing(quiet, quiet, n=20)["warning"] == ""
