"""Shadow: run beside what is there. Their Fat Rows, and what the store would give for the same requests."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.capture import read_requests
from latewood.capture.examples import make_examples
from latewood.clock import DAY_US, HOUR_US, LATEST_TS
from latewood.columns import plain_array
from latewood.consistency import read_consistently
from latewood.errors import CorruptionError, SchemaError
from latewood.examples import open_examples
from latewood.histories import Histories, distinct_users, read_histories, superseded
from latewood.immutable.scrubs import NOT_SCRUBBED
from latewood.materialize import Materializer
from latewood.migration.classify import Finding, Ours, Side, classify, shown
from latewood.migration.mapping import FatRowMapping, Theirs
from latewood.migration.report import ShadowExample, ShadowReport, Tally
from latewood.migration.values import comparable, signatures
from latewood.projection import Projection
from latewood.schema import EVENT_TS, TIME_TYPE, Trait
from latewood.store import Store
from latewood.verification.rederive import Expected, differences

_AT_ONCE = 128  # rows, and their users' whole histories, that are held
_GRIDS = (DAY_US, HOUR_US, 60_000_000, 1_000_000, 1_000)  # clocks that times lie on, the coarsest first


def shadow(
    store: Store,
    rows: Any,
    mapping: Mapping[str, Any] | None = None,
    *,
    unit: str = "us",
    max_len: int | None = None,
    sample: int | None = 1000,
    seed: int = 0,
    examples: int = 3,
    progress: Callable[[int, int], None] | None = None,
) -> ShadowReport:
    """Compare Fat Rows with what the store gives for the same requests, and classify what differs.

    The store is asked as a backfill would ask it, with `request_ts` as the cutoff, but nothing is written or fixed by it.

    Args:
        rows: their Fat Rows: a table, or Parquet files; see `Loader`.
        mapping: where they have what, as {"user_id": column, "request_ts": column, "history": {trait: path}}; see
            `FatRowMapping`. By default as `lw.write_fat_rows` writes them.
        unit: of integer times: "s", "ms" or "us".
        max_len: what their lists are cut at, if they are; else a shorter list counts as cut.
        sample: how many rows to compare, chosen by `seed`; None: all of them.
        examples: how many differences of each kind to keep.
        progress: called with (rows compared, rows to compare).
    Raises: SchemaError: no rows, a mapping that does not fit, or a trait that was dropped meanwhile. ConflictError: a live
        store whose generations are replaced too fast. CorruptionError: damaged bytes, or the store contradicts itself,
        which `lw.why` explains.
    """
    if sample is not None and sample < 0:
        raise SchemaError(f"sample is {sample}; it counts rows")
    source = open_examples(rows)
    fit = FatRowMapping(source.schema, store.schema, mapping, unit)
    chosen = np.arange(len(source))
    if sample is not None and sample < len(source):
        chosen = np.sort(np.random.default_rng(seed).permutation(len(source))[:sample])
    closed = LATEST_TS if store.tier is None else store.tier.state().closed
    traits = [store.schema[name] for name in fit.traits]
    run = _Run(store, fit, traits, max_len, closed, Tally(examples))
    for start in range(0, len(chosen), _AT_ONCE):
        part = chosen[start : start + _AT_ONCE]
        run.compare(source.take(part), part)
        if progress is not None:
            progress(start + len(part), len(chosen))
    compared = {trait.id for trait in traits}
    not_compared = tuple(trait.name for trait in store.schema if trait.id not in compared)
    return run.tally.report(len(source), tuple(fit.traits), not_compared)


@dataclass(slots=True)
class _Run:
    """One comparison, some rows at a time."""

    store: Store
    mapping: FatRowMapping
    traits: list[Trait]  # by the mapping's names, as of the beginning
    max_len: int | None
    closed: int  # what was learned of later is not looked at: it may arrive while we look
    tally: Tally
    _step: int = 0  # what divides all of their times so far; 0 before the first of them

    def compare(self, table: pa.Table, numbers: NDArray[np.int64]) -> None:
        """Args: numbers: where the rows stand, for messages."""
        theirs = self.mapping.read(table)
        visible, sides = read_consistently(self.store, lambda: self._look(theirs))
        for i, number in enumerate(numbers.tolist()):
            self._compare_one(theirs, i, number, visible[i], sides)

    def _look(self, theirs: Theirs) -> tuple[list[Ours | None], tuple[Side, Side]]:
        """What each request sees, and both sides' events. Raises: CorruptionError: a model would be given others."""
        store, users = self.store, distinct_users(theirs.keys)
        store.scrubs.refresh()
        for name, trait in zip(self.mapping.traits, self.traits, strict=True):
            if store.schema[name].id != trait.id:
                raise SchemaError(f"trait {name!r} was dropped while rows were compared with it")
        histories = read_histories(store, users[0], self.traits)
        sides = self._sides(theirs, histories)
        visible = [self._visible(theirs, i, histories, user) for i, user in enumerate(users[1].tolist())]
        self._require_same(theirs, visible, histories)
        return visible, sides

    def _compare_one(self, theirs: Theirs, i: int, number: int, ours: Ours | None, sides: tuple[Side, Side]) -> None:
        rows = np.arange(theirs.offsets[i], theirs.offsets[i + 1])
        user, request_ts = theirs.user_ids[i].as_py(), int(theirs.end_ts[i])
        self.tally.their_events += len(rows)
        if ours is None:
            self.tally.add("refused", ShadowExample(number, user, request_ts, None, None, None, None, ""), len(rows))
        else:
            self.tally.our_events += int(ours.seen.sum())
            for found in classify(sides[0], rows, sides[1], ours):
                event_ts, values = self._shown(theirs, found, ours, sides)
                example = ShadowExample(number, user, request_ts, event_ts, found.trait, *values, found.note)
                self.tally.add(found.kind, example, found.events)
        self.tally.end_row()

    def _shown(
        self, theirs: Theirs, found: Finding, ours: Ours, sides: tuple[Side, Side]
    ) -> tuple[int | None, tuple[Any, Any]]:
        if found.ours is not None:
            event_ts = int(ours.event_ts[np.searchsorted(ours.rows, found.ours)])
        else:
            assert found.theirs is not None
            event_ts = int(theirs.event_ts[found.theirs])
        return event_ts, (shown(sides[0], found.theirs, found.trait), shown(sides[1], found.ours, found.trait))

    def _sides(self, theirs: Theirs, histories: Histories) -> tuple[Side, Side]:
        events = histories.events
        self._step = int(np.gcd.reduce(theirs.event_ts, initial=self._step))
        grid = next((grid for grid in _GRIDS if self._step and self._step % grid == 0), 1)
        ours = {
            name: plain_array(self.store.vocabulary.trait_to_arrow(trait, events))
            for name, trait in zip(self.mapping.traits, self.traits, strict=True)
        }
        pairs = {name: comparable(theirs.values[name], ours[name], name, self.mapping.factor) for name in ours}
        parts = ((theirs.event_ts, theirs.values), (events.event_ts, ours))
        return tuple(  # type: ignore[return-value]
            Side(
                times,
                times // grid * grid,
                {name: pair[side] for name, pair in pairs.items()},
                signatures([pair[side].loose for pair in pairs.values()], len(times)),
                values,
            )
            for side, (times, values) in enumerate(parts)
        )

    def _visible(self, theirs: Theirs, i: int, histories: Histories, user: int) -> Ours | None:
        """What a request sees by the rules, from the rows themselves; None where it is refused."""
        end_ts, cutoff = int(theirs.end_ts[i]), int(theirs.cutoff[i])
        until, generation = min(cutoff, self.closed), histories.reader.generation
        scrubbed_at = int(self.store.scrubs.scrubbed_at(theirs.keys.slice(i, i + 1))[0])
        if until <= scrubbed_at:
            return None
        events, _ = histories.of(user)
        gone = self.store.scrubs.forgotten(events, generation.scrubs) | (events.ingest_ts >= self.closed)
        if scrubbed_at != NOT_SCRUBBED and scrubbed_at >= min(until, generation.watermark):
            gone |= events.ingest_ts <= scrubbed_at  # held back until a compaction has told what stays
        rows, at = np.flatnonzero(~gone), superseded(events)
        seen = (events.event_ts < end_ts) & (events.ingest_ts < until) & (at >= until)
        seen = seen[rows]
        if self.max_len is not None:
            seen &= np.cumsum(seen[::-1])[::-1] <= self.max_len
        return Ours(
            rows + int(histories.bounds[user]), events.event_ts[rows], events.ingest_ts[rows], at[rows], seen, end_ts,
            cutoff, generation.expired,
        )  # fmt: skip

    def _require_same(self, theirs: Theirs, visible: list[Ours | None], histories: Histories) -> None:
        """That a model would be given just these events. Raises: CorruptionError."""
        times = pa.array(theirs.end_ts).view(TIME_TYPE)
        requests = read_requests(pa.table({"user_id": theirs.user_ids, "request_ts": times}), self.store.schema)
        _, made = make_examples(self.store, requests, np.minimum(theirs.cutoff, self.closed))
        projection = Projection(max_len=self.max_len, traits=[EVENT_TS, *self.mapping.traits])
        batch = Materializer(self.store, projection, on_missing="mask")(made)
        for i, ours in enumerate(visible):
            expected = Expected("scrubbed")
            if ours is not None:
                expected = Expected(events=histories.events.take(ours.rows[ours.seen]))
            for message in differences(expected, batch, i, self.store.schema):
                raise CorruptionError(f"user {theirs.user_ids[i].as_py()!r}: the store contradicts itself: {message}")
