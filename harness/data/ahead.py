"""Work on images in threads, in order and a little ahead: OpenCV and Pillow release the interpreter lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import cv2

__all__ = ["in_order"]

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_order(work: Callable[[Job], Result], jobs: Iterable[Job], workers: int) -> Iterator[Result]:
    """Results in the order of the jobs, with at most two jobs per worker under way or waiting to be taken.

    `workers` 0 works in the caller's thread.
    """
    with _one_thread_per_call():
        if workers == 0:
            yield from map(work, jobs)
            return
        pool = ThreadPoolExecutor(workers, thread_name_prefix="images")
        pending: deque[Future[Result]] = deque()
        try:
            for job in jobs:
                pending.append(pool.submit(work, job))
                if len(pending) >= 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
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
