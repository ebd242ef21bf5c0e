"""The parent's side of a merge: one of its shards, whose stripes are carried on as bytes, or opened and decoded."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from latewood.columns import Column, TraitColumn, null_column
from latewood.compaction.plan import OldUsers, Plan
from latewood.compaction.spill import Spill
from latewood.immutable import Generation
from latewood.lists import offsets_of
from latewood.schema import Trait
from latewood.storage import Storage
from latewood.stripes import (
    NEVER_CLEAN,
    Ranges,
    Shard,
    StripeColumn,
    Tables,
    columns_of,
    decode_column,
    decode_list_column,
    fields_of,
    superseded_index,
    superseded_times,
)
from latewood.users import UserKeys

_UNPACKED = 4  # how many times more bytes items may take than when packed


def open_shard(storage: Storage, generation: Generation, number: int) -> "OldShard | None":
    """One shard of a generation; None where it has no file, having no events. Raises: CorruptionError.

    The file may be of an older generation, in whose time the shard changed last: its hash says that it is the one.
    """
    file = generation.shards[number]
    if not file.exists:
        return None
    shard = Shard.open(
        storage,
        file.key,
        columns=columns_of(generation.schema),
        epoch=generation.epoch,
        number=number,
        footer_xxh3=file.footer_xxh3,
    )
    return OldShard(shard)


class OldShard:
    """An old shard with the arrays that planning and merging ask for again and again."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.tables = Tables(1)
        self.tables.put(0, shard)
        # contiguous: a view into the records would be copied by every search
        self.keys = UserKeys(*(np.ascontiguousarray(half) for half in shard.keys))
        self.user_ids = shard.user_ids

    @cached_property
    def _places(self) -> dict[int, int]:
        return {column.id: place for place, column in fields_of(self.shard.columns)}

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

    def trait_tails(self, plan: Plan, trait: Trait) -> TraitColumn:
        """A trait of the rows that a plan decodes, back to back; null where the shard does not have it."""
        place, (ranges, size) = self._places.get(trait.id), self._tail_ranges(plan)
        if place is None:
            return null_column(trait, size)
        if trait.is_list:
            return decode_list_column(self.tables, ranges, place, size, trait.list_size)
        return self.tails(plan, self.shard.columns[place])

    def tails(self, plan: Plan, column: StripeColumn) -> Column:
        """One column of the rows that a plan decodes, back to back. It is one that the shard has."""
        ranges, size = self._tail_ranges(plan)
        values = np.empty(size, column.dtype)
        mask = np.empty(size, np.bool_) if column.role in ("trait", "superseded_at") else None
        nulls = decode_column(self.tables, ranges, self._places[column.id], values, mask)
        return Column(values, mask if nulls else None)

    def _tail_ranges(self, plan: Plan) -> tuple[Ranges, int]:
        """The rows that a plan decodes, and how many they are."""
        users = np.flatnonzero(plan.tail_rows)
        offsets = offsets_of(plan.tail_rows[users])
        rows = (plan.old_user[users], plan.tail_start[users], plan.tail_stop[users], offsets[:-1])
        return Ranges(np.zeros(len(users), np.int64), *rows), int(offsets[-1])

    def superseded_at(self, plan: Plan) -> NDArray[np.int64] | None:
        """Of the rows that a plan decodes: NEVER where not; None where none of them is."""
        place = superseded_index(self.shard.columns)
        if place is None or not self._any_superseded:
            return None
        return superseded_times(self.tails(plan, self.shard.columns[place]))

    @property
    def item_bytes(self) -> int:
        """Of the lists of one event, on the average: a guess, since only what they take when packed is known."""
        shard = self.shard
        sizes = zip(shard.columns, shard.footer.column_bytes, strict=True)
        packed = sum(size for column, size in sizes if column.role == "items")
        return _UNPACKED * packed // max(shard.event_count, 1)

    @cached_property
    def _any_superseded(self) -> bool:
        return bool((self.shard.latest_ingests == NEVER_CLEAN).any())
