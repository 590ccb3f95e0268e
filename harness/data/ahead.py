"""Work on images in threads, in order and a little ahead: OpenCV and Pillow release the interpreter lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from math import inf
from typing import TypeVar

import cv2

__all__ = ["in_order"]

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_order(
    work: Callable[[Job], Result],
    jobs: Iterable[Job],
    workers: int,
    *,
    size: Callable[[Job], int] = lambda job: 1,
    room: float = inf,
) -> Generator[Result]:
    """Results in the order of the jobs, with at most two jobs per worker under way or waiting to be taken.

    `workers` 0 works in the caller's thread. What is ahead has a `size` of at most `room` in sum, so that a slow
    taker fills no memory; a single job may be larger. An exception of a job arrives in its place and ends the
    work; so does closing the iterator, which waits for the jobs that run and starts no other.
    """
    with _one_thread_per_call():
        if workers == 0:
            yield from map(work, jobs)
            return
        pool = ThreadPoolExecutor(workers, thread_name_prefix="images")
        pending: deque[tuple[Future[Result], int]] = deque()
        held = 0
        try:
            for job in jobs:
                weight = size(job)
                while pending and (len(pending) >= 2 * workers or held + weight > room):
                    future, gone = pending.popleft()
                    held -= gone
                    yield future.result()
                pending.append((pool.submit(work, job), weight))
                held += weight
            while pending:
                yield pending.popleft()[0].result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _one_thread_per_call() -> Iterator[None]:
    """OpenCV's own pool (one per process) would split each small warp and fight with workers and network."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
