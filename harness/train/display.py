"""What a person sees of a training run: a live line on a terminal, one line an epoch elsewhere, always on stderr."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["Display"]


class Display:
    """Shows epoch, loss, learning rate, images per second and the time left. Used with `with`."""

    def __init__(self, title: str, epochs: int, steps: int, *, done: int = 0, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet)
        self._epochs = epochs
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=steps, completed=done, text="")

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step(self, epoch: int, loss: float, rate: float, speed: float) -> None:
        """One step is done; `speed` in images per second."""
        self._bar.update(self._task, advance=1, text=self._text(epoch, loss, rate, speed))

    def epoch(self, epoch: int, loss: float, rate: float, speed: float, scores: str = "") -> None:
        """One epoch is done; `scores` is what validation gave, as text."""
        if scores or not self._console.is_terminal:
            left = self._bar.tasks[0].time_remaining
            ends = f", {_duration(left)} left" if left else ""
            self._console.print(f"{self._text(epoch, loss, rate, speed)}{ends} {scores}".rstrip(), highlight=False)

    def _text(self, epoch: int, loss: float, rate: float, speed: float) -> str:
        return f"epoch {epoch + 1}/{self._epochs} loss {loss:.4g} lr {rate:.2g} {speed:.0f} images/s"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(1, minutes)} min"
