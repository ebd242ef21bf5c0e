"""Conditions on traits: `lw.col("action") == "like"`, combined with `&`, `|` and `~`.

A condition is a small frozen tree that can be looked into (by an index that wants to skip, by a message, by a test)
as well as evaluated. It is two-valued: a comparison with a null is false, `!=` and `is_in` included, and `~` is the
boolean not of that result; so `~(col("x") == 1)` holds where x is null, while `col("x") != 1` does not. NaN compares as
in IEEE 754.

A value is compared as the trait's type has it: exactly for integers (a float or a huge number is not rounded first), as
float32 for a float32 trait, by code point for strings, and in µs for times (a datetime, naive = UTC, or int µs).
"""

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, NoReturn, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from latewood.clock import to_us
from latewood.columns import one_array, plain_from_arrow, timestamps_to_us
from latewood.errors import SchemaError
from latewood.schema import EVENT_TS, TIME_TYPE, Schema, is_text

Value: TypeAlias = bool | int | float | str | datetime
Columns: TypeAlias = pa.Table | pa.RecordBatch | Mapping[str, pa.Array | pa.ChunkedArray]
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ARROW_OPERATORS = {
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


class Condition:
    """True or false of every event. Combine with `&`, `|`, `~`."""

    __slots__ = ()

    def __and__(self, other: "Condition") -> "Condition":
        return And(self, _condition(other))

    def __or__(self, other: "Condition") -> "Condition":
        return Or(self, _condition(other))

    def __invert__(self) -> "Condition":
        return Not(self)

    def __bool__(self) -> NoReturn:
        raise TypeError("a condition has no truth value: use & | ~ instead of and, or, not, or a chain a < b < c")

    @property
    def names(self) -> frozenset[str]:
        """The columns that the condition looks at."""
        raise NotImplementedError

    def validate(self, schema: Schema) -> None:
        """Raises: SchemaError: a trait that the schema lacks, or a value that cannot be compared with its trait."""
        raise NotImplementedError

    def evaluate(self, columns: Columns) -> NDArray[np.bool_]:
        """Which rows meet the condition.

        Args: columns: a table, or Arrow arrays of equal length by name.
        Raises: SchemaError: a column is missing, or not comparable with the value.
        """
        raise NotImplementedError


def check_condition(where: Any, schema: Schema) -> None:
    """Raises: SchemaError: not a condition, or one that does not fit the schema."""
    if not isinstance(where, Condition):
        raise SchemaError(f"where is a condition such as lw.col('trait') == 1, not {where!r}")
    where.validate(schema)


class col:  # noqa: N801
    """A trait by name (or "event_ts"), to be compared with values. Lower case, as polars and pyspark have it."""

    __hash__ = None  # type: ignore[assignment]
    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        if not isinstance(name, str):
            raise SchemaError(f"col() takes a trait's name, not {name!r}")
        self.name = name

    def __eq__(self, value: object) -> "Comparison":  # type: ignore[override]
        return Comparison(self.name, "==", _scalar(self.name, value))

    def __ne__(self, value: object) -> "Comparison":  # type: ignore[override]
        return Comparison(self.name, "!=", _scalar(self.name, value))

    def __lt__(self, value: object) -> "Comparison":
        return Comparison(self.name, "<", _scalar(self.name, value))

    def __le__(self, value: object) -> "Comparison":
        return Comparison(self.name, "<=", _scalar(self.name, value))

    def __gt__(self, value: object) -> "Comparison":
        return Comparison(self.name, ">", _scalar(self.name, value))

    def __ge__(self, value: object) -> "Comparison":
        return Comparison(self.name, ">=", _scalar(self.name, value))

    def is_in(self, values: Iterable[Any]) -> "IsIn":
        """Whether the value is one of these; false where null."""
        if isinstance(values, str):
            raise SchemaError(f"col({self.name!r}).is_in({values!r}) takes a list, not one string")
        if not isinstance(values, Iterable):
            raise SchemaError(f"col({self.name!r}).is_in takes a list, not {values!r}")
        return IsIn(self.name, tuple(_scalar(self.name, value) for value in values))

    def is_null(self) -> "IsNull":
        return IsNull(self.name)

    def __bool__(self) -> NoReturn:
        raise TypeError(f"{self!r} is not a condition yet: compare it with a value")

    def __repr__(self) -> str:
        return f"lw.col({self.name!r})"


@dataclass(frozen=True, slots=True, repr=False)
class Comparison(Condition):
    """`col(name) op value`."""

    name: str
    op: str
    value: Value

    def __repr__(self) -> str:
        return f"(lw.col({self.name!r}) {self.op} {self.value!r})"

    @property
    def names(self) -> frozenset[str]:
        return frozenset([self.name])

    def validate(self, schema: Schema) -> None:
        _comparable(self.name, _type_of(schema, self.name), self.value)

    def evaluate(self, columns: Columns) -> NDArray[np.bool_]:
        array = _column(columns, self.name)
        return _per_value(array, lambda plain: _compare(self.name, plain, self.op, self.value))


@dataclass(frozen=True, slots=True, repr=False)
class IsIn(Condition):
    """`col(name).is_in(values)`."""

    name: str
    values: tuple[Value, ...]

    def __repr__(self) -> str:
        return f"lw.col({self.name!r}).is_in({list(self.values)!r})"

    @property
    def names(self) -> frozenset[str]:
        return frozenset([self.name])

    def validate(self, schema: Schema) -> None:
        type_ = _type_of(schema, self.name)
        for value in self.values:
            _comparable(self.name, type_, value)

    def evaluate(self, columns: Columns) -> NDArray[np.bool_]:
        return _per_value(_column(columns, self.name), self._of)

    def _of(self, plain: pa.Array) -> NDArray[np.bool_]:
        if pa.types.is_string(plain.type):  # the one case where lists are long and comparing is slow
            for value in self.values:
                _comparable(self.name, plain.type, value)
            return _bools(pc.is_in(plain, pa.array(self.values, pa.string())))
        found = np.zeros(len(plain), np.bool_)
        for value in self.values:
            found |= _compare(self.name, plain, "==", value)
        return found


@dataclass(frozen=True, slots=True, repr=False)
class IsNull(Condition):
    """`col(name).is_null()`."""

    name: str

    def __repr__(self) -> str:
        return f"lw.col({self.name!r}).is_null()"

    @property
    def names(self) -> frozenset[str]:
        return frozenset([self.name])

    def validate(self, schema: Schema) -> None:
        _type_of(schema, self.name)

    def evaluate(self, columns: Columns) -> NDArray[np.bool_]:
        return _bools(pc.is_null(_column(columns, self.name)))


@dataclass(frozen=True, slots=True, repr=False)
class _Pair(Condition):
    symbol: ClassVar[str]
    left: Condition
    right: Condition

    def __repr__(self) -> str:
        return f"({self.left!r} {self.symbol} {self.right!r})"

    @property
    def names(self) -> frozenset[str]:
        return self.left.names | self.right.names

    def validate(self, schema: Schema) -> None:
        self.left.validate(schema)
        self.right.validate(schema)


class And(_Pair):
    """`left & right`."""

    __slots__ = ()
    symbol = "&"

    def evaluate(self, columns: Columns) -> NDArray[np.bool_]:
        return self.left.evaluate(columns) & self.right.evaluate(columns)


class Or(_Pair):
    """`left | right`."""

    __slots__ = ()
    symbol = "|"

    def evaluate(self, columns: Columns) -> NDArray[np.bool_]:
        return self.left.evaluate(columns) | self.right.evaluate(columns)


@dataclass(frozen=True, slots=True, repr=False)
class Not(Condition):
    """`~operand`: true where the operand is false, a null's false included."""

    operand: Condition

    def __repr__(self) -> str:
        return f"~{self.operand!r}"

    @property
    def names(self) -> frozenset[str]:
        return self.operand.names

    def validate(self, schema: Schema) -> None:
        self.operand.validate(schema)

    def evaluate(self, columns: Columns) -> NDArray[np.bool_]:
        return ~self.operand.evaluate(columns)


def _condition(other: object) -> Condition:
    if not isinstance(other, Condition):
        raise TypeError(f"{other!r} is not a condition; put comparisons in brackets: (col(...) == 1) & (col(...) > 2)")
    return other


def _scalar(name: str, value: object) -> Value:
    """A plain Python value from what callers hold: numpy and Arrow scalars too."""
    if isinstance(value, np.generic):
        value = value.astype("M8[us]").item() if isinstance(value, np.datetime64) else value.item()
    elif isinstance(value, pa.Scalar):
        value = value.as_py()
    if value is None:
        raise SchemaError(f"nothing equals a null: use col({name!r}).is_null()")
    if not isinstance(value, bool | int | float | str | datetime):
        raise SchemaError(f"col({name!r}) is compared with a bool, number, string or datetime, not {value!r}")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:  # a lone surrogate, as a shell's odd bytes become
            raise SchemaError(f"col({name!r}) is compared with {value!r}, which is not text: {error}") from None
    return value


def _type_of(schema: Schema, name: str) -> pa.DataType:
    return TIME_TYPE if name == EVENT_TS else schema[name].type


def _comparable(name: str, type_: pa.DataType, value: Value) -> None:
    """Raises: SchemaError: a value of this kind cannot be compared with this type."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    numeric = pa.types.is_integer(type_) or pa.types.is_floating(type_)
    fits = (
        (pa.types.is_boolean(type_) and isinstance(value, bool))
        or (numeric and isinstance(value, int | float) and not isinstance(value, bool))
        or (is_text(type_) and isinstance(value, str))
        or (pa.types.is_timestamp(type_) and isinstance(value, int | datetime) and not isinstance(value, bool))
    )
    if not fits:
        raise SchemaError(f"trait {name!r} is {type_}; it cannot be compared with {value!r}")


def _column(columns: Columns, name: str) -> pa.Array:
    names = columns.keys() if isinstance(columns, Mapping) else columns.schema.names
    if name not in names:
        raise SchemaError(f"the condition needs column {name!r}; there are: {', '.join(names) or 'none'}")
    array = one_array(columns[name])
    return array.cast(pa.string()) if is_text(array.type) else array


def _per_value(array: pa.Array, test: Callable[[pa.Array], NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """Test a dictionary's values once each, not once per event."""
    if not pa.types.is_dictionary(array.type):
        return test(array)
    values = array.dictionary
    kept = test(values.cast(pa.string()) if is_text(values.type) else values)
    return _bools(pc.take(pa.array(kept), array.indices))


def _compare(name: str, array: pa.Array, op: str, value: Value) -> NDArray[np.bool_]:
    _comparable(name, array.type, value)
    if pa.types.is_string(array.type):
        return _bools(_ARROW_OPERATORS[op](array, pa.scalar(value, pa.string())))
    if pa.types.is_timestamp(array.type):
        array = timestamps_to_us(array, name)
        value = to_us(value) if isinstance(value, datetime) else value
    values, mask = plain_from_arrow(array)
    found = _compare_numbers(values, op, value)
    return found if mask is None else found & ~mask


def _compare_numbers(values: NDArray[Any], op: str, value: Any) -> NDArray[np.bool_]:
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            value = values.dtype.type(_as_float(value))
    elif isinstance(value, float) and not math.isinf(value) and not math.isnan(value):
        if not value.is_integer() and op in ("==", "!="):
            return np.full(len(values), op == "!=")
        # between two integers: below the upper one is not above the lower one
        op = op if value.is_integer() else {"<": "<=", ">=": ">"}.get(op, op)
        value = math.floor(value)
    # NumPy compares integers with a Python int exactly, even one that their type cannot hold
    return np.asarray(OPERATORS[op](values, value), np.bool_)


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an int beyond every double
        return math.inf if value > 0 else -math.inf


def _bools(array: pa.Array) -> NDArray[np.bool_]:
    """As numpy, null is false."""
    filled: NDArray[np.bool_] = pc.fill_null(array, False).to_numpy(zero_copy_only=False)
    return filled
