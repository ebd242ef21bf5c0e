"""The few places where the real code draws chance of its own, drawn from the seed instead."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from latewood.testing.simulation.chance import Chance


@contextmanager
def seeded(chance: Chance) -> Iterator[None]:
    """Inside, every name that is drawn comes from `chance`, and shards are built one after the other."""
    with (
        warnings.catch_warnings(),  # of histories that are empty, or dated finely: they are made to be
        patch("latewood.compaction.attempt.attempt_uuid", chance.token),
        patch("latewood.compaction.settings._processors", lambda: 1),
    ):
        warnings.simplefilter("ignore", UserWarning)
        yield
