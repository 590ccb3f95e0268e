"""Work in threads, ahead and in order: how much is ahead, what an error leaves, what an end leaves."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import cv2
import pytest

from harness.data.ahead import in_order


def own_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("images")]


@pytest.mark.parametrize("workers", [0, 1, 3, 16])
def test_results_come_in_the_order_of_the_jobs_whoever_is_ready_first(workers):
    def work(n: int) -> int:
        time.sleep(0.004 * (n % 3 == 0))
        return n * n

    assert list(in_order(work, range(40), workers)) == [n * n for n in range(40)]
    assert own_threads() == []


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_slow_taker_finds_no_more_than_two_jobs_a_worker_ahead(workers):
    started: list[int] = []
    with closing(in_order(lambda n: started.append(n) or n, range(100), workers)) as results:
        for taken in results:
            time.sleep(0.002)
            assert len(started) - (taken + 1) <= 2 * workers
            if taken == 20:
                break
    assert len(started) < 21 + 2 * workers + 1


def test_sizes_ahead_stay_within_the_room_and_a_job_that_is_larger_runs_alone():
    sizes = [3, 3, 3, 50, 3, 3, 1, 1, 1, 1, 1, 1, 8, 9]
    started: list[int] = []
    with closing(in_order(started.append, range(len(sizes)), 4, size=sizes.__getitem__, room=10)) as results:
        for taken, _ in enumerate(results):
            time.sleep(0.002)
            ahead = [sizes[n] for n in started if n > taken]
            assert sum(ahead) <= 10 or len(ahead) == 1
    assert sorted(started) == list(range(len(sizes)))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_arrives_in_its_place_and_ends_the_work(workers):
    started: list[int] = []

    def work(n: int) -> int:
        started.append(n)
        if n == 5:
            raise ValueError("five")
        return n

    got: list[int] = []
    with pytest.raises(ValueError, match="five"):
        for result in in_order(work, range(1000), workers):
            got.append(result)
    assert got == [0, 1, 2, 3, 4] and len(started) <= 6 + 2 * workers
    assert own_threads() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_taker_leaves_no_thread_and_opencvs_setting(error):
    before, started = cv2.getNumThreads(), []

    def taker() -> None:
        with closing(in_order(lambda n: started.append(n) or time.sleep(0.01), range(1000), 3)) as results:
            for _ in results:
                assert cv2.getNumThreads() == 1
                raise error

    with pytest.raises(error) as kept:  # the traceback, which holds the frames, is still here
        taker()
    assert kept.tb is not None and own_threads() == [] and cv2.getNumThreads() == before and len(started) <= 7
