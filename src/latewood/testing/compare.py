"""Comparing two tables row by row and bit for bit: NaN equals the same NaN, 0.0 is not -0.0, null is not empty."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from latewood.errors import SchemaError

_ROWS_AT_ONCE = 16_384  # so that no copy of a part of the table is large


def different_rows(actual: pa.Table, expected: pa.Table) -> NDArray[np.int64]:
    """The numbers of the rows that differ anywhere: empty if the tables say the same.

    Raises: SchemaError: other columns, types or row counts, so that rows cannot be compared.
    """
    if actual.column_names != expected.column_names:
        raise SchemaError(f"columns {actual.column_names}, expected {expected.column_names}")
    for name in actual.column_names:
        if actual[name].type != expected[name].type:
            raise SchemaError(f"column {name!r} is {actual[name].type}, expected {expected[name].type}")
    if len(actual) != len(expected):
        raise SchemaError(f"{len(actual)} rows, expected {len(expected)}")
    if not any(map(_has_floats, actual.schema.types)) and actual.equals(expected):
        return np.zeros(0, np.int64)  # the usual outcome, found without looking at rows
    found = [np.zeros(0, np.int64)]
    for start in range(0, len(actual), _ROWS_AT_ONCE):
        pair = (table.slice(start, _ROWS_AT_ONCE) for table in (actual, expected))
        found.append(np.flatnonzero(_tables_differ(*pair)) + start)
    return np.concatenate(found)


def _tables_differ(left: pa.Table, right: pa.Table) -> NDArray[np.bool_]:
    differ = np.zeros(len(left), np.bool_)
    for name in left.column_names:
        differ |= _differ(_one(left[name]), _one(right[name]))
    return differ


def _has_floats(type_: pa.DataType) -> bool:
    """Whether Arrow's own equality, for which -0.0 is 0.0, could say more than is true."""
    return pa.types.is_floating(type_) or any(_has_floats(type_.field(i).type) for i in range(type_.num_fields))


def _one(column: pa.ChunkedArray) -> pa.Array:
    chunks = [chunk for chunk in column.chunks if len(chunk)]
    return chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks) if chunks else pa.array([], column.type)


def _differ(left: pa.Array, right: pa.Array) -> NDArray[np.bool_]:
    if pa.types.is_dictionary(left.type):
        return _differ(left.dictionary_decode(), right.dictionary_decode())
    nulls = _bools(pc.is_null(left)), _bools(pc.is_null(right))
    if pa.types.is_struct(left.type):
        differ = nulls[0] ^ nulls[1]
        for fields in zip(left.flatten(), right.flatten(), strict=True):
            differ |= _differ(*fields)
        return differ
    types = pa.types
    if types.is_list(left.type) or types.is_large_list(left.type) or types.is_fixed_size_list(left.type):
        return (nulls[0] ^ nulls[1]) | _lists_differ(left, right)
    if pa.types.is_floating(left.type):
        bits = pa.uint64() if left.type == pa.float64() else pa.uint32()
        left, right = left.view(bits), right.view(bits)
    return (nulls[0] ^ nulls[1]) | _bools(pc.not_equal(left, right))


def _lists_differ(left: pa.Array, right: pa.Array) -> NDArray[np.bool_]:
    lengths = pc.fill_null(pc.list_value_length(left), 0).to_numpy()
    differ: NDArray[np.bool_] = lengths != pc.fill_null(pc.list_value_length(right), 0).to_numpy()
    equal = np.flatnonzero(~differ)
    if len(equal) < len(left):
        left, right, lengths = left.take(pa.array(equal)), right.take(pa.array(equal)), lengths[equal]
    before = np.concatenate([[0], np.cumsum(_differ(left.flatten(), right.flatten()))])
    ends = np.cumsum(lengths, dtype=np.int64)
    differ[equal] = before[ends] != before[ends - lengths]
    return differ


def _bools(array: pa.Array) -> NDArray[np.bool_]:
    filled: NDArray[np.bool_] = pc.fill_null(array, False).to_numpy(zero_copy_only=False)
    return filled
