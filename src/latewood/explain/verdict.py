"""The answer to "why is this event (not) in the sequence?": one word, one sentence, and the facts it rests on."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["in", "late", "after", "superseded", "cut", "expired", "scrubbed", "unknown"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why one version of an event is, or is not, in the sequence of a request. Units: times in µs since epoch, UTC.

    `kind` is "in", or why not:
        after       it happened at or after the request's end (an anchor ends at its own place among ties)
        late        it was learned of at or after the cutoff, by `late_by`
        superseded  a newer version, or a deletion, had taken its place before the cutoff
        cut         `newer` events fill the sequence; `max_len` keeps no more
        expired     retention has taken it, or others that the request's pointer needs
        scrubbed    the user, or this event, was forgotten at `scrubbed_at`
        unknown     the store has no event of this user at this time; `before` and `after` are the nearest that it has
    """

    kind: Kind
    message: str
    event_ts: int
    request_ts: int  # where the request ends
    cutoff: int
    ingest_ts: int | None = None  # of this version, with `ordinal`; None where there is no event to speak of
    ordinal: int | None = None
    tier: Literal["stored", "recent"] | None = None  # how the request has it: by its pointer, or as a copy
    generation: int | None = None  # where it lies now, if a generation has it
    shard: int | None = None
    stripe: int | None = None  # of its user, counted from 0
    position: int | None = None  # in the sequence, counted from 0, the oldest
    length: int | None = None  # of the sequence
    late_by: int | None = None
    superseded_at: int | None = None  # when a newer version was learned of, before the cutoff or after it
    superseded_by: tuple[int, int, int] | None = None  # that version's place; None: a deletion, or one of several
    newer: int | None = None  # events of the request that are newer than this one
    max_len: int | None = None
    horizon: int | None = None  # what is older may have been taken by retention
    scrubbed_at: int | None = None
    before: int | None = None
    after: int | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form: what is not known, or has no meaning for this kind, is null."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"
