"""A forward pass that does not fit into memory is tried once more with half the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from harness.errors import MeasurementError, is_out_of_memory

__all__ = ["Sparing"]

Result = TypeVar("Result")


class Sparing:
    """Runs batches whole until one does not fit into memory; from then on in parts of half its size."""

    def __init__(self) -> None:
        self.most = 0  # rows of a part; 0: no limit

    def run(self, compute: Callable[[slice], Result], count: int) -> Iterator[tuple[slice, Result]]:
        """`compute(rows)` over `count` rows: (rows, result) of the whole batch, or of one part after the other.

        Raises MeasurementError when half a batch does not fit either.
        """
        start = 0
        while start < count:
            rows = slice(start, min(start + (self.most or count), count))
            try:
                result = compute(rows)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self._spare(error, rows.stop - rows.start)
                continue  # out of the handler, which keeps alive what the failed call had allocated
            yield rows, result
            start = rows.stop

    def _spare(self, error: Exception, count: int) -> None:
        if self.most or count == 1:
            words = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            raise MeasurementError(
                f"a batch of {count} does not fit into memory ({words})",
                expected="half a batch that fits where the whole one does not" if self.most else "",
                hint=f"--batch {count // 2}" if count > 1 else "a smaller input size, or a machine with more memory",
            ) from error
        self.most = -(-count // 2)
