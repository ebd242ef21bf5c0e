"""Places that do not ascend, in files whose checksums are right: whoever takes only some of them notices, and decodes."""

import numpy as np
import pytest
from numpy.typing import NDArray

import latewood as lw
from forged_shards import ForgedShard
from latewood.columns import Column
from latewood.stripes import Output, Shard
from latewood.stripes.layout import (
    DELTA,
    EXCEPTIONS_SHIFT,
    HAS_REFERENCE_SHIFT,
    MODE_SHIFT,
    PACKED,
    POSITIONS,
    SCALED,
    STRIPE_EVENTS,
    WIDTH_SHIFT,
)
from latewood.stripes.pick import group_rows, pick_columns
from latewood.stripes.places import ascend, count_until
from made_shards import columns_for, decode_user, open_bytes, run_of, tables_of, write_shard
from searching import found_by

RISING = [*range(0, 200, 5)]
PLACES = {
    "one": [7],
    "rising": [5, 9, 200],
    "falling": [200, 9, 5],
    "repeated": [9, 9, 200],
    "repeated at the end": [5, 200, 200],
    "many": RISING,
    "swapped after 32": [*RISING[:32], RISING[33], RISING[32], *RISING[34:]],
    "repeated at 32": [*RISING[:32], *RISING[31:]],
    "past the events": [5, 99, 100, 255],
    "past the events and back": [5, 255, 99],
    "all": [*range(256)],
}


def forged(places: list[int], events: int) -> Shard:
    """One stripe: times, a packed number, a scaled one and flags, all with these places of exceptions, or of true flags."""
    columns = columns_for({"packed": np.int64, "scaled": np.int32, "flag": np.bool_})
    zeros = [Column(np.zeros(events, column.dtype)) for column in columns]
    file = ForgedShard(write_shard(columns, run_of({1: zeros}))[0])
    rng, count = np.random.default_rng(len(places)), min(len(places), events)
    where, highs = bytes(places[:count]), rng.integers(1, 256, count, np.uint8).tobytes()
    packed = lambda width: rng.integers(0, 256, 32 * -(-(-(-events // 8) * width) // 32), np.uint8).tobytes()  # noqa: E731
    entry = lambda mode, width, more=0: mode << MODE_SHIFT | width << WIDTH_SHIFT | count << EXCEPTIONS_SHIFT | more  # noqa: E731
    referred, reference, factor = 1 << HAS_REFERENCE_SHIFT, (10**6).to_bytes(8, "little"), (7).to_bytes(8, "little")
    file.replace_payload(
        [
            packed(4) + highs + where,
            b"",
            b"",
            reference + packed(4) + highs + where,
            reference + factor + packed(9) + highs + where,
            where,
        ],
        [entry(DELTA, 4), 0, 0, entry(PACKED, 4, referred), entry(SCALED, 9, referred), entry(POSITIONS, 0)],
    )
    return open_bytes(file.seal())


def picked(shard: Shard, column: int, rows: NDArray[np.int64]) -> NDArray[np.generic]:
    """Rows of the only user."""
    tables, zero = tables_of(shard), np.array([0])
    values = np.zeros(len(rows), shard.columns[column].dtype)
    picks = group_rows(tables, zero, zero, np.array([0, len(rows)]), rows)
    pick_columns(tables, picks, [Output(column, values)])
    return values


@pytest.mark.parametrize("events", [256, 100])
@pytest.mark.parametrize("name", PLACES)
def test_picked_is_decoded_whatever_the_places(name: str, events: int) -> None:
    shard, rng = forged(PLACES[name], events), np.random.default_rng(1)
    for column in (0, 3, 4, 5):
        decoded = decode_user(shard, 0, column).values
        for row in range(events):
            assert picked(shard, column, np.array([row])) == decoded[row], (column, row)
        for count in (2, 10, 24, 25, events):
            rows = np.sort(rng.choice(events, count, replace=False))
            assert picked(shard, column, rows).tobytes() == decoded[rows].tobytes(), column


@pytest.mark.parametrize("events", [256, 100])
@pytest.mark.parametrize("name", PLACES)
def test_found_is_decoded_whatever_the_places(name: str, events: int) -> None:
    shard = forged(PLACES[name], events)
    for column, trait in ((3, "packed"), (4, "scaled")):
        decoded = decode_user(shard, 0, column).values
        for value in np.unique(decoded).tolist():
            conditions = [lw.col(trait) == value, lw.col(trait) > value, lw.col(trait).is_in([*range(0, 80, 2), value])]
            (equal, greater, among), _ = found_by(shard, conditions)
            assert equal.tolist() == (decoded == value).tolist()
            assert greater.tolist() == (decoded > value).tolist()
            assert among.tolist() == (decoded == value).tolist()
    flags = decode_user(shard, 0, 5).values
    assert found_by(shard, [lw.col("flag") == True])[0][0].tolist() == flags.tolist()  # noqa: E712


def test_places_are_looked_at_32_at_once() -> None:
    rng = np.random.default_rng(2)
    memory = np.zeros(STRIPE_EVENTS + 64, np.uint8)
    for count in range(257):
        for _ in range(4):
            places = np.sort(rng.choice(256, count, replace=False)).astype(np.uint8)
            memory[:] = rng.integers(0, 256, len(memory))
            if count > 1 and rng.random() < 0.5:
                at = int(rng.integers(0, count - 1))
                places[at + 1] = places[at] if rng.random() < 0.5 else rng.integers(0, places[at] + 1)
            memory[:count] = places
            address = np.uint64(memory.ctypes.data)
            assert ascend(address, np.uint64(count)) == (np.diff(places.astype(int)) > 0).all()
            row = int(rng.integers(0, 256))
            assert count_until(address, np.uint64(count), np.uint64(row)) == (places <= row).sum()
