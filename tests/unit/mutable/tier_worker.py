"""Another process at the same mutable tier. Usage: tier_worker.py TASK DIRECTORY [NUMBER...]; acknowledges on stdout."""

import sys
from collections.abc import Iterator

import pyarrow as pa

from latewood.errors import ConflictError
from latewood.mutable import LmdbTier
from latewood.testing.recent_events import NOW, SETTINGS, append_ids, make_events, scanned


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


def main() -> None:
    task, directory, *numbers = sys.argv[1:]
    tier = LmdbTier(directory, pa.int64(), SETTINGS)
    say("ready")
    sys.stdin.readline()
    for _ in {"append": append, "cut": cut, "grow": grow, "load": load}[task](tier, *map(int, numbers)):  # type: ignore[operator]
        try:
            scanned(tier, tier.state().floor)
        except ConflictError:  # evicted between the two
            say("evicted")
    if task != "load":
        tier.close()
    say("done")


if __name__ == "__main__":
    main()
