"""The places that recents supersede: read from a log, checked, and found among the rows that pointers mean."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from latewood.errors import LeakageError, PointerError, SchemaError
from latewood.materialize.suppress import Hits, SupersededPlaces, read_places, refuse_places
from latewood.pointer import PLACE_TYPE, Pointers


def places(*rows: list[tuple[int, int, int]]) -> pa.Array:
    names = [field.name for field in PLACE_TYPE]
    return pa.array([[dict(zip(names, place, strict=True)) for place in row] for row in rows], pa.list_(PLACE_TYPE))


def read(array: pa.Array) -> SupersededPlaces:
    found = read_places(array)
    assert found is not None
    return found


def test_places_come_flat() -> None:
    found = read(places([(1, 2, 0), (3, 4, 1)], [], [(5, 6, 0)]))
    assert found.offsets.tolist() == [0, 2, 2, 3]
    assert found.order.tolist() == [[1, 3, 5], [2, 4, 6], [0, 1, 0]]
    assert found.owner.tolist() == [0, 0, 2]


def test_no_place_at_all_is_nothing() -> None:
    assert read_places(places([], [])) is None
    assert read_places(places()) is None


def test_slices_and_rows_in_another_order() -> None:
    array = places([(1, 1, 0)], [(2, 2, 0), (3, 3, 0)], [], [(4, 4, 0)])
    assert read(array.slice(1, 3)).order[0].tolist() == [2, 3, 4]
    found = read(array)
    assert found.slice(1, 3).order[0].tolist() == [2, 3]
    assert found.slice(1, 3).offsets.tolist() == [0, 2, 2]
    assert found.take(np.array([3, 2, 1])).order[0].tolist() == [4, 2, 3]
    assert found.take(np.array([3, 2, 1])).offsets.tolist() == [0, 1, 1, 3]


def test_hits_in_another_order() -> None:
    hits = Hits(np.array([0, 2, 2, 3]), np.array([7, 9, 4]))
    assert hits.counts.tolist() == [2, 0, 1]
    assert hits.slice(1, 3).rows.tolist() == [4]
    taken = hits.take(np.array([2, 0]))
    assert (taken.offsets.tolist(), taken.rows.tolist()) == ([0, 1, 3], [4, 7, 9])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (pa.array([1]), "'recent.supersedes' is int64; it is a list of places"),
        (pa.array([[1]]), "a place also has event_ts, ingest_ts, ordinal"),
        (pa.array([[{"event_ts": 1, "ingest_ts": 2}]]), "a place also has ordinal"),
        (pa.array([None], pa.list_(PLACE_TYPE)), "has a null in row 0"),
        (pa.array([[None]], pa.list_(PLACE_TYPE)), "has a null in its element 0"),
        (
            pa.array([[{"event_ts": 1, "ingest_ts": None, "ordinal": 0}]], pa.list_(PLACE_TYPE)),
            "'recent.supersedes.ing",
        ),
        (
            pa.array([[{"event_ts": 1, "ingest_ts": 1, "ordinal": None}]], pa.list_(PLACE_TYPE)),
            "ordinal' is int32 with 1",
        ),
        (pa.array([[{"event_ts": 1, "ingest_ts": 1, "ordinal": 0.5}]]), "ordinal' is double"),
    ],
)
def test_a_malformed_list_is_named(array: pa.Array, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        read_places(array)


@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        ((1, 30, 0), LeakageError, "row 1: .* was not known before the cutoff"),
        ((21, 5, 0), LeakageError, "row 1: .* is after the request's end"),
        ((1, 10, 0), PointerError, "row 1: .* would be one of the recents"),
        ((2, 2, 0), PointerError, "row 1: .* stands there twice"),
    ],
)
def test_what_cannot_be_is_refused(place: Any, error: type[Exception], message: str) -> None:
    zeros = np.zeros(2, np.int64)
    pointers = Pointers(
        bytes(16), zeros + 10, zeros, zeros + 20, zeros.astype(np.int32), zeros, zeros.astype(np.uint64)
    )
    fine = [(20, 9, 0), (2, 2, 0)]
    refuse_places(read(places(fine, fine)), pointers, zeros + 30)
    with pytest.raises(error, match=message):
        refuse_places(read(places(fine, [*fine, place])), pointers, zeros + 30)
