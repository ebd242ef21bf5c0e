"""The book of scrubs as the tier sees it: who was to be forgotten, and when (docs/protocol.md R16).

The records lie outside the tier, beside the generations, where every reader finds them. What the tier adds is the moment:
between the two commits of a scrub it is pending here, and whoever meets it first writes its record.
"""

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from latewood.errors import CorruptionError
from latewood.events import Events
from latewood.users import UserKeys


class PendingScrub(NamedTuple):
    """A scrub whose moment is fixed, and whose record may not be written yet."""

    number: int
    scrub_ts: int
    body: dict[str, Any]


class ScrubBook(Protocol):
    """What the tier asks of `latewood.immutable.Scrubs`."""

    def __len__(self) -> int:
        """How many records were read so far."""
        ...

    def refresh(self) -> int: ...

    def scrubbed_at(self, users: UserKeys) -> NDArray[np.int64]:
        """When each user was last scrubbed; before all of time for most."""
        ...

    def forgotten(self, events: Events, since: int) -> NDArray[np.bool_]:
        """Which events the records from number `since` on take."""
        ...

    def write(self, number: int, scrub_ts: int, body: dict[str, Any]) -> None:
        """Put a record, durably; the same one again is fine."""
        ...


def read_up_to(book: ScrubBook, count: int) -> None:
    """Have the book read at least `count` records. Raises: CorruptionError: it has fewer."""
    if len(book) < count and book.refresh() < count:
        raise CorruptionError(f"scrub {len(book)} has no record, though the mutable tier knows of {count} scrubs")
