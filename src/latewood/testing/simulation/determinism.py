"""What of the real code a case replaces: where it draws chance of its own, and how much is done at once."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

from latewood.testing.simulation.chance import Chance

PORTIONS = {
    "latewood.compaction.settings._ROWS_MAX": 3,
    "latewood.compaction.spill._FLUSH_BYTES_MAX": 400,
    "latewood.compaction.spill._SORTED_AT_ONCE": 2,
    "latewood.compaction.forget._ROWS_AT_ONCE": 2,
    "latewood.compaction.forget._LISTS_AT_ONCE": 2,
    "latewood.mutable.logged_tier.SCAN_ROWS": 2,
    "latewood.sealing._AT_ONCE": 1,
    "latewood.vocabulary.vocabulary.CODES_AT_ONCE": 1,
}


@contextmanager
def seeded(chance: Chance, *, portions: bool = False) -> Iterator[None]:
    """Inside, every name that is drawn comes from `chance`, and shards are built one after the other.

    Args: portions: what is divided where there is much of it is divided where there is little, too.
    """
    with (
        ExitStack() as small,
        warnings.catch_warnings(),  # of histories that are empty, or dated finely: they are made to be
        patch("latewood.compaction.attempt.attempt_uuid", chance.token),
        patch("latewood.compaction.settings._processors", lambda: 1),
    ):
        for name, much in PORTIONS.items() if portions else ():
            small.enter_context(patch(name, much))
        warnings.simplefilter("ignore", UserWarning)
        yield
