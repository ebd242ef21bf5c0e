"""How far work has got, for people: a bar for what takes longer than a moment, a line for what goes on for hours."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

MOMENT_S = 1.0  # work that ends sooner shows no bar
_EYE_S = 0.2  # nobody reads faster


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


class Line:
    """A line that is written over as the work goes on: on a terminal; in a file, a new line every `every_s` seconds.

    What else is printed meanwhile goes above it. Used as a context, it ends with the block, and the last line stays.
    """

    def __init__(self, console: Console, every_s: float) -> None:
        self._console, self._last = console, ""
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._every_s = _EYE_S if self._live is not None else every_s
        self._shown: float | None = None  # when

    def __enter__(self) -> "Line":
        self._shown = perf_counter()
        if self._live is not None and not self._console.quiet:
            self._live.start()
        return self

    def show(self, text: Callable[[], str], *, last: bool = False) -> None:
        """Show a text, if it is time; only then is it asked for. Args: last: in any case, and it stays."""
        now = perf_counter()
        if last:
            self._last = text()
        elif self._shown is None or now - self._shown >= self._every_s:
            self._shown = now
            if self._live is None:
                self._print(text())
            elif not self._console.quiet:
                self._live.update(Text(text(), no_wrap=True, overflow="ellipsis"), refresh=True)

    def __exit__(self, *_: object) -> None:
        if self._live is not None and self._live.is_started:
            self._live.stop()
        if self._last:
            self._print(self._last)

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
