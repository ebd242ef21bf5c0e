"""Processes forked from one that has everything imported and compiled and no store open, and what they leave behind."""

import faulthandler
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

SILENCE_S = 120  # nothing takes so long but a hang


class _Forked:
    here = False


@dataclass
class Child:
    """A forked process and the pipe to it. What it says is a tuple; ("error", traceback, None) if it failed."""

    pid: int
    pipe: Connection

    @classmethod
    def fork(cls, work: Callable[[Connection], None]) -> "Child":
        mine, its = Pipe()
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            its.close()
            return cls(pid, mine)
        mine.close()
        _Forked.here = True
        watch()
        status = 1
        try:
            work(its)
            status = 0
        except BaseException:
            with suppress(OSError):
                its.send(("error", traceback.format_exc(), None))
        finally:
            os._exit(status)

    def wait(self) -> int:
        """Wait for its end: its exit status, or minus the signal that killed it."""
        self.pipe.close()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def watch() -> None:
    """In a forked process: show where every thread is, and end, if this is not called again for long."""
    if _Forked.here:  # the child of a process that is watched would wait for the watcher for ever
        faulthandler.dump_traceback_later(SILENCE_S, exit=True)


def open_in(folder: Path) -> list[str]:
    """Files below a folder that any process of this machine holds open, or maps, with its process."""
    place = str(folder.resolve())
    return [f"{process}: {name}" for process in _processes() for name in _open_files(process) if place in name]


def children() -> list[int]:
    """Processes whose parent is this one, the dead that nobody waited for among them."""
    found = []
    for process in _processes():
        with suppress(OSError):  # it has ended
            status = Path(f"/proc/{process}/stat").read_text()
            if int(status.rpartition(")")[2].split()[1]) == os.getpid():
                found.append(process)
    return found


def _processes() -> Iterator[int]:
    return (int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit())


def _open_files(process: int) -> list[str]:
    place, found = Path(f"/proc/{process}"), set[str]()
    with suppress(OSError):  # it has ended, or is another's
        for handle in (place / "fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                found.add(str(handle.readlink()))
        found |= {line.split(maxsplit=5)[-1] for line in (place / "maps").read_text().splitlines() if "/" in line}
    return sorted(found)
