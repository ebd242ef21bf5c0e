"""A line for training scripts that says how far an epoch has got, and whether the trainer waits."""

from collections.abc import Iterator
from typing import Any, Protocol

from rich.console import Console

from latewood.batch import count_of
from latewood.loading.stats import LoaderStats
from latewood.progress import Line


class Progressing(Protocol):
    """A loader, or what stands in its place."""

    def __iter__(self) -> Iterator[Any]: ...

    def steps_left(self) -> int: ...

    def stats(self) -> LoaderStats: ...


class ProgressLine:
    """Iterates a loader and shows a line: `for batch in (line := ProgressLine(loader)): ...`.

    On a terminal the line is written over; in a file there is one every `every_s` seconds, and one at the end.

    Args: loader: a `Loader` or `DeviceLoader`. note: what the script adds; it may be set at every step. console: standard
        error unless given.
    """

    def __init__(
        self, loader: Progressing, note: str = "", *, every_s: float = 60.0, console: Console | None = None
    ) -> None:
        self.loader, self.note = loader, note
        self._every_s, self._console = every_s, Console(stderr=True) if console is None else console

    def __iter__(self) -> Iterator[Any]:
        total = 0
        with Line(self._console, self._every_s) as line:
            try:
                for batch in self.loader:
                    total = total or 1 + self.loader.steps_left()  # asked once: by tokens, it walks through all of them
                    yield batch
                    line.show(lambda: self._text(total))  # noqa: B023 - asked for at once
            finally:
                line.show(lambda: self._text(total), last=True)

    def _text(self, total: int) -> str:
        stats = self.loader.stats()
        text = f"{stats.batches:,} of {count_of(total, 'batch')}"
        seconds = stats.first_s + stats.elapsed_s
        if stats.batches and seconds:
            left_s = seconds / stats.batches * (total - stats.batches)
            text += (
                f", {stats.examples / seconds:,.0f} examples/s, {_clock(left_s)} left, starved {stats.starvation:.1%}"
            )
        return f"{text}; {self.note}" if self.note else text


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
