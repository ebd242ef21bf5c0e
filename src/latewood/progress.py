"""A progress bar for what takes longer than a moment: on a terminal, and only once the work has gone on for a while."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

MOMENT_S = 1.0  # work that ends sooner shows no bar


class Bar:
    """One line that says how far the work has got. May be told from any thread."""

    def __init__(self, progress: Progress, what: str, total: int | None, announced: Console | None = None) -> None:
        self._progress, self._announced, self._phase = progress, announced, ""
        self._task = progress.add_task(what, total=total)
        self._announce(what)

    def advance(self, count: int = 1) -> None:
        self._progress.advance(self._task, count)

    def step(self, what: str) -> None:
        """Begin the next of the steps that make up the total."""
        self._progress.update(self._task, advance=1, description=what)
        self._announce(what)

    def update(self, done: int, total: int, what: str | None = None) -> None:
        """Say how much is done of how much, and of what if that has changed."""
        self._progress.update(self._task, completed=done, total=total, description=what)

    def _announce(self, phase: str) -> None:
        if self._announced is not None and phase != self._phase:
            self._announced.print(f"{phase} ...", highlight=False, markup=False)
        self._phase = phase


@contextmanager
def progress_bar(
    console: Console, what: str, total: int | None = None, after_s: float = MOMENT_S, *, announce: bool = False
) -> Iterator[Bar]:
    """A bar that appears after `after_s` seconds, where the console is a terminal, and is gone when the block ends.

    Args: announce: where it is none, such as a file, print a line at the start and at every new phase instead.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=console, transient=True)
    hidden = console.quiet or not console.is_terminal
    bar = Bar(progress, what, total, announced=console if hidden and announce else None)
    if hidden:
        yield bar
        return
    timer = threading.Timer(after_s, progress.start)
    timer.daemon = True
    timer.start()
    try:
        yield bar
    finally:
        timer.cancel()
        timer.join()  # it may be starting the bar at this very moment
        if progress.live.is_started:
            progress.stop()
