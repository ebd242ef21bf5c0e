"""Streams in plain Python: conditions on events as dicts of values; filter first, cut last. No code of ours."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

import latewood as lw
from latewood.conditions import And, Comparison, IsIn, IsNull, Not, Or

Row = dict[str, Any]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def meets(where: Any, row: Row, types: dict[str, str] | None = None) -> bool:
    """Whether an event meets a condition. Args: types: of the columns that are "float32"; times are int µs."""
    if where is None:
        return True
    if isinstance(where, Not):
        return not meets(where.operand, row, types)
    if isinstance(where, And):
        return meets(where.left, row, types) and meets(where.right, row, types)
    if isinstance(where, Or):
        return meets(where.left, row, types) or meets(where.right, row, types)
    value = row[where.name]
    if isinstance(where, IsNull):
        return value is None
    if value is None:
        return False
    single = (types or {}).get(where.name) == "float32"
    if isinstance(where, IsIn):
        return any(_compare("==", value, other, single) for other in where.values)
    assert isinstance(where, Comparison)
    return _compare(where.op, value, where.value, single)


def _compare(op: str, value: Any, other: Any, single: bool) -> bool:
    if isinstance(other, datetime):
        other = (other.replace(tzinfo=other.tzinfo or UTC) - _EPOCH) // timedelta(microseconds=1)
    if isinstance(value, float):
        try:
            other = float(other)
        except OverflowError:
            other = math.inf if other > 0 else -math.inf
        if single:
            with np.errstate(over="ignore"):
                other = float(np.float32(other))
    return {
        "==": lambda: value == other,
        "!=": lambda: value != other,
        "<": lambda: value < other,
        "<=": lambda: value <= other,
        ">": lambda: value > other,
        ">=": lambda: value >= other,
    }[op]()


def chosen(history: list[Row], projection: lw.Projection, types: dict[str, str] | None = None) -> list[tuple[int, int]]:
    """Of a whole history, oldest first, the places that the streams hold, and the bits of those that do."""
    start = 0 if projection.scan is None else max(0, len(history) - projection.scan)
    bits = [0] * len(history)
    for i, (_, stream) in enumerate(projection.streams):
        places = [place for place in range(start, len(history)) if meets(stream.where, history[place], types)]
        for place in places[len(places) - min(stream.count, len(places)) :]:
            bits[place] |= 1 << i
    kept = [(place, found) for place, found in enumerate(bits) if found]
    return kept if projection.max_len is None else kept[len(kept) - min(projection.max_len, len(kept)) :]
