"""Compile: conditions on traits, as what stripes are searched for (stripes/search.py).

Every comparison becomes intervals of the bits that its column stores: of integers and times as they are, of codes those
whose values meet the comparison, of floats by the order of their bits. Conditions stay what conditions.py says of them:
a comparison with a null is false, and NaN is unequal to everything.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from latewood.clock import to_us
from latewood.conditions import And, Comparison, Condition, IsIn, IsNull, Not, Or
from latewood.materialize.decode import WantedColumn
from latewood.stripes import leaf as fields
from latewood.stripes import search
from latewood.stripes.search import Search

Intervals = list[tuple[int, int]]  # closed, of whole numbers


@dataclass(slots=True)
class _Compiler:
    """What was compiled so far."""

    wanted: Mapping[str, WantedColumn]
    words: Mapping[str, pa.Array]
    leaves: list[list[int]] = field(default_factory=list)
    known: dict[Condition, int] = field(default_factory=dict)  # leaves that were met before
    intervals: Intervals = field(default_factory=list)
    operations: list[tuple[int, int]] = field(default_factory=list)
    slots: dict[int, int] = field(default_factory=dict)  # by column

    def add(self, where: Condition) -> None:
        """Append a condition's operations."""
        if isinstance(where, Not):
            self.add(where.operand)
            self.operations.append((search.NOT, 0))
        elif isinstance(where, And | Or):
            operation, unless = (
                (search.AND, search.UNLESS_NONE) if isinstance(where, And) else (search.OR, search.UNLESS_ALL)
            )
            self.add(where.left)
            skip = len(self.operations)
            self.operations.append((unless, 0))
            self.add(where.right)
            self.operations.append((operation, 0))
            self.operations[skip] = unless, len(self.operations) - skip - 1
        else:
            self.operations.append((search.LEAF, self._leaf(where)))

    def _leaf(self, where: Condition) -> int:
        if where not in self.known:
            self.known[where] = len(self.leaves)
            self.leaves.append(self._made(where))
        return self.known[where]

    def _made(self, where: Condition) -> list[int]:
        [name] = where.names
        wanted, leaf = self.wanted[name], [0] * fields.LEAF_FIELDS
        if wanted.column is None:  # the generation is older than the trait
            leaf[fields.KIND] = fields.ALWAYS if isinstance(where, IsNull) else fields.NEVER
            return leaf
        leaf[fields.COLUMN], leaf[fields.ITEMSIZE] = wanted.column, wanted.dtype.itemsize
        leaf[fields.SLOT] = self.slots.setdefault(wanted.column, len(self.slots))
        if isinstance(where, IsNull):
            leaf[fields.KIND] = fields.IS_NULL
            return leaf
        words = self.words.get(name)
        plain = _codes_that_meet(where, name, words) if words is not None else values_that_meet(where, wanted.dtype)
        bits = 8 * wanted.dtype.itemsize
        apart, joined = _apart(plain, bits), _joined(plain, bits)
        # codes are looked at even where none can meet it: one without a value might
        leaf[fields.KIND] = fields.COMPARES if apart or words is not None else fields.NEVER
        leaf[fields.LIMIT] = 0 if words is None else len(words)
        leaf[fields.FLAGS] = sum(1 << value for value in (0, 1) if any(low <= value <= high for low, high in apart))
        leaf[fields.FLAGS] |= 0 if words is None else fields.CODED
        for first, count, intervals in (
            (fields.APART, fields.APART_COUNT, apart),
            (fields.JOINED, fields.JOINED_COUNT, joined),
        ):
            leaf[first], leaf[count] = len(self.intervals), len(intervals)
            self.intervals += intervals
        return leaf


def compile_conditions(
    conditions: Sequence[Condition | None], wanted: Mapping[str, WantedColumn], words: Mapping[str, pa.Array]
) -> Search:
    """What to search for, for each of some streams. Args: words: code → value, of the columns that are coded."""
    compiler, programs = _Compiler(wanted, words), [0]
    for where in conditions:
        if where is not None:
            compiler.add(where)
        programs.append(len(compiler.operations))
    intervals = [(low, high - low) for low, high in compiler.intervals]
    return Search(
        np.array(compiler.leaves, np.uint64).reshape(-1, fields.LEAF_FIELDS),
        np.array(intervals, np.uint64).reshape(-1, 2),
        np.array(compiler.operations, np.uint64).reshape(-1, 2),
        np.array(programs, np.uint64),
        len(compiler.slots),
    )


def values_that_meet(where: Condition, dtype: np.dtype[Any]) -> Intervals:
    """The values, as whole numbers, for which a comparison is true, ascending and apart.

    Of signed integers they may be negative; of floats they are bits.
    """
    assert isinstance(where, Comparison | IsIn)
    pairs = [("==", value) for value in where.values] if isinstance(where, IsIn) else [(where.op, where.value)]
    of: Callable[[str, Any, np.dtype[Any]], Intervals] = _floats if dtype.kind == "f" else _integers
    return _merged([interval for op, value in pairs for interval in of(op, value, dtype)])


def _codes_that_meet(where: Condition, name: str, words: pa.Array) -> Intervals:
    """Runs of codes. Each value is looked at once."""
    meets = np.concatenate([[False], where.evaluate({name: words}), [False]])
    edges = np.flatnonzero(meets[1:] != meets[:-1]).tolist()
    return [(start, stop - 1) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def _integers(op: str, value: Any, dtype: np.dtype[Any]) -> Intervals:
    if isinstance(value, datetime):
        value = to_us(value)
    least, most = (0, 1) if dtype.kind == "b" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    everything: Intervals = [(least, most)]
    if isinstance(value, float) and not value.is_integer():  # nothing equals it
        if math.isnan(value) or op in ("==", "!="):
            return everything if op == "!=" else []
        if math.isinf(value):
            return everything if (value > 0) == (op in ("<", "<=")) else []
        # between two integers: below the upper one is not above the lower one
        op = {"<": "<=", ">=": ">"}.get(op, op)
    floor = math.floor(value)
    found: Intervals = {
        "==": [(floor, floor)],
        "!=": [(least, floor - 1), (floor + 1, most)],
        "<": [(least, floor - 1)],
        "<=": [(least, floor)],
        ">": [(floor + 1, most)],
        ">=": [(floor, most)],
    }[op]
    clipped = [(max(low, least), min(high, most)) for low, high in found]
    return [(low, high) for low, high in clipped if low <= high]


def _floats(op: str, value: Any, dtype: np.dtype[Any]) -> Intervals:
    """By *rank*: the bits, changed so that they have the order of the floats, with NaNs at both ends."""
    bits = 8 * dtype.itemsize
    sign, every = 1 << (bits - 1), (1 << bits) - 1

    def rank(number: float) -> int:
        with np.errstate(over="ignore"):
            found = int(np.array(number, dtype).view(f"u{dtype.itemsize}"))
        return found ^ every if found & sign else found | sign

    try:
        number = float(value)
    except OverflowError:  # an int beyond every double
        number = math.inf if value > 0 else -math.inf
    if math.isnan(number):
        return [(0, every)] if op == "!=" else []
    low, high = rank(number), rank(number)
    if low in (rank(-0.0), rank(0.0)):
        low, high = rank(-0.0), rank(0.0)
    least, most = rank(-math.inf), rank(math.inf)
    ranks: Intervals = {
        "==": [(low, high)],
        "!=": [(0, low - 1), (high + 1, every)],
        "<": [(least, low - 1)],
        "<=": [(least, high)],
        ">": [(high + 1, most)],
        ">=": [(low, most)],
    }[op]
    found = []
    for first, last in ranks:
        if first <= min(last, sign - 1):  # negative, whose bits fall as they rise
            found.append((every - min(last, sign - 1), every - first))
        if max(first, sign) <= last:
            found.append((max(first, sign) - sign, last - sign))
    return found


def _merged(intervals: Intervals) -> Intervals:
    """Ascending and apart."""
    merged: Intervals = []
    for low, high in sorted(intervals):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(high, merged[-1][1])
        else:
            merged.append((low, high))
    return merged


def _apart(intervals: Intervals, bits: int) -> Intervals:
    """Of bits: what lies below 0 is above everything else, and an interval around 0 is two."""
    found = []
    for low, high in intervals:
        if low < 0:
            found.append((low + (1 << bits), min(high, -1) + (1 << bits)))
        if high >= 0:
            found.append((max(low, 0), high))
    return _merged(found)


def _joined(intervals: Intervals, bits: int) -> Intervals:
    """Of bits, where an interval may begin below 0, and so run past the largest value: its end is then beyond that."""
    return [(low + (1 << bits), high + (1 << bits)) if low < 0 else (low, high) for low, high in intervals]
