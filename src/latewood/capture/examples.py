"""One read of both tiers, and the examples made of it.

The tiers change while we read them: compaction publishes a generation and evicts what it holds. So the generation is
taken first, the recent events from its watermark on afterwards, and both fit unless something was evicted, or loaded in
bulk, in between. Then the newest generation has it, and we read again (docs/protocol.md R11).

Of a user who was scrubbed the stored part is withheld until a generation has forgotten them too (R16); the mutable tier
gives only what came after the scrub.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.capture.message import add_columns
from latewood.capture.requests import Requests, read_requests
from latewood.capture.store import CaptureStore
from latewood.clock import LATEST_TS
from latewood.columns import filled, times_to_arrow
from latewood.errors import ConflictError, CorruptionError, ScrubbedError
from latewood.events import no_suppressions
from latewood.immutable.reader import GenerationReader
from latewood.immutable.resolve import Measured
from latewood.lists import offsets_of
from latewood.mutable import Recent, TierState, no_view
from latewood.pointer import Pointers
from latewood.users import UserKeys

_TRIES = 20


@dataclass(frozen=True, slots=True)
class Reading:
    """What n requests see: the stored part as measured, the recent part as copied, and the clocks of both.

    Shapes: watermark (n,): the stored part holds the visible events below it, the recent part those from the
    generation's watermark on, and which stored ones they supersede. Units: µs since epoch, UTC.
    """

    reader: GenerationReader
    watermark: NDArray[np.int64]
    measured: Measured
    recent: Recent


def read_both(store: CaptureStore, requests: Requests, cutoff: NDArray[np.int64] | None) -> Reading:
    """Read what requests see before their cutoffs; None: all that is known now.

    Raises: ConflictError: a bulk load is under way, or generations come faster than they can be read.
    """
    reader = store.reader()
    for _ in range(_TRIES):
        try:
            reading = _read_once(store, reader, requests, cutoff)
        except FileNotFoundError:  # the generation was collected
            newest = store.refresh()
            if newest.generation.id == reader.generation.id:
                raise
        else:
            newest = _newest(store, reader, reading.recent)
            if newest.generation.id == reader.generation.id:
                return reading
        reader = newest
    raise ConflictError(f"{_TRIES} generations in a row were replaced while they were read; try again")


def _newest(store: CaptureStore, reader: GenerationReader, recent: Recent) -> GenerationReader:
    """The generation to read instead, if what was read of this one may not fit the recent events.

    Below the floor events may be gone from the mutable tier. And a frontier past the watermark may be a bulk load's,
    whose events never were there; more often a compaction is just under way, and there is no newer generation yet.
    Events with a trait that the schema does not have yet were appended by who knew a newer generation.
    """
    generation, state = reader.generation, recent.state
    newest_trait = max(recent.view.traits, default=-1)
    if max(state.floor, state.frontier) <= generation.watermark and newest_trait < generation.schema.next_id:
        return reader
    newest = store.refresh()
    if state.floor > newest.generation.watermark:
        raise ConflictError("the mutable tier has let go of events that no generation holds: is it another store's?")
    return newest


def _read_once(
    store: CaptureStore, reader: GenerationReader, requests: Requests, cutoff: NDArray[np.int64] | None
) -> Reading:
    ends = (requests.end_ts, requests.tie_ingest, requests.tie_ordinal)
    stored_until = reader.generation.watermark
    recent = _read_recent(store, requests, stored_until, cutoff)
    watermark = filled(len(requests), stored_until)
    if cutoff is not None:
        watermark = np.minimum(watermark, cutoff)
    measured = reader.measure(requests.keys, ends[0], watermark, *ends[1:])
    scrub_ts = _scrubbed_at(store, requests.keys, recent.state)
    if scrub_ts is not None and (withheld := scrub_ts >= stored_until).any():
        measured, recent = _without(measured, withheld, requests.end_ts), _without_places(recent, withheld)
        if store.tier is None and cutoff is None:  # all that was known by then of these users is forgotten
            recent = replace(recent, cutoff=np.where(withheld, scrub_ts + 1, recent.cutoff))
    return Reading(reader, watermark, measured, recent)


def _scrubbed_at(store: CaptureStore, keys: UserKeys, state: TierState) -> NDArray[np.int64] | None:
    """When users were last scrubbed, by all scrubs before the closed time of this state; None if there was none yet."""
    if store.tier is None or state.scrubs > len(store.scrubs):
        store.scrubs.refresh()
    return store.scrubs.scrubbed_at(keys) if len(store.scrubs) else None


def _without(measured: Measured, withheld: NDArray[np.bool_], end_ts: NDArray[np.int64]) -> Measured:
    """With nothing stored for some requests."""
    return Measured(
        start_ts=np.where(withheld, end_ts, measured.start_ts),
        end_ties=np.where(withheld, np.int32(0), measured.end_ties),
        length=np.where(withheld, 0, measured.length),
        checksum=np.where(withheld, np.uint64(0), measured.checksum),
        stored_before=np.where(withheld, 0, measured.stored_before),
    )


def _without_places(recent: Recent, withheld: NDArray[np.bool_]) -> Recent:
    """Without the superseded places of some requests."""
    counts = np.diff(recent.suppressed_offsets)
    kept = np.flatnonzero(np.repeat(~withheld, counts))
    offsets = offsets_of(np.where(withheld, 0, counts))
    return replace(recent, suppressed_offsets=offsets, suppressed=recent.suppressed.take(kept))


def _read_recent(store: CaptureStore, requests: Requests, watermark: int, cutoff: NDArray[np.int64] | None) -> Recent:
    if store.tier is None:
        closed = np.full(len(requests), watermark, np.int64) if cutoff is None else cutoff
        none = np.zeros(len(requests) + 1, np.int64)
        return Recent(TierState(), closed, none, no_view(store.schema), none[:0], none, no_suppressions())
    return store.tier.recent(
        requests.keys,
        end_ts=requests.end_ts,
        min_ingest=watermark,
        cutoff=cutoff,
        tie_ingest=requests.tie_ingest,
        tie_ordinal=requests.tie_ordinal,
    )


def make_examples(
    store: CaptureStore, requests: Requests, cutoff: NDArray[np.int64] | None
) -> tuple[Reading, pa.Table]:
    """What was read, by `read_both`, and the examples made of it: read again if values went in between.

    Raises: ConflictError: as `read_both`, or values go faster than they can be read. CorruptionError: damaged bytes.
    """
    for _ in range(_TRIES):
        reading = read_both(store, requests, cutoff)
        try:
            return reading, _to_examples(store, requests, reading)
        except ScrubbedError:  # a recent event was evicted meanwhile, and its value forgotten
            store.refresh()
        except CorruptionError:  # its trait may have been dropped meanwhile, and the values collected
            if store.refresh().generation.id == reading.reader.generation.id:
                raise
    raise ConflictError(f"values were forgotten {_TRIES} times in a row while they were read; try again")


def make_in_parts(
    store: CaptureStore, requests: Requests, at_once: int
) -> Iterator[tuple[bool, Requests, Reading, pa.Table]]:
    """`make_examples` of so many requests at a time, as of their own cutoffs; once, if there are none.

    Yields: whether the part is the first; the part, what was read of it, and its examples. Where the store's schema has
        changed since, a first part comes again: all examples are made by the new one, and what came before is void.
    """
    schema, start = None, 0
    while schema is None or start < len(requests):
        part = requests.slice(start, start + at_once)
        reading, examples = make_examples(store, part, part.cutoff)
        if schema is not None and examples.schema != schema:
            schema, start = None, 0
            continue
        yield schema is None, part, reading, examples
        schema, start = examples.schema, start + at_once


def _to_examples(store: CaptureStore, requests: Requests, reading: Reading) -> pa.Table:
    """The requests' columns, and `uih`, `recent` and `cutoff`: what to log."""
    measured, recent = reading.measured, reading.recent
    pointers = Pointers(
        store.epoch,
        reading.watermark,
        measured.start_ts,
        requests.end_ts,
        measured.end_ties,
        measured.length,
        measured.checksum,
    )
    return add_columns(requests.features, pointers, recent, reading.reader.generation.schema, store.vocabulary)


def read_examples(store: CaptureStore, users: pa.Table, *, end_ts: int | None, cutoff: int | None) -> pa.Table:
    """Examples of users as of a moment of each clock, for looking at histories: leaves no trace in the store.

    Args:
        users: a table with user_id.
        end_ts: None: whenever it happened.
        cutoff: None: all that is known now; in a store opened read-only, all that is in a generation.
    """
    times: Any = times_to_arrow(np.full(len(users), LATEST_TS if end_ts is None else end_ts, np.int64))
    requests = read_requests(users.append_column("request_ts", times), store.schema)
    if end_ts is None:  # no request can end after the last moment there is: like an anchor, it ends after its ties
        last = np.full(len(users), LATEST_TS, np.int64), np.full(len(users), np.iinfo(np.int32).max, np.int32)
        requests = replace(requests, tie_ingest=last[0], tie_ordinal=last[1])
    cutoffs = None if cutoff is None else np.full(len(users), cutoff, np.int64)
    return make_examples(store, requests, cutoffs)[1]
