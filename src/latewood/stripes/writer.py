"""Writes one shard file, user by user in key order, in bounded memory."""

from collections.abc import Sequence
from typing import Protocol

from latewood.stripes.layout import StripeColumn
from latewood.stripes.runs import ShardSummary, UserRun


class Sink(Protocol):
    """What storage.writer() gives: something that takes bytes."""

    def write(self, data: memoryview | bytes) -> object: ...


class ShardWriter:
    """Streams one shard to a sink, users in key order."""

    def __init__(
        self, writer: Sink, columns: Sequence[StripeColumn], *, epoch: bytes, generation: int, shard: int
    ) -> None:
        raise NotImplementedError

    def add(self, run: UserRun) -> None:
        """Write users that come after all earlier ones. Raises: ValueError: unsorted; CorruptionError: carried damage."""
        raise NotImplementedError

    def finish(self) -> ShardSummary:
        """Write the index; the sink is left open for its owner to close."""
        raise NotImplementedError
