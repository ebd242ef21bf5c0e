"""The few places where the real code draws chance of its own, drawn from the seed instead."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from latewood.testing.simulation.chance import Chance


@contextmanager
def seeded(chance: Chance) -> Iterator[None]:
    """Inside, every name that is drawn comes from `chance`."""
    with patch("latewood.compaction.attempt.attempt_uuid", chance.token):
        yield
