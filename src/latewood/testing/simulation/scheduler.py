"""Who runs: threads that pass one baton, so that of all interleavings a seed chooses one.

Real code runs in real threads, because it must run as it is. But only the thread with the baton runs; all others wait
for their turn. At every operation of a seam (storage, log, clock) the one who runs may have to pass the baton on, to
whom chance picks. What lies between two such operations is atomic here, as it is for other processes there.
"""

import threading
from collections.abc import Callable, Sequence

from latewood.testing.simulation.chance import Chance


class StoppedError(BaseException):
    """The case is over: another task failed. Not an Exception, so that nothing handles it."""


class StuckError(Exception):
    """Every task waits for something that only another could do."""


class Task:
    """A piece of work with a thread of its own."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self.name, self.work = name, work
        self.turn = threading.Lock()
        self.turn.acquire()
        self.ready: Callable[[], bool] | None = None  # what it waits for
        self.asleep = 0  # turns that it misses: a machine that is slow


class Scheduler:
    """Runs tasks by turns.

    Args: switching: how often the baton is passed on where it could be.
    """

    def __init__(self, chance: Chance, switching: float) -> None:
        self._chance, self._switching = chance, switching
        self._tasks: list[Task] = []
        self._current: Task | None = None
        self._over = threading.Lock()
        self.failure: BaseException | None = None

    def run(self, tasks: Sequence[Task]) -> None:
        """Run tasks to their end. Raises: the first error of any of them; the others are stopped."""
        if not tasks:
            return
        self._tasks = list(tasks)
        self._over.acquire()
        threads = [threading.Thread(target=self._run, args=(task,), name=task.name, daemon=True) for task in tasks]
        for thread in threads:
            thread.start()
        self._hand_to(self._choose())
        self._over.acquire()
        self._over.release()
        for thread in threads:
            thread.join()
        if self.failure is not None:
            raise self.failure

    def pause(self) -> None:
        """Let others run, maybe. Does nothing outside of tasks."""
        task = self._current
        if task is not None and self._chance.random() < self._switching:
            self._pass_on(task)

    def sleep(self, turns: int) -> None:
        """Miss some turns."""
        if (task := self._current) is not None:
            task.asleep = turns
            self._pass_on(task)

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Let others run until something is so. Raises: StuckError: nobody can run."""
        task = self._current
        while not ready():
            if task is None:
                raise StuckError("it is waited for what nobody will do")
            task.ready = ready
            self._pass_on(task)
            task.ready = None

    def _run(self, task: Task) -> None:
        task.turn.acquire()
        try:
            if self.failure is None:
                task.work()
        except StoppedError:
            pass
        except BaseException as error:
            self.failure = self.failure or error
        self._tasks.remove(task)
        if self._tasks:
            self._hand_to(self._tasks[0] if self.failure else self._choose())
        else:
            self._current = None
            self._over.release()

    def _pass_on(self, task: Task) -> None:
        chosen = self._choose()
        if chosen is not task:
            self._hand_to(chosen)
            task.turn.acquire()
        if self.failure is not None:
            raise StoppedError

    def _hand_to(self, task: Task) -> None:
        self._current = task
        task.turn.release()

    def _choose(self) -> Task:
        able = [task for task in self._tasks if task.ready is None or task.ready()]
        if not able:
            self.failure = self.failure or StuckError(f"all wait: {', '.join(task.name for task in self._tasks)}")
            return self._tasks[0]
        awake = []
        for task in able:
            if task.asleep:
                task.asleep -= 1
            else:
                awake.append(task)
        return self._chance.among(awake or able)
