"""A progress bar for what takes longer than a moment: on a terminal, and only once the work has gone on for a while."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

MOMENT_S = 1.0  # work that ends sooner shows no bar


class Bar:
    """One line that says how far the work has got. May be told from any thread."""

    def __init__(self, progress: Progress, what: str, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task(what, total=total)

    def advance(self, count: int = 1) -> None:
        self._progress.advance(self._task, count)

    def step(self, what: str) -> None:
        """Begin the next of the steps that make up the total."""
        self._progress.update(self._task, advance=1, description=what)

    def update(self, done: int, total: int, what: str | None = None) -> None:
        """Say how much is done of how much, and of what if that has changed."""
        self._progress.update(self._task, completed=done, total=total, description=what)


@contextmanager
def progress_bar(console: Console, what: str, total: int | None = None, after_s: float = MOMENT_S) -> Iterator[Bar]:
    """A bar that appears after `after_s` seconds, where the console is a terminal, and is gone when the block ends."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=console, transient=True)
    bar = Bar(progress, what, total)
    if console.quiet or not console.is_terminal:
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
