"""What tests of the mutable tier share: events in one line, what comes back as tuples, and a tier to try.

Times here are small numbers; the tests bring their own clock.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from latewood.clock import EARLIEST_TS
from latewood.columns import Column, Lists
from latewood.events import Events, Suppressions
from latewood.immutable import Scrubs
from latewood.mutable import MutableTier, Places, Recent, Settings, Supersedes, hash_content, hash_ids
from latewood.storage import open_storage
from latewood.users import user_keys

NOW = 1_000_000
SETTINGS = Settings(max_ahead_us=10_000_000, id_window_us=1_000)
ALL_OF_TIME = 2**62


def make_events(
    users: list[Any], event_ts: list[int], ingest_ts: list[int] | None = None, item: list[Any] | None = None
) -> Events:
    """Events with one int64 trait, id 0, whose None are nulls; by default the row's number."""
    ids = pa.array(users, pa.string() if users and isinstance(users[0], str) else pa.int64())
    n = len(users)
    values = list(range(n)) if item is None else item
    mask = np.array([value is None for value in values], np.bool_)
    return Events(
        ids,
        user_keys(ids),
        np.array(event_ts, np.int64),
        np.zeros(n, np.int64) if ingest_ts is None else np.array(ingest_ts, np.int64),
        np.zeros(n, np.int32),
        {0: Column(np.array([value or 0 for value in values], np.int64), mask if mask.any() else None)},
    )


def plain(events: Events, trait: int) -> Column:
    """A trait that is no list."""
    column = events.traits[trait]
    assert isinstance(column, Column)
    return column


def lists_of(events: Events, trait: int) -> list[list[Any] | None]:
    """A trait of lists, as Python has them."""
    column = events.traits[trait]
    assert isinstance(column, Lists)
    nulls = np.zeros(len(events), np.bool_) if column.mask is None else column.mask
    parts = zip(column.starts.tolist(), column.lengths.tolist(), nulls.tolist(), strict=True)
    return [None if null else column.items[start : start + length].tolist() for start, length, null in parts]


def rows_of(events: Events) -> list[tuple[Any, ...]]:
    """(user, event_ts, ingest_ts, ordinal, item) per event."""
    items: list[Any] = [None] * len(events)
    if 0 in events.traits:
        values, mask = plain(events, 0)
        items = [None if mask is not None and mask[i] else int(values[i]) for i in range(len(events))]
    times = (events.event_ts.tolist(), events.ingest_ts.tolist(), events.ordinal.tolist())
    return list(zip(events.user_ids.to_pylist(), *times, items, strict=True))


def histories(recent: Recent) -> list[list[tuple[Any, ...]]]:
    """The rows of each request."""
    rows = rows_of(recent.events)
    return [rows[a:b] for a, b in zip(recent.offsets[:-1], recent.offsets[1:], strict=True)]


def recent_of(
    tier: MutableTier, users: list[Any], end_ts: int = ALL_OF_TIME, **options: Any
) -> list[list[tuple[Any, ...]]]:
    """Each user's recent events before `end_ts`."""
    keys = user_keys(pa.array(users, pa.string() if users and isinstance(users[0], str) else pa.int64()))
    options.setdefault("min_ingest", EARLIEST_TS)
    return histories(tier.recent(keys, end_ts=np.full(len(users), end_ts), **options))


def scanned(tier: MutableTier, start: int = EARLIEST_TS, end: int = ALL_OF_TIME) -> list[tuple[Any, ...]]:
    """The rows of a scan."""
    return [row for run in tier.scan(start, end) for row in rows_of(run)]


def append_ids(
    tier: MutableTier,
    ids: list[Any] | None,
    events: Events,
    supersedes: Supersedes | None = None,
    now: int = NOW,
    **options: Any,
) -> Any:
    """Append events with event ids, or versions of earlier ones."""
    if ids is not None:
        options |= {"ids": hash_ids(pa.array(ids)), "content": hash_content(events, supersedes)}
    return tier.append(events, supersedes=supersedes, now=now, **options)


def of_ids(targets: list[Any], deletions: list[bool] | None = None) -> Supersedes:
    """Which event id each row supersedes, None where nothing; by default none is a deletion."""
    chosen = np.array([target is not None for target in targets])
    return Supersedes(chosen, np.array(deletions or [False] * len(targets)), ids=hash_ids(pa.array(targets)))


def of_places(targets: Sequence[tuple[int, int, int] | None], deletions: list[bool] | None = None) -> Supersedes:
    """Likewise by place: (event_ts, ingest_ts, ordinal)."""
    chosen = np.array([target is not None for target in targets])
    event_ts, ingest_ts, ordinal = np.array([target or (0, 0, 0) for target in targets], np.int64).T
    places = Places(event_ts, ingest_ts, ordinal.astype(np.int32))
    return Supersedes(chosen, np.array(deletions or [False] * len(targets)), places=places)


def deletions_of(users: list[Any]) -> Events:
    """The rows of deletions: they say nothing but whose event goes."""
    return make_events(users, [0] * len(users), item=[None] * len(users))


def places_of(suppressions: Suppressions) -> list[tuple[int, ...]]:
    """(event_ts, ingest_ts, ordinal, at) per place."""
    columns = suppressions.event_ts, suppressions.ingest_ts, suppressions.ordinal, suppressions.at
    return list(zip(*(column.tolist() for column in columns), strict=True))


def suppressed_of(
    tier: MutableTier, users: list[Any], end_ts: int = ALL_OF_TIME, **options: Any
) -> list[list[tuple[int, ...]]]:
    """The suppressed places of each user's request."""
    keys = user_keys(pa.array(users, pa.string() if users and isinstance(users[0], str) else pa.int64()))
    recent = tier.recent(keys, end_ts=np.full(len(users), end_ts), **options)
    rows, offsets = places_of(recent.suppressed), recent.suppressed_offsets
    assert recent.suppressed.keys.hash.tolist() == np.repeat(keys.hash, np.diff(offsets)).tolist()
    return [rows[a:b] for a, b in pairwise(offsets)]


class TierTests:
    """Subclass it, and say how a tier is opened."""

    def open_tier(
        self, path: Path, user_type: pa.DataType, settings: Settings, scrubs: Scrubs | None = None
    ) -> MutableTier:
        raise NotImplementedError

    @pytest.fixture
    def tier(self, tmp_path: Path) -> Any:
        tier = self.open_tier(tmp_path / "mutable", pa.int64(), SETTINGS)
        yield tier
        tier.close()

    @pytest.fixture
    def text_tier(self, tmp_path: Path) -> Any:
        tier = self.open_tier(tmp_path / "text", pa.string(), SETTINGS)
        yield tier
        tier.close()

    @pytest.fixture
    def book(self, tmp_path: Path) -> Scrubs:
        return Scrubs(open_storage(str(tmp_path / "book")), bytes(range(16)))

    @pytest.fixture
    def forgetful(self, tmp_path: Path, book: Scrubs) -> Any:
        """A tier with a book of scrubs."""
        tier = self.open_tier(tmp_path / "forgetful", pa.int64(), SETTINGS, book)
        yield tier
        tier.close()
