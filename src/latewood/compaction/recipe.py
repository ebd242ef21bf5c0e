"""Recipe: what the next generation is made of, and what it is to be like. Fixed with the cut; one for all shards."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latewood.events import Events, Suppressions
from latewood.immutable import Change, Generation, Scrubs
from latewood.immutable.manifest import Origin
from latewood.schema import Schema
from latewood.stripes import StripeColumn, columns_of
from latewood.users import UserKeys


@dataclass(frozen=True, slots=True)
class Recipe:
    """Units: µs since epoch, UTC."""

    parent: Generation  # what is merged into
    target: Change  # the schema, the shards and the retention to build by
    number: int  # the new generation's id
    uuid: str  # the attempt's
    watermark: int
    origin: Origin
    suppressions: Suppressions  # what was superseded since the parent's watermark
    scrubs: Scrubs

    @property
    def schema(self) -> Schema:
        return self.target.schema

    @property
    def columns(self) -> tuple[StripeColumn, ...]:
        """Of the new shards."""
        return columns_of(self.target.schema)

    @property
    def may_name_again(self) -> bool:
        """Whether files of the parent may be the new generation's, too: its shards are the same ranges of users.

        And nobody deletes them meanwhile: those of the newest generation go only when there is a newer one, and then this
        attempt has lost. A rollback's parent is an older one, whose files may be collected at any time.
        """
        return len(self.parent.shards) == self.target.shards and self.parent.id == self.number - 1

    @property
    def horizon(self) -> int | None:
        """The time before which events are too old."""
        return None if self.target.retention is None else self.target.retention.horizon(self.watermark)

    @property
    def max_events(self) -> int | None:
        """How many events of a user are kept at least."""
        return None if self.target.retention is None else self.target.retention.max_events

    @property
    def scrub_count(self) -> int:
        """How many scrubs the new generation has applied for good: those from before its watermark.

        One that came after the cut is applied to what is here, too. But events between the cut and the scrub are not
        here, so that the next generation has to apply it again.
        """
        return applied_by(self.scrubs, self.watermark)

    def touched(self, users: UserKeys) -> NDArray[np.bool_] | None:
        """Of which users something is to be forgotten; None for nobody."""
        if len(self.scrubs) <= self.parent.scrubs:
            return None
        touched = self.scrubs.touched(users, self.parent.scrubs)
        return touched if touched.any() else None

    def forgotten(self, events: Events) -> NDArray[np.bool_]:
        """Which events are."""
        return self.scrubs.forgotten(events, self.parent.scrubs)


def applied_by(scrubs: Scrubs, watermark: int) -> int:
    """How many scrubs a generation of this watermark has applied: their times ascend with their numbers."""
    return sum(record.scrub_ts < watermark for record in scrubs)
