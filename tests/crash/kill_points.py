"""Where a worker dies: after so many milliseconds, file system calls or lines of latewood within acts of one kind.

Milliseconds are counted by the parent, who sends the signal; they alone can hit a system call or a kernel halfway.
Calls and lines are counted in the worker, in any of its threads, and it kills itself by the same signal: so a death
lands between any two steps of the code, however fast they follow each other. Counting goes on into the next act of
the kind where one is over sooner.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import numpy as np

import latewood

SOURCE = str(Path(latewood.__file__).parent)
CALLS = frozenset(
    ["open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.scandir", "fcntl.flock"]
)
# In the worker's own words. Appending and compacting are what most of a store's life is.
ACTS = (
    *("open", "append", "append", "correct", "capture", "compact", "compact", "compact", "backfill", "load"),
    *("scrub", "scrub", "scrub", "alter", "pin", "rollback", "seal"),
)
_MS_MAX = 30

How = Literal["ms", "calls", "lines"]
Lengths = Mapping[tuple[str, str], int]  # of acts, in calls and in lines


@dataclass(frozen=True)
class KillPoint:
    """Die when `count` of `how` have passed in acts of the kind `act`, beginning with the one numbered `skip`."""

    act: str
    how: How
    count: int
    skip: int

    @classmethod
    def draw(cls, rng: np.random.Generator, lengths: Lengths, acts: tuple[str, ...] = ACTS) -> "KillPoint":
        """Anywhere in the act; or half of the time at its beginning, small counts being as likely as large ones."""
        how: How = rng.choice(["ms", "calls", "lines"])
        act = str(rng.choice(acts))
        most = lengths.get((act, how), _MS_MAX)
        anywhere = how == "ms" or rng.random() < 0.5
        count = int(rng.integers(0, most + 1)) if anywhere else int(np.exp(rng.random() * np.log(most + 1)))
        return cls(act, how, count, 0 if act == "open" else int(rng.integers(0, 4)))


class Fuse:
    """Burns while acts of its kind are under way, and kills the process at its end."""

    def __init__(self, point: KillPoint) -> None:
        self.point = point
        self._left, self._skip, self._lit = point.count, point.skip, False
        if point.how == "calls":
            sys.addaudithook(self._on_call)

    @contextmanager
    def burning(self, act: str) -> Iterator[None]:
        if act != self.point.act or self.point.how == "ms":
            yield
            return
        self._skip -= 1
        self._lit = self._skip < 0
        if self._lit and self.point.how == "lines":
            threading.settrace(self._on_frame)
            sys.settrace(self._on_frame)
        try:
            yield
        finally:
            self._lit = False
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]

    def _burn(self) -> None:
        self._left -= 1
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def _on_call(self, event: str, _: tuple[Any, ...]) -> None:
        if self._lit and event in CALLS:
            self._burn()

    def _on_frame(self, frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(SOURCE):
            return None
        return self._on_line

    def _on_line(self, frame: FrameType, event: str, _: Any) -> Any:
        if self._lit and event == "line":
            self._burn()
        return self._on_line


class Gauge(Fuse):
    """Burns in every act and kills nobody: tells how long acts are."""

    def __init__(self, how: How) -> None:
        super().__init__(KillPoint("", how, 0, 0))
        self.lengths: dict[tuple[str, str], int] = {}

    @contextmanager
    def burning(self, act: str) -> Iterator[None]:
        self.point, self._left, self._skip = KillPoint(act, self.point.how, 0, 0), 0, 0
        with super().burning(act):
            yield
        key = act, self.point.how
        self.lengths[key] = max(-self._left, self.lengths.get(key, 1))

    def _burn(self) -> None:
        self._left -= 1
