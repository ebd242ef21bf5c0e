"""The log below a tier: batches in order and the state, committed together. The seam between rules and backends.

It is divided into segments; a cut seals the current one and begins the next, so that eviction frees whole segments.
"""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, Protocol

import xxhash

from latewood.clock import EARLIEST_TS
from latewood.errors import CorruptionError, SchemaError
from latewood.mutable.book import PendingScrub
from latewood.mutable.event_batch import EventBatch
from latewood.mutable.event_ids import IdRun
from latewood.mutable.tier import Blanking, TierState

VERSION = 3


class Segment(NamedTuple):
    """A stretch of the log. The newest ingest time is that of its events; one without events has EARLIEST_TS - 1."""

    number: int
    first_batch: int
    latest_ingest: int = EARLIEST_TS - 1


@dataclass(frozen=True, slots=True)
class LogState:
    """What the log keeps besides batches: the tier's state, and where its batches lie."""

    tier: TierState = field(default_factory=TierState)
    version: int = 0  # grows with every commit
    next_batch: int = 0
    segments: tuple[Segment, ...] = (Segment(0, 0),)  # not evicted, the last one current
    load_watermark: int = EARLIEST_TS  # of the latest bulk load, under way or over
    scrub: PendingScrub | None = None  # one whose record may not be written yet
    blanking: Blanking | None = None  # the latest, whose list may not be written yet

    @property
    def complete_from(self) -> int:
        """No event ingested from then on is anywhere but here: below, it may have been evicted or loaded in bulk."""
        return max(self.tier.floor, self.load_watermark)

    @property
    def first_batch(self) -> int:
        """The oldest batch that is not evicted."""
        return self.segments[0].first_batch

    @property
    def segment(self) -> Segment:
        """The current segment."""
        return self.segments[-1]

    def changed(self, **tier: Any) -> "LogState":
        """The next version, with these fields of the tier's state."""
        return replace(self, version=self.version + 1, tier=replace(self.tier, **tier))

    def appended(self, latest_ingest: int) -> "LogState":
        """The next version: one more batch, whose largest ingest time is given."""
        tier = self.tier
        latest = max(latest_ingest, self.segment.latest_ingest)
        return replace(
            self,
            tier=replace(
                tier, last=max(tier.last, latest_ingest), latest_ingest=max(tier.latest_ingest, latest_ingest)
            ),
            version=self.version + 1,
            next_batch=self.next_batch + 1,
            segments=(*self.segments[:-1], self.segment._replace(latest_ingest=latest)),
        )

    def rotated(self, *, even_if_empty: bool = False) -> "LogState":
        """With a fresh segment, unless the current one has no batch yet."""
        if self.segment.first_batch == self.next_batch and not even_if_empty:
            return self
        return replace(self, segments=(*self.segments, Segment(self.segment.number + 1, self.next_batch)))

    def evicted(self) -> "LogState":
        """Without the oldest sealed segments that lie wholly below the floor."""
        keep = 0
        while keep < len(self.segments) - 1 and self.segments[keep].latest_ingest < self.tier.floor:
            keep += 1
        return replace(self, segments=self.segments[keep:])

    def recorded(self, number: int) -> "LogState":
        """With the scrub of that number recorded, unless another has seen to it."""
        if self.scrub is None or self.scrub.number != number:
            return self
        return replace(self.changed(scrubs=number + 1), scrub=None)

    def to_bytes(self) -> bytes:
        tier = {name: getattr(self.tier, name) for name in _TIER_FIELDS}
        document = {"format": VERSION, **{name: getattr(self, name) for name in _FIELDS}, "tier": tier}
        body = json.dumps(document, separators=(",", ":")).encode()
        return body + xxhash.xxh3_64_intdigest(body).to_bytes(8, "little")

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> "LogState":
        """The inverse. Raises: CorruptionError: not those bytes. SchemaError: written by a newer version."""
        body = data[:-8]
        if xxhash.xxh3_64_intdigest(body).to_bytes(8, "little") != data[-8:]:
            raise CorruptionError(f"{where}: the checksum of the state differs")
        document = json.loads(body)
        if (version := document.pop("format")) > VERSION:
            raise SchemaError(f"{where} has format version {version}; this code reads {VERSION}")
        document["tier"] = TierState(**document["tier"])
        if (scrub := document.get("scrub")) is not None:
            document["scrub"] = PendingScrub(*scrub)
        if (blanking := document.get("blanking")) is not None:
            number, codes = blanking
            document["blanking"] = Blanking(number, {int(trait): listed for trait, listed in codes.items()})
        document["segments"] = tuple(Segment(*segment) for segment in document["segments"])
        return cls(**document)


_FIELDS = [item.name for item in fields(LogState)]
_TIER_FIELDS = [item.name for item in fields(TierState)]


class LogFullError(Exception):
    """The log had to be enlarged: nothing was committed, do it all again."""


class LogBusyError(Exception):
    """A writer of this process has to finish first: let go of the tier's lock and try again."""


class SegmentGoneError(Exception):
    """A segment was evicted by another process since the state was read: read it again."""


class LogTransaction(Protocol):
    """The only writer, of all processes. Leaving the block without `commit` changes nothing."""

    state: LogState

    def put(self, number: int, batch: EventBatch) -> None: ...

    def commit(self, state: LogState) -> None:
        """Make the batches and the state durable, in one step; a state with a new segment seals the current one."""
        ...


class Log(Protocol):
    """Where batches are kept. `head` and `read` are called under the tier's lock, and may raise LogBusyError."""

    def check_process(self) -> None:
        """Raises: ConflictError: it was opened before this process was forked, and cannot be used here."""
        ...

    def head(self) -> LogState:
        """The newest committed state."""
        ...

    def read(self, first_batch: int, state: LogState) -> Iterator[EventBatch]:
        """The batches from `first_batch` up to those of `state`, all of them, in order.

        Raises: SegmentGoneError: some were evicted meanwhile. CorruptionError: some are damaged or missing.
        """
        ...

    def begin(self) -> AbstractContextManager[LogTransaction]: ...

    def id_runs(self) -> list[IdRun]:
        """The event ids of evicted batches, oldest first."""
        ...

    def keep_ids(self, runs: list[IdRun]) -> None:
        """Replace them, durably."""
        ...

    def forget(self, state: LogState) -> None:
        """Free the segments that `state`, which is committed, no longer has."""
        ...

    def claim_load(self) -> bool:
        """Become the owner of bulk loads; False while another is alive. An owner that dies loses the claim."""
        ...

    def release_load(self) -> None: ...

    def close(self) -> None: ...
