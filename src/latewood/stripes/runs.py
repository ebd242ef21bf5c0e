"""What goes into a shard and which rows come out: the arguments of the writer and of the decoder."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.columns import Column, TraitColumn
from latewood.users import UserKeys

if TYPE_CHECKING:
    from latewood.stripes.shard import Shard


@dataclass(frozen=True, slots=True)
class Carried:
    """Leading stripes of users of an older shard, to be taken over as bytes.

    The older shard may have other traits: those that the new one has not are left behind, those that it has not itself
    are null.

    Shapes: user, stripes (users,), beside the users of the run. `user` is the index in `shard`, -1 where nothing is
    carried. `stripes` may include a user's last, partial stripe only if no new event of that user follows.
    """

    shard: "Shard"
    user: NDArray[np.int64]
    stripes: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class UserRun:
    """Users in key order with their events, or, where stripes are carried, with the events after those.

    Shapes: user_ids, keys (users,); offsets (users + 1,) int64 into the columns, which are in the shard's order:
    event_ts, delay (ingest_ts - event_ts), ordinal, traits, superseded_at (see `superseded_column`; where it is left
    out, none of these events is). A list trait is one of them, though it has two in the shard. A user's events are in the
    total order.
    """

    user_ids: pa.Array
    keys: UserKeys
    offsets: NDArray[np.int64]
    columns: Sequence[TraitColumn]
    carried: Carried | None = None


def plain(column: TraitColumn) -> Column:
    """A column of a run that is never one of lists: a built-in one, or superseded_at."""
    if not isinstance(column, Column):
        raise ValueError("expected values, not lists")
    return column


@dataclass(frozen=True, slots=True)
class Ranges:
    """Rows to decode: of each range, events [start, stop) of a user go to out[target : target + stop - start].

    Shapes: all (ranges,) int64. `shard` is the row of the tables; rows count from 0 within the user.
    """

    shard: NDArray[np.int64]
    user: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    target: NDArray[np.int64]
    _matrix: NDArray[np.int64] | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, matrix: NDArray[np.int64]) -> "Ranges":
        """Those of a matrix. Shapes: (5, ranges)."""
        matrix = np.ascontiguousarray(matrix)
        ranges = cls(*matrix)
        object.__setattr__(ranges, "_matrix", matrix)
        return ranges

    def __len__(self) -> int:
        return len(self.shard)

    @property
    def matrix(self) -> NDArray[np.int64]:
        """(5, ranges): the columns as kernels take them. Kept, since a batch decodes many columns of the same ranges."""
        if self._matrix is None:
            columns = (self.shard, self.user, self.start, self.stop, self.target)
            object.__setattr__(self, "_matrix", np.array(columns, np.int64, ndmin=2))
        return cast("NDArray[np.int64]", self._matrix)


@dataclass(frozen=True, slots=True)
class ShardSummary:
    """What a manifest says of a finished shard."""

    size_bytes: int
    event_count: int
    user_count: int
    stripe_count: int
    latest_ingest: int | None  # the largest ingest_ts; None without events
    footer_xxh3: int


class Pieces(NamedTuple):
    """The pieces that are wanted of each range: rows [start, stop) go to out[target : target + stop - start].

    Shapes: offsets (ranges + 1,): whose pieces are which; pieces (m, 3): start, stop, target. They ascend, none is empty,
    the first begins where its range does and the last ends there. The target of a range means nothing then.
    """

    offsets: NDArray[np.int64]
    pieces: NDArray[np.int64]


WHOLE = Pieces(np.zeros(0, np.int64), np.zeros((0, 3), np.int64))  # ranges as they are
