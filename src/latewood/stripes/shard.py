"""One opened shard file: mapped, and checked so that no byte of it can lead a kernel astray."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.errors import CorruptionError
from latewood.storage import Storage
from latewood.stripes.layout import TABLE_FIELDS, StripeColumn
from latewood.users import UserKeys


class Shard:
    """One opened, validated shard file."""

    key: str
    epoch: bytes
    generation: int
    number: int
    columns: tuple[StripeColumn, ...]
    user_count: int
    event_count: int
    stripe_count: int
    size_bytes: int
    table: NDArray[np.uint64]  # (TABLE_FIELDS,): this shard's row of an address table

    @classmethod
    def open(
        cls,
        storage: Storage,
        key: str,
        *,
        columns: Sequence[StripeColumn] | None = None,
        epoch: bytes | None = None,
        generation: int | None = None,
        number: int | None = None,
        footer_xxh3: int | None = None,
    ) -> "Shard":
        """Map a file and check its index. Raises: CorruptionError; SchemaError: a newer format version; FileNotFoundError."""
        raise NotImplementedError

    @property
    def user_ids(self) -> pa.Array:
        """The user ids in key order, int64 or string."""
        raise NotImplementedError

    @property
    def keys(self) -> UserKeys:
        """The user keys, sorted."""
        raise NotImplementedError

    @property
    def first_event(self) -> NDArray[np.int64]:
        """(users + 1,): events before each user's; the differences are event counts."""
        raise NotImplementedError

    def locate(self, keys: UserKeys) -> NDArray[np.int64]:
        """The index of each user, -1 where unknown."""
        raise NotImplementedError

    def verify(self, users: NDArray[np.int64] | None = None) -> None:
        """Check every block's checksum (of some users or all). Raises: CorruptionError."""
        raise NotImplementedError


class Tables:
    """The address tables of a generation's shards, by shard number: what kernels are given."""

    rows: NDArray[np.uint64]  # (shards, TABLE_FIELDS); zeros where the shard is not open yet
    shards: list[Shard | None]

    def __init__(self, count: int) -> None:
        self.rows = np.zeros((count, TABLE_FIELDS), np.uint64)
        self.shards = [None] * count

    def put(self, number: int, shard: Shard) -> None:
        """Add an opened shard."""
        self.shards[number] = shard
        self.rows[number] = shard.table

    def damage(self, shard: int, user: int, column: int, stripe: int) -> CorruptionError:
        """The error for a block whose checksum differs."""
        raise NotImplementedError
