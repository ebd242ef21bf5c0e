"""Suite `streams`: the last 1,000 likes of long histories, against decoding the histories whole.

Every user has a history of the longest length, of which 2 % are likes, scattered evenly: the 1,000 newest reach back over
some 50,000 events, and every stripe holds a few. So nothing can be passed over: what is measured is how little of a stripe
has to be touched for the five of its 256 events that are wanted. Beside it run the whole histories, and the whole
histories of which numpy then takes the same events; and a kind that is told by a code instead of a flag.

*The lines alone* is the limit: the cache lines that hold the wanted values, whose addresses are known beforehand, each
asked for ahead and touched, and nothing else. Whatever finds and gives the values has to read them.
"""

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import latewood as lw
from bench import sources
from bench.cache_lines import cache_lines_of, touch_cache_lines
from bench.digests import digest, require_equal
from bench.histories import LONGEST, TRAITS, Histories, Requests
from bench.report import Line, Results, at_least, speed_lines
from bench.session import Session
from bench.timing import Amount, Contender, interleave
from latewood.stripes import EVENT_TS
from latewood.users import user_keys

USERS, TINY_USERS = 256, 8
COUNT = 1_000
TARGET = at_least(10.0)  # times as fast as decoding whole histories
WHOLE, FILTERED, STREAM, LIMIT = "whole", "whole, then numpy", "stream", "the lines alone"
# what is shown: with times, which are sums of all steps before them, and without; and everything
SHOWN: dict[str, tuple[str, ...]] = {
    "3 traits": ("event_ts", "item_id", "like"),
    "item_id alone": ("item_id",),
    f"{len(TRAITS)} traits": tuple(TRAITS),
}
RARE_ACTION = 7  # of all events it is about as many as likes are


class Kind:
    """A kind of event: as a condition, and among the raw columns."""

    def __init__(self, name: str, trait: str, value: Any) -> None:
        self.name, self.trait, self.value = name, trait, value

    def stream(self) -> lw.Stream:
        return lw.last(COUNT, where=lw.col(self.trait) == self.value)

    def rows(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """The newest of this kind among one user's events."""
        return np.flatnonzero(values == self.value)[-COUNT:]


LIKES, ACTIONS = Kind("likes", "like", True), Kind("of one action", "action_type", RARE_ACTION)


def run(session: Session, folder: Path) -> Results:
    """Verify and measure every cell."""
    settings = session.settings
    users = settings.size(USERS, TINY_USERS)
    session.tell(f"streams: drawing and ingesting {users} histories of the longest length")
    longest = {} if settings.tiny else {"longest": LONGEST}
    histories = settings.draw(users, shortest=settings.size(LONGEST, 2_000), **longest)
    requests = Requests(np.arange(users), histories.lengths)
    lines, compared = list[Line](), 0
    with sources.write_store(histories, folder / "streams") as store:
        examples = sources.backfill(store, sources.requests_table(histories, requests))
        for kind in (LIKES, ACTIONS):
            for name, traits in SHOWN.items():
                if kind is ACTIONS and name != "3 traits":
                    continue
                session.tell(f"streams: {kind.name}, {name}")
                lines += _cell(store, examples, histories, kind, name, traits, settings.passes)
                compared += 2 * users
    return Results(lines, compared)


def _cell(
    store: lw.Store,
    examples: pa.Table,
    histories: Histories,
    kind: Kind,
    name: str,
    traits: tuple[str, ...],
    passes: int,
) -> list[Line]:
    whole = lw.Materializer(store, lw.Projection(traits=traits))
    both = lw.Materializer(store, lw.Projection(traits=tuple(dict.fromkeys([*traits, kind.trait]))))
    stream = lw.Materializer(store, lw.Projection(traits=traits, streams={kind.name: kind.stream()}))
    wanted = [
        histories.offsets[user] + kind.rows(histories.columns[kind.trait][slice(*histories.offsets[user : user + 2])])
        for user in range(histories.user_count)
    ]
    truth = digest(*_taken(histories.columns, wanted, traits), traits)
    batch = stream(examples)
    require_equal(digest(batch.offsets, batch.values, traits), truth, traits, f"the last {COUNT} {kind.name}")
    require_equal(digest(*_filter(both(examples), kind, traits), traits), truth, traits, "whole histories, filtered")
    amount = Amount(1, len(batch), int(batch.offsets[-1]))
    del batch
    contenders: dict[str, Contender] = {
        WHOLE: lambda: _amount(whole(examples)),
        FILTERED: lambda: _amount_of(_filter(both(examples), kind, traits)[0]),
        STREAM: lambda: _amount(stream(examples)),
    }
    assert contenders[STREAM]() == contenders[FILTERED]() == amount
    cache_lines = _cache_lines(store, histories, wanted, traits)

    def touch() -> Amount:
        touch_cache_lines(cache_lines)
        return amount

    contenders[LIMIT] = touch
    measured = interleave(contenders, passes)
    targets = {STREAM: TARGET} if (kind, name) == (LIKES, "3 traits") else {}
    return speed_lines(f"last {COUNT:,} {kind.name}, {name}", measured, "examples/s", WHOLE, targets=targets)


def _cache_lines(
    store: lw.Store, histories: Histories, wanted: list[NDArray[np.int64]], traits: tuple[str, ...]
) -> NDArray[np.uint64]:
    """The addresses of the lines that hold what is shown. Args: wanted: rows among all users' events."""
    reader = store.reader()
    located = reader.locate(user_keys(pa.array(np.arange(histories.user_count))))
    rows = [of - histories.offsets[user] for user, of in enumerate(wanted)]
    columns = [(EVENT_TS, 8) if name == "event_ts" else _stored(store, name) for name in traits]
    return cache_lines_of(reader, located, rows, columns)


def _stored(store: lw.Store, name: str) -> tuple[int, int]:
    trait = store.schema[name]
    column = store.reader().column(trait)
    assert column is not None
    return column, trait.dtype.itemsize


def _taken(
    columns: dict[str, NDArray[Any]], rows: list[NDArray[np.int64]], traits: Iterable[str]
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Some rows of some columns, as jagged columns."""
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(part) for part in rows], out=offsets[1:])
    flat = np.concatenate(rows)
    return offsets, {name: columns[name][flat] for name in traits}


def _filter(batch: lw.Batch, kind: Kind, traits: Iterable[str]) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """What a stream gives, of whole histories: as who has no streams would do it."""
    bounds, values = batch.offsets.tolist(), batch.values[kind.trait]
    rows = [start + kind.rows(values[start:stop]) for start, stop in pairwise(bounds)]
    return _taken(batch.values, rows, traits)


def _amount(batch: lw.Batch) -> Amount:
    return Amount(1, len(batch), int(batch.offsets[-1]))


def _amount_of(offsets: NDArray[np.int64]) -> Amount:
    return Amount(1, len(offsets) - 1, int(offsets[-1]))
