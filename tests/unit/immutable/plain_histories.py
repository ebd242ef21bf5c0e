"""Generations written straight from plain rows, and what a request must see of them, computed row by row."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from latewood.columns import Column
from latewood.events import NEVER
from latewood.immutable.manifest import NO_FILE, Generation, ShardFile
from latewood.immutable.reader import GenerationReader
from latewood.schema import Schema
from latewood.storage import Storage, keys, open_storage
from latewood.stripes import ShardWriter, UserRun, columns_of, identities
from latewood.users import UserKeys, shard_of, user_keys

EPOCH = bytes(range(16))
SCHEMA = Schema(user_id=pa.int64(), traits=pa.schema([("item", pa.int64()), ("like", pa.bool_())]))
names = itertools.count()

Row = tuple[int, int, int]  # event_ts, ingest_ts, ordinal


@dataclass
class Histories:
    """Rows of each user, sorted, and the generation that holds those below its watermark."""

    rows: dict[int, list[Row]]
    reader: GenerationReader
    storage: Storage
    superseded: dict[int, list[int]] = field(default_factory=dict)  # of some users: when, row by row

    def seen(self, user: int, end_ts: int, watermark: int, tie: tuple[int, int] | None = None) -> list[int]:
        """The row numbers that R2 makes visible, one by one."""
        rows = zip(self.rows.get(user, []), self.superseded_at(user), strict=True)
        return [
            number
            for number, ((event_ts, ingest_ts, ordinal), superseded_at) in enumerate(rows)
            if (event_ts < end_ts or (event_ts == end_ts and tie is not None and (ingest_ts, ordinal) < tie))
            and ingest_ts < watermark <= superseded_at
        ]

    def superseded_at(self, user: int) -> list[int]:
        return self.superseded.get(user) or [NEVER] * len(self.rows.get(user, []))

    def checksum(self, user: int, numbers: Sequence[int]) -> int:
        rows = np.array([self.rows[user][number] for number in numbers], np.int64).reshape(-1, 3)
        key = user_keys(pa.array([user] * len(rows), pa.int64()))
        with np.errstate(over="ignore"):
            return int(identities(key, *rows.T).sum(dtype=np.uint64))


def keys_of(users: Sequence[int]) -> UserKeys:
    return user_keys(pa.array(users, pa.int64()))


def write_generation(
    rows: dict[int, list[Row]],
    *,
    watermark: int,
    shards: int = 3,
    storage: Storage | None = None,
    superseded: dict[int, list[int]] | None = None,
    **kept: Any,
) -> Histories:
    """Write the rows as a generation, as compaction would. `kept`: what its manifest says of retention."""
    storage = storage or open_storage(f"memory://reader-{next(names)}")
    users = np.array(sorted(user for user in rows if rows[user]), np.int64)
    user_key = keys_of(users.tolist())
    order = np.lexsort((user_key.check, user_key.hash))
    files = [NO_FILE] * shards
    for number in np.unique(shard_of(user_key.hash, shards)).tolist():
        mine = users[order][shard_of(user_key.hash[order], shards) == number]
        key = keys.shard(1, "test", number)
        with storage.writer(key) as sink:
            writer = ShardWriter(sink, columns_of(SCHEMA), epoch=EPOCH, generation=1, shard=number)
            writer.add(_run(mine, rows, superseded or {}))
            summary = writer.finish()
        files[number] = ShardFile(key, summary.size_bytes, summary.event_count, summary.user_count, summary.footer_xxh3)
    generation = Generation(1, watermark, "test", EPOCH, SCHEMA, tuple(files), **kept)
    return Histories(rows, GenerationReader(storage, generation), storage, superseded or {})


def _run(users: np.ndarray, rows: dict[int, list[Row]], superseded: dict[int, list[int]]) -> UserRun:
    offsets = np.concatenate([[0], np.cumsum([len(rows[user]) for user in users.tolist()])])
    event_ts, ingest_ts, ordinal = np.array([row for user in users.tolist() for row in rows[user]], np.int64).T.copy()
    item = event_ts * 3 + ordinal
    columns = [Column(event_ts), Column(ingest_ts - event_ts), Column(ordinal.astype(np.int32)), Column(item)]
    like_mask = item % 5 == 0
    columns.append(Column((item % 2 == 0) & ~like_mask, like_mask))
    at = np.array([t for user in users.tolist() for t in superseded.get(user) or [NEVER] * len(rows[user])], np.int64)
    columns.append(Column(np.where(at == NEVER, 0, at), at == NEVER))
    return UserRun(pa.array(users), keys_of(users.tolist()), offsets, columns)


def random_rows(
    rng: np.random.Generator, users: int, longest: int, *, span: int, late: float, ties: bool = True
) -> dict[int, list[Row]]:
    """Histories with ties, and a share of events that are learned of late (or before they happen)."""
    rows: dict[int, list[Row]] = {}
    for user in range(users):
        count = int(rng.integers(1, longest + 1))
        event_ts = rng.integers(0, span, count) if ties else rng.permutation(span)[:count]
        delay = np.where(rng.random(count) < late, rng.integers(-span // 4, span, count), rng.integers(0, 3, count))
        order = np.lexsort((event_ts + delay, event_ts))
        places: dict[tuple[int, int], itertools.count[int]] = {}
        rows[user] = [
            (ts, ts + d, next(places.setdefault((ts, d), itertools.count())))
            for ts, d in zip(event_ts[order].tolist(), delay[order].tolist(), strict=True)
        ]
    return rows


def random_versions(rng: np.random.Generator, rows: dict[int, list[Row]], share: float) -> dict[int, list[int]]:
    """When each row was superseded: some, and only after they were known."""
    return {
        user: [
            ingest_ts + int(rng.integers(0, 400)) if rng.random() < share else NEVER for _, ingest_ts, _ in rows[user]
        ]
        for user in rows
    }
