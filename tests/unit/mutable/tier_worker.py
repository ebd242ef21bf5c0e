"""Another process at the same mutable tier. Usage: tier_worker.py TASK DIRECTORY [NUMBER...]; acknowledges on stdout."""

import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from latewood.errors import ConflictError
from latewood.immutable import Scrubs
from latewood.mutable import LmdbTier
from latewood.storage import open_storage
from latewood.testing.recent_events import NOW, SETTINGS, append_ids, make_events, scanned
from latewood.users import user_keys


def say(*words: object) -> None:
    print(*words, flush=True)


def append(tier: LmdbTier, user: int, count: int) -> Iterator[None]:
    """Two events of the user and one of user 0 at a time, acknowledged with the number."""
    for i in range(count):
        tier.append(make_events([user, user, 0], [i, -i, user], item=[i, i, i]), now=NOW)
        say("appended", i)
        yield


def cut(tier: LmdbTier, count: int) -> Iterator[None]:
    """Appends, cuts, and evicts up to the cut before."""
    before = None
    for i in range(count):
        append_ids(tier, [f"cut-{i}"], make_events([99], [i]))
        watermark = tier.cut()
        if before is not None:
            tier.evict(before)
        before = watermark
        say("cut", i)
        yield


def grow(tier: LmdbTier, count: int) -> Iterator[None]:
    """Large appends."""
    for i in range(count):
        tier.append(make_events([1] * 5_000, [i] * 5_000), now=NOW)
        say("grown", i)
        yield


def load(tier: LmdbTier) -> Iterator[None]:
    """Begins a bulk load, and dies with it."""
    say("loading", tier.begin_load(NOW + 10, NOW + 20, "token", now=NOW))
    sys.stdin.readline()
    yield


class WaitingBook(Scrubs):
    """Dies before it writes a record, or just after."""

    after = False

    def write(self, number: int, scrub_ts: int, body: dict[str, Any]) -> None:
        if self.after:
            super().write(number, scrub_ts, body)
        say("scrubbing", scrub_ts)
        sys.stdin.readline()


def scrub(tier: LmdbTier, after: int) -> Iterator[None]:
    """Scrubs user 1, and dies with it: before its record is written, or before it is known to be."""
    assert isinstance(tier._book, WaitingBook)
    tier._book.after = bool(after)
    tier.scrub(tier._book.body(user_keys(pa.array([1]))), now=NOW)
    yield


def book_of(directory: str) -> WaitingBook:
    """The book of scrubs beside a tier."""
    return WaitingBook(open_storage(f"{directory}-book"), bytes(range(16)))


def main() -> None:
    task, directory, *numbers = sys.argv[1:]
    tier = LmdbTier(directory, pa.int64(), SETTINGS, scrubs=book_of(directory) if task == "scrub" else None)
    say("ready")
    sys.stdin.readline()
    tasks = {"append": append, "cut": cut, "grow": grow, "load": load, "scrub": scrub}
    for _ in tasks[task](tier, *map(int, numbers)):  # type: ignore[operator]
        try:
            scanned(tier, tier.state().floor)
        except ConflictError:  # evicted between the two
            say("evicted")
    if task != "load":
        tier.close()
    say("done")


if __name__ == "__main__":
    main()
