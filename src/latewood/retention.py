"""Retention: how much of every history a store keeps (docs/protocol.md R15)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from numbers import Integral
from typing import Any

from latewood.clock import EARLIEST_TS
from latewood.errors import SchemaError

_COUNT_MAX = 2**63 - 1
_US = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Retention:
    """What compaction lets go of: always a user's oldest events, never a part of those of one time.

    Args:
        max_age: keep events of this long before the generation's watermark.
        max_events: keep at least the newest this many of every user. With both, what either lets go of goes.
    Raises: SchemaError: not a positive age or count.
    """

    max_age: timedelta | None = None
    max_events: int | None = None

    def __post_init__(self) -> None:
        if self.max_age is not None and (not isinstance(self.max_age, timedelta) or self.max_age <= timedelta()):
            raise SchemaError(f"max_age is a positive timedelta, not {self.max_age!r}")
        if self.max_events is not None:
            if not isinstance(self.max_events, Integral) or not 1 <= self.max_events <= _COUNT_MAX:
                raise SchemaError(f"max_events is {self.max_events!r}; it counts events")
            object.__setattr__(self, "max_events", int(self.max_events))  # a manifest has no numbers of numpy

    def __str__(self) -> str:
        age = [] if self.max_age is None else [f"what is younger than {str(self.max_age).removesuffix(', 0:00:00')}"]
        count = [] if self.max_events is None else [f"the newest {self.max_events:,} of every user"]
        return "keep " + (" and of that ".join([*age, *count]) or "all")

    @property
    def max_age_us(self) -> int | None:
        """The age in µs."""
        return None if self.max_age is None else self.max_age // _US

    def horizon(self, watermark: int) -> int | None:
        """The time before which events are too old for a generation of this watermark. Units: µs."""
        return None if self.max_age_us is None else max(watermark - self.max_age_us, EARLIEST_TS)

    def lets_go_of_more_than(self, other: "Retention | None") -> bool:
        """Whether something may go by this retention that stays by the other one."""
        if other is None:
            return self.max_age is not None or self.max_events is not None
        limits = (self.max_age_us, other.max_age_us), (self.max_events, other.max_events)
        return any(mine is not None and (theirs is None or theirs > mine) for mine, theirs in limits)

    def to_json(self) -> dict[str, int | None]:
        """A JSON-able form, as kept in manifests."""
        return {"max_age_us": self.max_age_us, "max_events": self.max_events}

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | None) -> "Retention | None":
        """The inverse; None where everything is kept."""
        if document is None:
            return None
        age, events = document["max_age_us"], document["max_events"]
        return cls(None if age is None else int(age) * _US, None if events is None else int(events))
