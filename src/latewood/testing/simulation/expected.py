"""What becomes of an example when it is materialized: served in full, or refused, and why (docs/protocol.md R3, R15, R16).

When an example is logged, the model works out which versions its pointer means and which its recents are, by the text of
R2 and R3. Later it is enough to count how many of the pointer's a generation still holds.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from latewood.schema import Schema
from latewood.testing.simulation.broken import require

if TYPE_CHECKING:
    from latewood.testing.simulation.model import Model, Version

Order = tuple[int, int, int]  # event_ts, ingest_ts, ordinal
END_OF_TIES = -(2**62)  # a request that is no event ends before any event of its time


class Outcome(Enum):
    """What a reader must do with an example."""

    SERVED = "served"
    EXPIRED = "expired"
    SCRUBBED = "scrubbed"
    UNSURE = "either"  # a scrub was recorded just then


@dataclass(frozen=True, slots=True)
class Seen:
    """What one request saw."""

    user: Any
    cutoff: int
    stored: tuple["Version", ...]  # what the pointer means, oldest first
    recent: tuple["Version", ...]
    hidden: frozenset[int]  # what it would have seen, had retention or a scrub not taken it before
    request: dict[str, Any]
    end: Order  # before which it saw events

    def has_other_end(self, model: "Model") -> bool:
        """Whether an anchor would end elsewhere by now: an import may tie with it, and pass for a version of it."""
        mine = [version for version in model.of(self.user) if version.index not in self.hidden]
        return end_of(mine, self.request, self.cutoff) != self.end

    def outcome(self, scrub_ts: int, held: Collection[int], max_len: int | None) -> Outcome:
        """What a generation that holds some versions can do for it, for a user last scrubbed then."""
        if self.cutoff <= scrub_ts:
            return Outcome.SCRUBBED
        found = [version for version in self.stored if version.index in held]
        if len(found) == len(self.stored) or max_len == 0:
            return Outcome.SERVED
        if max_len is None or not found:
            return Outcome.EXPIRED
        left = sum(version.superseded_at >= self.cutoff for version in found)
        newer = sum(version.row.event_ts >= found[0].row.event_ts for version in self.recent)
        return Outcome.SERVED if left + newer >= max_len else Outcome.EXPIRED


@dataclass(frozen=True, slots=True)
class Logged:
    """Examples that were logged, the requests that the oracle answers instead, and what each saw: the same rows."""

    examples: pa.Table
    requests: pa.Table
    seen: tuple[Seen, ...]

    @property
    def watermark(self) -> int:
        """The latest of its pointers."""
        pointers = self.examples["uih"].combine_chunks().field("watermark").cast(pa.int64())
        return max(pointers.to_pylist())

    def has_traits_of(self, schema: Schema, watermark: int) -> bool:
        """Whether a generation's schema can tell what its recent events say.

        Logged later, as of the same watermark, they may lack a trait that was dropped; earlier, one that was added.
        """
        recent = self.examples["recent"].combine_chunks()
        names = {field.name for field in recent.type}
        is_empty = not sum(map(len, recent.field("event_ts").to_pylist()))
        return is_empty or all(trait.label in names or (trait.added and self.watermark < watermark) for trait in schema)


@dataclass(frozen=True, slots=True)
class Base:
    """What examples are made from: a generation."""

    watermark: int
    held: Collection[int]


def see(model: "Model", base: Base, request: dict[str, Any], cutoff: int, pointer: dict[str, Any]) -> Seen:
    """What a request saw of a generation and the mutable tier, and that its pointer says so."""
    user, scrub_ts = request["user_id"], model.scrubbed_at(request["user_id"])
    if cutoff <= scrub_ts:
        return Seen(user, cutoff, (), (), frozenset(), request, (request["request_ts"], END_OF_TIES, 0))
    hidden, mine = set(), []
    for version in model.of(user):
        is_withheld = base.watermark <= scrub_ts and version.ingest_ts <= scrub_ts
        is_lost = version.ingest_ts < base.watermark and version.index not in base.held
        if is_withheld or is_lost:
            hidden.add(version.index)
        else:
            mine.append(version)
    end, watermark = _end_told(model, mine, request, cutoff), pointer["watermark"]
    require(watermark == min(cutoff, base.watermark), "R8: a watermark of", watermark, "by", base.watermark, cutoff)
    stored = tuple(v for v in mine if v.place[1:] < end and v.ingest_ts < watermark <= v.superseded_at)
    recent = tuple(
        v for v in mine if v.place[1:] < end and watermark <= v.ingest_ts < cutoff and v.superseded_at >= cutoff
    )
    ties = sum(version.row.event_ts == pointer["end_ts"] for version in stored)
    said = pointer["length"], pointer["end_ties"]
    require(said == (len(stored), ties), "R3: length and ties", said, "for", stored, "of", request, cutoff, pointer)
    require(not stored or pointer["start_ts"] == stored[0].row.event_ts, "R3: start", pointer, stored)
    return Seen(user, cutoff, stored, recent, frozenset(hidden), request, end)


def _end_told(model: "Model", mine: list["Version"], request: dict[str, Any], cutoff: int) -> Order:
    """Where a request ends. Retention may have taken an anchor's first version since the anchor was offered: it counts."""
    end = end_of(mine, request, cutoff)
    if request["anchor"] is None or request["anchor"]["end"] is None:
        return end
    told = request["anchor"]["end"]
    order = told["event_ts"], told["ingest_ts"], told["ordinal"]
    ends = end, end_of(model.of(request["user_id"]), request, cutoff)
    require(order in ends, "R2: an anchor ends before", order, "and not", ends, request)
    return order


def end_of(mine: list["Version"], request: dict[str, Any], cutoff: int) -> Order:
    """Before which place events are seen (R2): of an anchor, the first of its versions that was known by then."""
    if request["anchor"] is None:
        return request["request_ts"], END_OF_TIES, 0
    own = request["request_ts"], request["anchor"]["ingest_ts"], request["anchor"]["ordinal"]
    found, versions = [own[1]], set[Order]()
    while found:
        at = found.pop()
        for version in mine:
            if version.superseded_at == at and (place := version.place[1:]) not in versions:
                versions.add(place)
                found.append(version.ingest_ts)
    return min([own, *(place for place in versions if place[1] < cutoff)])
