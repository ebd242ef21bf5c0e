"""Write: every shard of the next generation, each from the old shard's file and its new events, in bounded memory.

A shard is gone through in ranges of the user hash. For each: read the new events, arrange them, plan, and for every
slice of the plan decode the old tails, merge, and hand the run to the shard writer, which takes over carried stripes as
bytes. Shards are independent: each is written by one thread of a pool.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.columns import Column, portions
from latewood.compaction.merge import arrange, gather, merge_order
from latewood.compaction.plan import OldUsers, Plan, plan_users
from latewood.compaction.settings import Meter, Progress, Settings
from latewood.compaction.spill import Spill
from latewood.errors import CorruptionError
from latewood.events import Events, no_events
from latewood.immutable import Generation, ShardFile
from latewood.schema import Schema
from latewood.storage import Storage, keys
from latewood.stripes import (
    FIRST_TRAIT,
    Carried,
    Ranges,
    Shard,
    ShardWriter,
    Tables,
    UserRun,
    columns_of,
    decode_column,
)
from latewood.users import UserKeys, no_keys


class StoppedError(Exception):
    """Another shard failed; its error is the one to tell."""


def write_shards(
    storage: Storage,
    previous: Generation,
    new: Spill,
    number: int,
    uuid: str,
    settings: Settings,
    progress: Progress | None = None,
) -> tuple[ShardFile, ...]:
    """Write the shard files of generation `number`: the events of `previous` and the new ones. By shard number."""
    shards = range(len(previous.shards))
    meter = Meter(progress, previous.event_count + new.event_count)
    job = _Job(storage, previous, new, number, uuid, settings.rows_max(previous.schema), meter)
    with ThreadPoolExecutor(max(1, min(settings.threads, len(shards))), "latewood-compaction") as pool:
        futures = [pool.submit(job.write, shard) for shard in shards]
        try:
            return tuple(future.result() for future in futures)
        except BaseException as error:
            job.stop.set()
            failed = [future.exception() for future in futures if not future.cancel()]
            if isinstance(error, StoppedError):
                raise next(e for e in failed if e is not None and not isinstance(e, StoppedError)) from None
            raise


@dataclass(frozen=True, slots=True)
class _Job:
    """What the shards of one generation have in common."""

    storage: Storage
    previous: Generation
    new: Spill
    number: int
    uuid: str
    rows_max: int
    meter: Meter
    stop: threading.Event = field(default_factory=threading.Event)

    def write(self, shard: int) -> ShardFile:
        """Write one shard; where that fails, the others stop at their next run."""
        try:
            return self._write(shard)
        except BaseException:
            self.stop.set()
            raise

    def _write(self, shard: int) -> ShardFile:
        """Without events a shard has no file."""
        file = self.previous.shards[shard]
        per_shard = self.new.buckets_per_shard
        buckets = range(shard * per_shard, (shard + 1) * per_shard)
        if not file.exists and not self.new.counts()[buckets.start : buckets.stop].any():
            return ShardFile()
        columns = columns_of(self.previous.schema)
        old = self._open(file, shard) if file.exists else None
        key = keys.shard(self.number, self.uuid, shard)
        with self.storage.writer(key) as sink:
            writer = ShardWriter(sink, columns, epoch=self.previous.epoch, generation=self.number, shard=shard)
            for run, events in user_runs(self.previous.schema, old, self.new, buckets, self.rows_max):
                if self.stop.is_set():
                    raise StoppedError
                writer.add(run)
                self.meter.add(events)
            summary = writer.finish()
        return ShardFile(key, summary.size_bytes, summary.event_count, summary.user_count, summary.footer_xxh3)

    def _open(self, file: ShardFile, shard: int) -> Shard:
        return Shard.open(
            self.storage,
            file.key,
            columns=columns_of(self.previous.schema),
            epoch=self.previous.epoch,
            generation=self.previous.id,
            number=shard,
            footer_xxh3=file.footer_xxh3,
        )


def user_runs(
    schema: Schema, shard: Shard | None, new: Spill, buckets: range, rows_max: int
) -> Iterator[tuple[UserRun, int]]:
    """All users of a shard in key order, old and new, in runs of about `rows_max` rows to encode; and their events."""
    old = _OldShard(shard) if shard is not None else None
    counts = new.counts()[buckets.start : buckets.stop]
    for start, stop in portions(counts, rows_max):
        found = new.read(buckets.start + start, buckets.start + stop)
        events = arrange(found if found is not None else no_events(schema))
        users = _NO_USERS if old is None else old.users(new, buckets.start + start, buckets.start + stop)
        for plan in plan_users(users, events.keys, events.event_ts).slices(rows_max):
            first, last = int(plan.new_offsets[0]), int(plan.new_offsets[-1])
            yield _run(schema, old, plan, events.slice(first, last)), int(plan.tail_stop.sum()) + last - first


class _OldShard:
    """An old shard with the arrays that planning and merging ask for again and again."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.tables = Tables(1)
        self.tables.put(0, shard)
        # contiguous: a view into the records would be copied by every search
        self.keys = UserKeys(*(np.ascontiguousarray(half) for half in shard.keys))
        self.user_ids = shard.user_ids

    def users(self, new: Spill, bucket_start: int, bucket_stop: int) -> OldUsers:
        """The users of a range of buckets."""
        start, stop = (new.first_user(self.keys.hash, bucket) for bucket in (bucket_start, bucket_stop))
        return OldUsers(
            start,
            self.keys.slice(start, stop),
            self.shard.first_event[start : stop + 1],
            self.shard.first_stripe[start : stop + 1],
            self.shard.first_ts,
        )

    def tails(self, plan: Plan, column: int, n: int) -> Column:
        """One column of the rows that a plan decodes, back to back. n: how many."""
        users = np.flatnonzero(plan.tail_rows)
        target = np.cumsum(plan.tail_rows[users]) - plan.tail_rows[users]
        rows = (plan.old_user[users], plan.tail_start[users], plan.tail_stop[users], target)
        values = np.empty(n, self.shard.columns[column].dtype)
        mask = np.empty(n, np.bool_) if column >= FIRST_TRAIT else None
        nulls = decode_column(self.tables, Ranges(np.zeros(len(users), np.int64), *rows), column, values, mask)
        return Column(values, mask if nulls else None)


def _run(schema: Schema, old: _OldShard | None, plan: Plan, events: Events) -> UserRun:
    """One slice of a plan, merged."""
    old_offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(plan.tail_rows)])
    new_offsets = plan.new_offsets - plan.new_offsets[0]
    columns = _columns(schema, events)
    carried = None
    if old is not None:
        carried = Carried(old.shard, plan.old_user, plan.carried)
        if old_offsets[-1]:
            columns = _merged(old, plan, old_offsets, new_offsets, columns)
    return UserRun(_user_ids(old, plan, events), plan.keys, old_offsets + new_offsets, columns, carried)


def _columns(schema: Schema, events: Events) -> list[Column]:
    """Events as the columns of a shard."""
    built_in = [Column(events.event_ts), Column(events.ingest_ts - events.event_ts), Column(events.ordinal)]
    return built_in + [events.traits[trait.id] for trait in schema]


def _merged(
    old: _OldShard, plan: Plan, old_offsets: NDArray[np.int64], new_offsets: NDArray[np.int64], new: list[Column]
) -> list[Column]:
    """The tails of the old users and the new events, in the total order."""
    n_old = int(old_offsets[-1])
    built_in = [old.tails(plan, column, n_old) for column in range(FIRST_TRAIT)]
    # writable: read-only arrays, as from a spill, would compile the kernel once more
    place = [np.require(column.values, requirements=["C", "W"]) for column in (*built_in, *new[:FIRST_TRAIT])]
    order = merge_order(old_offsets, new_offsets, *place)
    if order[0] < 0:
        raise CorruptionError(f"{old.shard.key} already holds an event that is to be merged into it")
    merged = [gather(mine, theirs, order) for mine, theirs in zip(built_in, new[:FIRST_TRAIT], strict=True)]
    traits = range(FIRST_TRAIT, len(new))
    return merged + [gather(old.tails(plan, column, n_old), new[column], order) for column in traits]


def _user_ids(old: _OldShard | None, plan: Plan, events: Events) -> pa.Array:
    """The user id of every user of a plan: the shard's, or for a new user the first new event's."""
    first_row = pa.array(plan.new_offsets[:-1] - plan.new_offsets[0])
    is_new = plan.old_user < 0
    if is_new.all():
        return events.user_ids.take(first_row)
    assert old is not None
    known = plan.old_user[~is_new]
    ids = old.user_ids.slice(int(known[0]), len(known))  # old users of a plan are consecutive
    if not is_new.any():
        return ids
    ids = pa.concat_arrays([ids, events.user_ids.take(first_row.filter(pa.array(is_new)))])
    source = np.where(is_new, len(known) + np.cumsum(is_new) - 1, np.cumsum(~is_new) - 1)
    return ids.take(pa.array(source))


_NO_OFFSETS = np.zeros(1, np.int64)
_NO_USERS = OldUsers(0, no_keys(), _NO_OFFSETS, _NO_OFFSETS, np.zeros(0, np.int64))
