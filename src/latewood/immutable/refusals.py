"""What is said of a pointer that cannot be resolved: which row, whose history, what was expected and what was found."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.clock import show_ts
from latewood.errors import ExpiredError, LatewoodError, PointerError, ScrubbedError
from latewood.immutable.manifest import Generation
from latewood.immutable.resolve import Resolution, Status
from latewood.pointer import Pointers
from latewood.stripes import Tables


def require(
    resolution: Resolution,
    pointers: Pointers,
    user_ids: pa.Array,
    generation: Generation,
    tables: Tables,
    scrub_ts: NDArray[np.int64] | None = None,
) -> None:
    """Accept only pointers that resolved in full.

    Args:
        generation, tables: of the resolution, for the message.
        scrub_ts: (n,) when the users were last scrubbed, where a status is SCRUBBED.
    Raises: ScrubbedError, ExpiredError, PointerError: names the first bad row and its user, and says what is wrong.
    """
    bad = np.flatnonzero(resolution.status)
    if not len(bad):
        return
    row = int(bad[0])
    status = Status(resolution.status[row])
    error: type[LatewoodError] = PointerError
    if status is Status.SCRUBBED:
        error, what = ScrubbedError, _scrubbed(None if scrub_ts is None else int(scrub_ts[row]))
    elif status is Status.EXPIRED:
        error, what = ExpiredError, _expired(resolution, pointers, generation, tables, row)
    else:
        what = _unresolved(status, resolution, pointers, generation, row)
    others = f" ({len(bad) - 1} more rows are affected)" if len(bad) > 1 else ""
    raise error(f"row {row}, user {user_ids[row].as_py()!r}: {what}{others}")


def _scrubbed(scrub_ts: int | None) -> str:
    when = "" if scrub_ts is None else f" at {show_ts(scrub_ts)}"
    return f"the user was scrubbed{when}, in whole or in part, and the example is from before"


def _expired(resolution: Resolution, pointers: Pointers, generation: Generation, tables: Tables, row: int) -> str:
    """Retention took events: what is left, up to when they are gone, and what is the oldest there is."""
    what = f"the pointer means {pointers.length[row]} events, and retention left {resolution.found[row]} of them"
    if generation.horizon is not None:
        what += f"; events before {show_ts(generation.horizon)} are gone"
    elif generation.retention is not None and generation.retention.max_events is not None:
        what += f"; the newest {generation.retention.max_events} events of a user are kept"
    shard, user = tables.shards[int(resolution.shard[row])], int(resolution.user[row])
    if shard is None or user < 0:
        return f"{what}; the generation has none of this user's events"
    return f"{what}; the user's oldest event kept is of {show_ts(int(shard.first_ts[shard.first_stripe[user]]))}"


def _unresolved(status: Status, resolution: Resolution, pointers: Pointers, generation: Generation, row: int) -> str:
    length, found = pointers.length[row], resolution.found[row]
    if status is Status.NEWER:
        own = show_ts(int(pointers.watermark[row]))
        return f"the pointer's watermark is {own}, the generation's {show_ts(generation.watermark)}"
    if status is Status.UNKNOWN_USER:
        return f"the pointer means {length} events, but the store has none of this user"
    if status is Status.SHORT:
        return f"the pointer means {length} events ({pointers.end_ties[row]} at its end), but only {found} are visible"
    expected, actual = int(pointers.checksum[row]), int(resolution.checksum[row])
    return f"the {length} events found are not those captured: checksum {actual:#018x}, expected {expected:#018x}"
