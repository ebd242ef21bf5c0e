"""Runs: a shard's users, old and new, merged in key order, a run at a time, in bounded memory.

A shard is gone through in ranges of the user hash. For each: read the new events, arrange them, plan; then for every
slice of the plan decode the old tails, merge, mark what was superseded, drop what is forgotten or expired. What is left
is a run for the shard writer, which takes over carried stripes as bytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.columns import Column, portions
from latewood.compaction.merge import UNPLACED, arrange, gather, merge_order
from latewood.compaction.parent import OldShard
from latewood.compaction.plan import Due, OldUsers, Plan, plan_users
from latewood.compaction.recipe import Recipe
from latewood.compaction.rows import Rows, expired, marked
from latewood.compaction.settings import Settings
from latewood.compaction.spill import Spill
from latewood.errors import CorruptionError
from latewood.events import NEVER, Events, Suppressions, no_events
from latewood.lists import offsets_of
from latewood.stripes import FIRST_TRAIT, Carried, UserRun, superseded_column
from latewood.users import no_keys


@dataclass(slots=True)
class Tally:
    """What a shard, or a generation, has not taken over: counts of events, and the codes that skipped ones used."""

    forgotten: int = 0
    skipped: int = 0  # of these, rows of a bulk load that were left out at once
    expired: int = 0
    codes: dict[int, set[int]] = field(default_factory=dict)  # by trait id

    def add(self, other: "Tally") -> None:
        self.forgotten += other.forgotten
        self.skipped += other.skipped
        self.expired += other.expired
        for trait, codes in other.codes.items():
            self.codes.setdefault(trait, set()).update(codes)


@dataclass(frozen=True, slots=True)
class RunMaker:
    """Makes the runs of one new shard. What is dropped on the way is counted in `tally`."""

    recipe: Recipe
    new: Spill
    settings: Settings
    tally: Tally = field(default_factory=Tally)

    def runs(self, old: OldShard | None, buckets: range) -> Iterator[tuple[UserRun, int]]:
        """The users of a range of buckets, in runs of about as many rows as there is room for; and how many events went in.

        Args: old: the old shard that has the users of these buckets; None: there are none.
        """
        counts, rows_max = self.new.counts(buckets), self._rows_max(old)
        for start, stop in portions(counts, rows_max):
            part = range(buckets.start + start, buckets.start + stop)
            events = arrange(self._admitted(self.new.read(part.start, part.stop)))
            users = _NO_USERS if old is None else old.users(self.new, part.start, part.stop)
            suppressions = self._suppressions(part)
            plan = plan_users(users, events.keys, events.event_ts, self._due(users, suppressions))
            for piece in plan.slices(rows_max):
                first, last = int(piece.new_offsets[0]), int(piece.new_offsets[-1])
                run = self._run(old, piece, events.slice(first, last), suppressions)
                yield run, int(piece.tail_stop.sum()) + last - first

    def changes(self, old: OldShard, buckets: range) -> bool:
        """Whether anything becomes of the old users of some buckets, of whom there are no new events."""
        users = old.users(self.new, buckets.start, buckets.stop)
        plan = plan_users(users, no_keys(), np.zeros(0, np.int64), self._due(users, self._suppressions(buckets)))
        return bool(plan.tail_rows.any()) or plan.passed_over > 0

    def _rows_max(self, old: OldShard | None) -> int:
        """How many rows are merged at once, by what their lists take."""
        new = self.new.item_bytes // max(self.new.event_count, 1)
        return self.settings.rows_max(self.recipe.schema, max(new, 0 if old is None else old.item_bytes))

    def _admitted(self, events: Events | None) -> Events:
        """New events as read, less those of a bulk load from before their user's scrub (docs/protocol.md R16)."""
        if events is None:
            return no_events(self.recipe.schema)
        if not len(self.recipe.scrubs):
            return events
        scrubbed_at = self.recipe.scrubs.scrubbed_at(events.keys)
        loaded = events.ordinal == UNPLACED
        gone = loaded & ((events.event_ts < scrubbed_at) | (events.ingest_ts <= scrubbed_at))
        if not gone.any():
            return events
        self.tally.skipped += int(gone.sum())
        self.tally.forgotten += int(gone.sum())
        self._note_codes(events, gone)
        return events.take(np.flatnonzero(~gone))

    def _suppressions(self, buckets: range) -> Suppressions:
        """Those of the users of some buckets. All are sorted by the hash."""
        hashes = self.recipe.suppressions.keys.hash
        start, stop = (self.new.first_user(hashes, bucket) for bucket in (buckets.start, buckets.stop))
        return self.recipe.suppressions.take(np.arange(start, stop))

    def _due(self, users: OldUsers, suppressions: Suppressions) -> Due:
        recipe = self.recipe
        forgotten = recipe.touched(users.keys)
        return Due(suppressions.keys, suppressions.event_ts, forgotten, recipe.horizon, recipe.max_events)

    def _run(self, old: OldShard | None, plan: Plan, events: Events, suppressions: Suppressions) -> UserRun:
        """One slice of a plan, merged, and without what goes."""
        rows = marked(self._merged(old, plan, events), plan.keys, suppressions)
        rows = self._without_forgotten(rows, plan)
        rows = self._without_expired(rows, plan)
        columns = rows.columns
        if rows.superseded_at is not None:
            columns = [*columns, superseded_column(rows.superseded_at, len(rows.event_ts))]
        carried = None if old is None else Carried(old.shard, plan.old_user, plan.carried)
        run = UserRun(_user_ids(old, plan, events), plan.keys, rows.offsets, columns, carried)
        return _without_nobodies(run, plan)

    def _merged(self, old: OldShard | None, plan: Plan, events: Events) -> Rows:
        """The tails of the old users and the new events, in the total order."""
        new_offsets = plan.new_offsets - plan.new_offsets[0]
        new = [Column(events.event_ts), Column(events.ingest_ts - events.event_ts), Column(events.ordinal)]
        traits = [events.traits[trait.id] for trait in self.recipe.schema]
        old_offsets = offsets_of(plan.tail_rows)
        if old is None or not old_offsets[-1]:
            return Rows(new_offsets, [*new, *traits], events.superseded_at)
        built_in = [old.tails(plan, column) for column in self.recipe.columns[:FIRST_TRAIT]]
        # writable: read-only arrays, as from a spill, would compile the kernel once more
        place = [np.require(column.values, requirements=["C", "W"]) for column in (*built_in, *new)]
        order = merge_order(old_offsets, new_offsets, *place)
        if order[0] < 0:
            raise CorruptionError(f"{old.shard.key} already holds an event that is to be merged into it")
        columns = [gather(mine, theirs, order) for mine, theirs in zip(built_in, new, strict=True)]
        for trait, theirs in zip(self.recipe.schema, traits, strict=True):
            columns.append(gather(old.trait_tails(plan, trait), theirs, order))
        superseded_at = _joined(old.superseded_at(plan), int(old_offsets[-1]), events)
        return Rows(old_offsets + new_offsets, columns, None if superseded_at is None else superseded_at[order])

    def _without_forgotten(self, rows: Rows, plan: Plan) -> Rows:
        """Without what scrubs take. Old users they touch are decoded from their first row on."""
        touched = self.recipe.touched(plan.keys)
        if touched is None:
            return rows
        near = np.flatnonzero(np.repeat(touched, np.diff(rows.offsets)))
        gone = np.zeros(len(rows.event_ts), np.bool_)
        gone[near] = self.recipe.forgotten(rows.as_events(plan.keys).take(near))
        self.tally.forgotten += int(gone.sum())
        return rows.without(gone) if gone.any() else rows

    def _without_expired(self, rows: Rows, plan: Plan) -> Rows:
        """Without what is too old or too many. Users who lose events are decoded as far as any remain."""
        recipe = self.recipe
        self.tally.expired += plan.passed_over
        if recipe.horizon is None and recipe.max_events is None:
            return rows
        gone = expired(rows, plan.carried == 0, recipe.horizon, recipe.max_events)
        if gone is None:
            return rows
        self.tally.expired += int(gone.sum())
        return rows.without(gone)

    def _note_codes(self, events: Events, gone: NDArray[np.bool_]) -> None:
        """Note the codes that some events use."""
        for trait in self.recipe.schema:
            if trait.coded:
                used = np.unique(events.traits[trait.id].take(gone).known)
                self.tally.codes.setdefault(trait.id, set()).update(used.tolist())


def _joined(old: NDArray[np.int64] | None, n_old: int, new: Events) -> NDArray[np.int64] | None:
    """When old and new rows, laid end to end, were superseded."""
    if old is None and new.superseded_at is None:
        return None
    parts = ((old, n_old), (new.superseded_at, len(new)))
    return np.concatenate([np.full(count, NEVER) if part is None else part for part, count in parts])


def _without_nobodies(run: UserRun, plan: Plan) -> UserRun:
    """Without users of whom nothing is left."""
    left = (np.diff(run.offsets) > 0) | (plan.carried > 0)
    if left.all():
        return run
    users = np.flatnonzero(left)
    offsets = np.concatenate([run.offsets[:1], run.offsets[1:][left]])
    carried = run.carried
    if carried is not None:
        carried = Carried(carried.shard, carried.user[users], carried.stripes[users])
    return UserRun(run.user_ids.take(pa.array(users)), run.keys.take(users), offsets, run.columns, carried)


def _user_ids(old: OldShard | None, plan: Plan, events: Events) -> pa.Array:
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
