"""An iterator that works ahead in a thread, a bounded number of items of a bounded size.

The thread holds nothing of the iterator that is handed out, so that dropping that, however it happens, stops the
thread: by `close`, by garbage collection, or at exit. What goes wrong in the thread is raised to the consumer, in its
place.
"""

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, TypeVar

T = TypeVar("T")
_PATIENCE_S = 5.0


class Prefetch(Generic[T]):
    """The items of `source`, up to `depth` of them made ahead; depth 0 works without a thread.

    Args:
        size_of: what an item takes. Once those that are ready take `limit` or more, no other is made; so at least one is.
        idle: entered while the thread waits for room.
    """

    def __init__(
        self,
        source: Iterator[T],
        depth: int,
        size_of: Callable[[T], int] = lambda item: 0,
        limit: int = 1,
        idle: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._source = source
        self._shared: _Shared[T] | None = None
        if depth:
            self._shared = _Shared(depth, size_of, limit, idle)
            thread = threading.Thread(target=_work, args=(source, self._shared), name="latewood-prefetch", daemon=True)
            self._stop = weakref.finalize(self, _end, self._shared, thread)
            thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        return next(self._source) if self._shared is None else self._shared.get()

    def close(self) -> None:
        """Stop the thread and wait for it; it ends after the item that it is at."""
        if self._shared is not None:
            self._stop()


class _Shared(Generic[T]):
    """What the consumer and the thread both see."""

    def __init__(
        self, depth: int, size_of: Callable[[T], int], limit: int, idle: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._depth, self._size_of, self._limit, self._idle = depth, size_of, limit, idle
        self._size = 0  # of the items
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._ended: BaseException | None = None

    def get(self) -> T:
        with self._changed:
            while not self._items and self._ended is None and not self._stopped:
                self._changed.wait()
            if self._items and not self._stopped:
                item = self._items.popleft()
                self._size -= self._size_of(item)
                self._changed.notify_all()
                return item
            ended, self._ended = self._ended, StopIteration()  # an error is raised once; after it there is nothing
            raise ended if ended is not None and not self._stopped else StopIteration

    def put(self, item: T) -> bool:
        """Returns: whether to go on. Waits for room, so that no more than `depth` items are ever ready."""
        with self._changed:
            self._items.append(item)
            self._size += self._size_of(item)
            self._changed.notify_all()
            with self._idle():
                while (len(self._items) >= self._depth or self._size >= self._limit) and not self._stopped:
                    self._changed.wait()
            return not self._stopped

    def end(self, reason: BaseException) -> None:
        with self._changed:
            self._ended = reason
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._changed.notify_all()


def _work(source: Iterator[T], shared: "_Shared[T]") -> None:
    try:
        for item in source:
            if not shared.put(item):
                break
            del item  # not held while the next one is made: its buffers can be used again
        shared.end(StopIteration())
    except BaseException as error:
        shared.end(error)


def _end(shared: "_Shared[T]", thread: threading.Thread) -> None:
    shared.stop()
    if thread is not threading.current_thread():  # garbage is collected in any thread, this one too
        # Not for ever: the garbage may be collected by a thread that holds what this one waits for.
        thread.join(_PATIENCE_S)
