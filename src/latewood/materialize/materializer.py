"""Materializer: examples + projection → batch, by the stages of this folder in their order."""

import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.batch import Batch, SharedBatch
from latewood.columns import Column, TraitColumn
from latewood.errors import CorruptionError, SchemaError
from latewood.immutable.resolve import Status
from latewood.lists import offsets_of
from latewood.materialize.assemble import NOTHING, Segments, assemble
from latewood.materialize.buffers import BufferPool
from latewood.materialize.checks import Checks, Verify
from latewood.materialize.choose import Candidates, choose
from latewood.materialize.decode import StoredColumns, WantedColumn, Work, decode, gathered, lists_among
from latewood.materialize.fetch import fetch
from latewood.materialize.ids import UnknownCodeError, ids_of_codes
from latewood.materialize.logged import Logged
from latewood.materialize.look_up import ChangedTraitError, Lookup
from latewood.materialize.merge import Merged, merge, ranks_of
from latewood.materialize.pieces import decode_pieces, lay_out_pieces
from latewood.materialize.plan import Plan, plan
from latewood.materialize.resolved import Resolved
from latewood.materialize.split import NOWHERE, are_views, split
from latewood.materialize.statistics import Statistics
from latewood.materialize.store import MaterializeStore, require_store
from latewood.materialize.straight import decode_straight, lay_out, lay_out_shared
from latewood.materialize.streams import LookedAt, Streams, pick_found
from latewood.materialize.view import View
from latewood.materialize.window import Window, plan_window
from latewood.projection import STREAM, Projection

# The events are gone; any other status says that something is wrong.
_FORGIVABLE = (Status.UNKNOWN_USER, Status.SHORT, Status.EXPIRED, Status.SCRUBBED)
_POOL = BufferPool()
B = TypeVar("B")


class Materializer:
    """Rebuilds the history that each example's request saw, as one model wants it. Thread-safe.

    Args:
        store: where the histories are; opened `read_only` will do.
        projection: how many events, and which traits.
        on_missing: what to do with an example whose events are gone, be it that retention took them or that the user was
            scrubbed: "raise", or "mask": it keeps its place, empty, with weight 0. Damage, leaks and pointers from
            elsewhere are errors either way.
        verify: check the checksum of every block that is decoded: once (True), never (False), or in every batch anew
            ("always"), for storage whose files may change while they are mapped. What is read to find a request's place is
            checked at least once in any case.
        unread: labels of traits that the examples' recent events come without, though they may have been logged.
    Raises, now and when the schema has changed: SchemaError: a trait that the store does not have, or one of the unread.
    """

    def __init__(
        self,
        store: MaterializeStore,
        projection: Projection,
        on_missing: Literal["raise", "mask"] = "raise",
        verify: Verify = True,
        unread: Collection[str] = (),
    ) -> None:
        require_store(store, projection)
        if on_missing not in ("raise", "mask"):
            raise SchemaError(f'on_missing is "raise" or "mask", not {on_missing!r}')
        self.projection = projection
        self._store, self._mask_missing, self._checks = store, on_missing == "mask", Checks(verify)
        self._verify = self._checks.are_on
        self._streams = Streams(projection) if projection.kinds else None
        self._lookup = Lookup(store, projection, frozenset(unread), self._checks)
        self._vocabulary_as_of = -1  # a generation
        self._known_newest = -1, 0  # the generation that was the newest when so many blankings were known
        self._lock = threading.Lock()
        self.stats = Statistics()  # of all batches so far
        self.last_stats = Statistics()  # of the latest batch

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process makes one of its own."""
        on_missing = "mask" if self._mask_missing else "raise"
        return Materializer, (self._store, self.projection, on_missing, self._checks.verify, self._lookup.unread)

    def __call__(self, examples: Any) -> Batch:
        """Materialize examples, one row each, in order.

        Args: examples: a table with user_id, uih, recent and cutoff, as capture and backfill make them; other columns
            pass through as features.
        Raises: SchemaError: not such a table, or a trait that the store does not have any more. PointerError: a pointer
            of another store, newer than what can be read, or (unless masked) whose events are not there. ExpiredError,
            ScrubbedError: (unless masked) retention took the events, or the user was scrubbed. LeakageError: an example
            holds what its request could not have seen. CorruptionError: damaged bytes.
        """
        return self._make(examples, self._decode)

    def shared(self, examples: Any) -> SharedBatch:
        """As calling it, but what several examples see is in memory once: for many examples per user, nothing is copied.

        An example has a copy of its own where recent or invisible events lie between or behind its stored ones.
        Raises: as calling it. SchemaError: of a projection with streams, whose events do not lie side by side.
        """
        self._refuse_streams()
        return self._make(examples, self._decode_shared)

    def _refuse_streams(self) -> None:
        if self.projection.kinds:
            raise SchemaError("a shared batch has no streams: the events of one do not lie side by side")

    def _make(self, examples: Any, decode: Callable[[Resolved], B]) -> B:
        """Both halves; anew, by a newer schema, if that turns out to be needed in between."""
        try:
            return self._finish(self.resolve(examples), decode)
        except ChangedTraitError:
            return self._finish(self.resolve(examples), decode)

    def resolve(self, examples: Any) -> Resolved:
        """The first half: read the examples and look up their pointers. A loader does it for many batches at once.

        Raises: as calling it, but that what cannot be resolved is not an error before its batch is made.
        """
        return self._lookup(examples)

    def batch(self, resolved: Resolved) -> Batch:
        """The second half: decode and assemble, but of users who were scrubbed meanwhile.

        Raises: as calling it, of pointers, scrubbed users and damaged bytes.
        """
        return self._finish(self._as_of_now(resolved), self._decode)

    def shared_batch(self, resolved: Resolved) -> SharedBatch:
        """The second half of `shared`. Raises: as it and `batch`."""
        self._refuse_streams()
        return self._finish(self._as_of_now(resolved), self._decode_shared)

    def window(self, resolved: Resolved) -> Window:
        """Decode the histories of many examples, each event once, for batches that each have some of them.

        What cannot be resolved is not an error before its batch is made. Raises: CorruptionError: damaged bytes.
        """
        self._checks.begin(resolved.reader, resolved.logged.keys)
        recents = resolved.logged.recents
        candidates, places = self._merge(resolved, self.projection.max_len)
        planned, segments, behind = plan_window(candidates, places, len(recents))
        columns, cost = self._columns(resolved, resolved.view, planned, behind, planned.size, 0)
        self._count(replace(cost, batches=0, examples=0))
        return Window(resolved, candidates.offsets, segments, np.ascontiguousarray(segments[:, 1]), columns)

    def window_batch(self, window: Window, start: int, stop: int) -> Batch:
        """The examples of a window from `start` to `stop`; decoded anew if they changed since. Raises: as `batch`."""
        resolved = window.resolved.slice(start, stop)
        if (now := self._as_of_now(resolved)) is resolved:
            self._require(resolved)
            offsets, columns = window.lay_out(start, stop, _POOL)
            # should it be raised, decoding finds it again, and tells damage from values that were collected
            with suppress(UnknownCodeError):
                batch = self._batch(resolved, resolved.view, offsets, columns)
                if self._knows_all_values(resolved):
                    self._count(Statistics(1, len(batch), int(offsets[-1])))
                    return batch
        return self._finish(now, self._decode)

    def _as_of_now(self, resolved: Resolved) -> Resolved:
        """By the scrubs that are known now."""
        known = self._store.scrubs.refresh()
        if known == resolved.scrubs:
            return resolved
        return resolved.scrubbed(self._store.scrubs.scrubbed_at(resolved.logged.keys), known)

    def _finish(self, resolved: Resolved, decode: Callable[[Resolved], B]) -> B:
        """Decode; again, from a newer generation, as long as codes may not mean any more what they meant."""
        while True:
            if self._checks.are_repeated:  # asked here, too: the users of a part are cut out only for this
                self._checks.begin(resolved.reader, resolved.logged.keys)
            try:
                batch = decode(resolved)
            except UnknownCodeError:
                if self._knows_all_values(resolved):
                    raise
            else:
                if self._knows_all_values(resolved):
                    return batch
            resolved = self._lookup.again(resolved)

    def _knows_all_values(self, resolved: Resolved) -> bool:
        """Whether the codes of a batch just made mean what they meant in its generation.

        Codes are blanked that the newest generation does not use; an older one may, for events that it lacks (R15, R16).
        And the values of a trait that the newest one does not have any more are collected.
        Raises: CorruptionError: values are missing, and there is no newer generation.
        """
        generation, vocabulary, coded = resolved.reader.generation, self._store.vocabulary, resolved.view.coded
        if not coded:
            return True
        missing = vocabulary.missing(generation.vocabulary, {trait.id for trait in coded.values()})
        now = generation.id, vocabulary.blanked_known
        if missing is None and (not vocabulary.blanked_known or now == self._known_newest):
            return True
        if self._store.refresh().generation.id != generation.id:
            return False
        if missing is not None:
            raise CorruptionError(f"{missing} is missing: generation {generation.id} has values of it")
        self._known_newest = now
        return True

    def _decode(self, resolved: Resolved) -> Batch:
        if self._streams is not None:
            return self._decode_streams(resolved, self._streams)
        view = resolved.view
        if (batch := self._decode_straight(resolved)) is not None:
            return batch
        self._require(resolved)
        merged, ranks = None, resolved.ranks
        if view.wanted(resolved.reader).are_stored:  # no lists among them
            if ranks is None:
                merged = self._merge(resolved, self.projection.max_len)
                ranks = ranks_of(merged[0], resolved.stored.counts, merged[1], len(resolved.logged.recents))
            if (batch := self._decode_pieces(resolved, ranks)) is not None:
                return batch
        candidates, places = merged or self._merge(resolved, self.projection.max_len)
        events = int(candidates.offsets[-1])
        parts = split(candidates, *places)
        planned = plan(parts, events)
        in_place = planned.is_in_place and candidates.are_plain
        segments = NOTHING if in_place else assemble(candidates, parts, planned.base, *places)
        columns, cost = self._columns(resolved, view, planned, segments, events, events)
        self._count(cost)
        return self._batch(resolved, view, candidates.offsets, columns)

    def _decode_pieces(self, resolved: Resolved, ranks: NDArray[np.int64]) -> Batch | None:
        """A batch of stored columns, all of it decoded to its place; None if it pays to share."""
        view, stored, recents = resolved.view, resolved.stored, resolved.logged.recents
        wanted = view.wanted(resolved.reader)
        laid_out = lay_out_pieces(resolved.resolution, stored, recents, ranks, self.projection.max_len)
        if laid_out is None:
            return None
        of_recents = (_recents_of(resolved.logged, want) for want in wanted.columns)
        columns = [column for column in of_recents if isinstance(column, Column)]  # all: none is a list
        tables, events = fetch(resolved.reader), int(laid_out.offsets[-1])
        values, masks, *touched = decode_pieces(tables, laid_out, wanted.stored, columns, _POOL, self._verify)
        self._count(Statistics(1, len(resolved), events, laid_out.rows, *touched))
        return Batch(offsets=laid_out.offsets, **self._fields(resolved, view, values, masks))

    def _decode_straight(self, resolved: Resolved) -> Batch | None:
        """A batch of which everything is stored in one piece; None if it is not."""
        if (stored := self._stored_straight(resolved)) is None:
            return None
        whole, max_len = resolved.whole.resolution, self.projection.max_len
        if (laid_out := lay_out(whole, resolved.start, resolved.stop, max_len)) is None:
            return None
        offsets, ranges = laid_out
        events = int(offsets[-1])
        fields = self._fields_straight(resolved, stored, ranges, events, events)
        return Batch(offsets=offsets, **fields)

    def _share_straight(self, resolved: Resolved) -> SharedBatch | None:
        """The same as a shared one."""
        if (stored := self._stored_straight(resolved)) is None:
            return None
        if (shared := lay_out_shared(resolved.resolution, self.projection.max_len)) is None:
            return None
        starts, lengths, ranges, size, events = shared
        fields = self._fields_straight(resolved, stored, ranges, size, events, all_used=False)
        fields["masks"] = {name: mask for name, mask in fields["masks"].items() if _shows(mask, starts, lengths)}
        return SharedBatch(starts=starts, lengths=lengths, lists={}, **fields)

    @staticmethod
    def _stored_straight(resolved: Resolved) -> StoredColumns | None:
        """The columns, if nothing but stored values can be wanted."""
        wanted = resolved.view.wanted(resolved.reader)
        return wanted.stored if wanted.are_stored and resolved.are_stored_alone else None

    def _fields_straight(
        self,
        resolved: Resolved,
        stored: StoredColumns,
        ranges: NDArray[np.int64],
        size: int,
        events: int,
        *,
        all_used: bool = True,
    ) -> dict[str, Any]:
        tables = fetch(resolved.reader)
        values, masks, *touched = decode_straight(tables, ranges, size, stored, _POOL, self._verify)
        self._count(Statistics(1, len(resolved), events, size, *touched))
        weights = np.ones(len(resolved), np.float32)
        return self._fields(resolved, resolved.view, values, masks, all_used=all_used, weights=weights)

    def _decode_streams(self, resolved: Resolved, streams: Streams) -> Batch:
        """Find the events that streams hold, and decode what is shown of those alone."""
        view, reader = resolved.view, resolved.reader
        looked_at, shown, tables = view.part(view.looked_at, by_code=True), view.part(view.shown), fetch(reader)
        self._require(resolved)
        candidates, places = self._merge(resolved, self.projection.reach)
        words = self._dictionaries(resolved, looked_at)
        conditions = [
            LookedAt(want, _recents_of(resolved.logged, want), looked_at.types[want.name], words.get(want.name))
            for want in looked_at.wanted(reader).columns
        ]
        found = streams.find(tables, candidates, places, conditions, _POOL, self._verify)
        wanted = [(want, _recents_of(resolved.logged, want)) for want in shown.wanted(reader).columns]
        columns, *cost = pick_found(tables, candidates, found, wanted, _POOL, self._verify)
        batch = self._batch(resolved, shown, found.offsets, columns)
        rows, stripes, size_bytes = cost
        events = int(found.offsets[-1])
        self._count(
            Statistics(1, len(batch), events, rows, stripes + found.stripe_count, size_bytes + found.size_bytes)
        )
        return replace(
            batch,
            values=batch.values | {STREAM: found.bits},
            types=dict(batch.types) | {STREAM: pa.int64()},
            streams=tuple(name for name, _ in self.projection.kinds),
        )

    def _batch(
        self, resolved: Resolved, view: View, offsets: NDArray[np.int64], columns: dict[str, TraitColumn]
    ) -> Batch:
        """A batch of columns that hold nothing but the examples' events."""
        lists = lists_among(columns)
        items = {name: gathered(of, view.list_size(name), _POOL) for name, of in lists.items()}
        # lists of one size are rows, and need no offsets
        ends = {name: of.offsets for name, of in lists.items() if items[name].ndim == 1}
        values, masks = _arrays(columns, items)
        return Batch(offsets=offsets, lists=ends, **self._fields(resolved, view, values, masks, ends))

    def _decode_shared(self, resolved: Resolved) -> SharedBatch:
        view = resolved.view
        if (batch := self._share_straight(resolved)) is not None:
            return batch
        self._require(resolved)
        candidates, places = self._merge(resolved, self.projection.max_len)
        parts, lengths = split(candidates, *places), np.diff(candidates.offsets)
        views = are_views(candidates, parts)
        # only the others have a place of their own
        own = offsets_of(np.where(views, 0, lengths))
        parts = replace(parts, place=np.where(views, NOWHERE, own[:-1]))
        planned = plan(parts, int(own[-1]))
        # nothing is copied where everything is a view
        segments = assemble(replace(candidates, offsets=own), parts, planned.base, *places) if own[-1] else NOTHING
        columns, cost = self._columns(resolved, view, planned, segments, planned.size, int(lengths.sum()))
        self._count(cost)
        starts = np.where(views, planned.base[: len(lengths)], own[:-1])
        lists = lists_among(columns)
        sizes = {name: view.list_size(name) for name in lists}
        items = {
            name: of.items if sizes[name] is None else gathered(of, sizes[name], _POOL) for name, of in lists.items()
        }
        values, masks = _arrays(columns, items)
        of_any_length = {name: of for name, of in lists.items() if sizes[name] is None}
        fields = self._fields(resolved, view, values, masks, of_any_length, all_used=False)
        fields["masks"] = {name: mask for name, mask in masks.items() if _shows(mask, starts, lengths)}
        lists = {name: of._replace(items=values[name]) for name, of in of_any_length.items()}
        return SharedBatch(starts=starts, lengths=lengths, lists=lists, **fields)

    def _merge(self, resolved: Resolved, max_len: int | None) -> tuple[Candidates, Merged]:
        """What competes for the outputs, and where recent events go among stored ones."""
        stored, recents = resolved.stored, resolved.logged.recents
        candidates = choose(resolved.resolution, stored, recents, max_len)
        return candidates, merge(resolved.reader, candidates, recents, stored.counts, resolved.ranks, self._verify)

    def _columns(
        self, resolved: Resolved, view: View, planned: Plan, segments: Segments, size: int, events: int
    ) -> tuple[dict[str, TraitColumn], Statistics]:
        """The columns, up to `size` elements, in which the examples have `events`, and what they cost."""
        logged, reader = resolved.logged, resolved.reader
        wanted, work = view.wanted(reader), Work(fetch(reader), planned, segments, size, _POOL, self._verify)
        columns, *touched = decode(work, wanted, [_recents_of(logged, want) for want in wanted.columns])
        decoded = int((planned.ranges.stop - planned.ranges.start).sum())
        return columns, Statistics(1, len(logged), events, decoded, *touched)

    def _require(self, resolved: Resolved) -> None:
        if not resolved.status.any():
            return
        resolution, logged = resolved.resolution, resolved.logged
        if self._mask_missing:
            forgiven = np.isin(resolution.status, _FORGIVABLE)
            resolution = replace(resolution, status=np.where(forgiven, np.uint8(Status.OK), resolution.status))
        resolved.reader.require(resolution, logged.pointers, logged.user_ids, resolved.scrub_ts)

    def _fields(
        self,
        resolved: Resolved,
        view: View,
        values: dict[str, NDArray[Any]],
        masks: dict[str, NDArray[np.bool_]],
        lists: Collection[str] = (),
        *,
        all_used: bool = True,
        weights: NDArray[np.float32] | None = None,
    ) -> dict[str, Any]:
        """What a batch says, however its examples lie in the columns. Codes that ids are wanted of become such.

        Args: values: of lists their items. lists: the columns that are lists of any length. all_used: whether the columns
            hold nothing but the examples' events. weights: by the statuses, unless they are known.
        """
        if weights is None:
            weights = (resolved.status == Status.OK).astype(np.float32)
        dictionaries = self._dictionaries(resolved, view)
        for name in view.ids:
            mask = None if name in lists else masks.get(name)
            values[name] = ids_of_codes(name, values[name], mask, dictionaries.pop(name), _POOL, all_used=all_used)
        return {
            "values": values,
            "masks": masks,
            "dictionaries": dictionaries,
            "weights": weights,
            "features": resolved.features,
            "types": view.types,
        }

    def _dictionaries(self, resolved: Resolved, view: View) -> dict[str, pa.Array]:
        """Code → value of the coded traits of a view, which may be a part of the one that was resolved."""
        vocabulary, generation = self._store.vocabulary, resolved.reader.generation.id
        if generation != self._vocabulary_as_of:
            # Values are durable before the events that use them: read now, they cover all that the generation has.
            for trait in resolved.view.coded.values():
                vocabulary.refresh(trait.id)
            self._vocabulary_as_of = generation
        return {name: vocabulary.values(trait.id) for name, trait in view.coded.items()}

    def _count(self, stats: Statistics) -> None:
        with self._lock:
            self.last_stats = stats
            self.stats = self.stats + stats


def _arrays(
    columns: dict[str, TraitColumn], items: dict[str, NDArray[Any]]
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[np.bool_]]]:
    """The values and masks of columns. Args: items: of those that are lists."""
    values = {name: column.values if isinstance(column, Column) else items[name] for name, column in columns.items()}
    return values, {name: column.mask for name, column in columns.items() if column.mask is not None}


def _shows(mask: NDArray[np.bool_], starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> bool:
    """Whether any null is one that an example sees, and does not lie between them."""
    before = np.concatenate([[0], np.cumsum(mask)])
    return bool((before[starts + lengths] > before[starts]).any())


def _recents_of(logged: Logged, want: WantedColumn) -> TraitColumn:
    if want.trait is None:
        return Column(logged.recents.order[0])
    return logged.recents.columns[want.trait]
