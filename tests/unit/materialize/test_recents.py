"""Recent events as they come back from a log: checked, ordered, refused where they leak."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from latewood.errors import LeakageError, PointerError, SchemaError
from latewood.materialize.recents import Recents, read_recents, refuse_leaks
from latewood.pointer import PLACE_TYPE, Pointers
from latewood.schema import TIME_TYPE, Schema
from latewood.storage import open_storage
from latewood.vocabulary import Vocabulary

SCHEMA = Schema(user_id=pa.int64(), traits=pa.schema([("item", pa.int64()), ("action", pa.string())]))


@pytest.fixture
def vocabulary(request: pytest.FixtureRequest) -> Vocabulary:
    vocabulary = Vocabulary(open_storage(f"memory://{request.node.nodeid}"), SCHEMA)
    vocabulary.encode(SCHEMA["action"], pa.array(["buy", "like"]))
    return vocabulary


def lists(rows: list[list[Any]], type_: pa.DataType) -> pa.Array:
    return pa.array(rows, pa.list_(type_))


def recent(event_ts: list[list[int]], **changes: Any) -> pa.StructArray:
    columns = {
        "event_ts": lists(event_ts, TIME_TYPE),
        "ingest_ts": lists(event_ts, TIME_TYPE),
        "ordinal": lists([[0] * len(row) for row in event_ts], pa.int32()),
        "item": lists([[t * 10 for t in row] for row in event_ts], pa.int64()),
        "action": lists([["like"] * len(row) for row in event_ts], pa.string()),
    }
    columns |= changes
    kept = {name: column for name, column in columns.items() if column is not None}
    return pa.StructArray.from_arrays(list(kept.values()), names=list(kept))


def read(column: pa.StructArray, vocabulary: Vocabulary) -> Recents:
    return read_recents(column, SCHEMA.traits, vocabulary)


def test_values_come_flat_and_strings_as_codes(vocabulary: Vocabulary) -> None:
    recents = read(recent([[1, 2], [], [5]]), vocabulary)
    assert recents.offsets.tolist() == [0, 2, 2, 3]
    assert recents.order.tolist() == [[1, 2, 5], [1, 2, 5], [0, 0, 0]]
    assert recents.columns[0].values.tolist() == [10, 20, 50]
    assert recents.columns[1].values.tolist() == [1, 1, 1]


def test_lists_are_named_by_labels_and_new_traits_are_null(vocabulary: Vocabulary) -> None:
    changed = SCHEMA.altered(add=pa.schema([("rank", pa.int8())]), rename={"item": "thing", "action": "item"})
    recents = read_recents(recent([[1, 2], []]), [changed["thing"], changed["rank"]], vocabulary)
    assert recents.columns[0].values.tolist() == [10, 20]
    rank = recents.columns[changed["rank"].id]
    assert (rank.values.tolist(), rank.values.dtype, rank.mask.tolist()) == ([0, 0], np.int8, [True, True])


@pytest.mark.parametrize("unused", [None, "unheard of"])
def test_what_no_event_has_of_a_dictionary_does_not_matter(vocabulary: Vocabulary, unused: str | None) -> None:
    words = pa.DictionaryArray.from_arrays(pa.array([1, 2, 1], pa.int8()), pa.array([unused, "buy", "like"]))
    column = recent([[1, 2], [5]], action=pa.ListArray.from_arrays(pa.array([0, 2, 3], pa.int32()), words))
    required = Schema(
        user_id=pa.int64(), traits=pa.schema([("item", pa.int64()), pa.field("action", pa.string(), False)])
    )
    for schema in (SCHEMA, required):
        assert read_recents(column, schema.traits, vocabulary).columns[1].values.tolist() == [0, 1, 0]


def test_superseded_places_go_with_their_examples(vocabulary: Vocabulary) -> None:
    place = {"event_ts": 1, "ingest_ts": 1, "ordinal": 0}
    column = recent([[3], [], [5, 4]], supersedes=pa.array([[place], [], [place, place]], pa.list_(PLACE_TYPE)))
    recents = read(column, vocabulary)
    assert recents.order[0].tolist() == [3, 4, 5]  # sorting loses nothing of it
    for part, counts in (
        (recents, [1, 0, 2]),
        (recents.slice(1, 3), [0, 2]),
        (recents.take(np.array([2, 0])), [2, 1]),
        (recents.take(np.array([1])), [0]),
        (recents.spread(np.array([0, 2, 3]), 5), [1, 0, 0, 2, 0]),
    ):
        assert part.supersedes is not None
        assert np.diff(part.supersedes.offsets).tolist() == counts
    spread = recents.spread(np.array([0, 2, 3]), 5)
    assert np.diff(spread.offsets).tolist() == [1, 0, 0, 2, 0]
    assert read(recent([[3]]), vocabulary).supersedes is None  # a log from before there were corrections


def test_order_is_restored_where_it_was_lost(vocabulary: Vocabulary) -> None:
    ingest = lists([[9, 7, 3], [5]], TIME_TYPE)
    recents = read(recent([[2, 2, 1], [0]], ingest_ts=ingest), vocabulary)
    assert recents.order[:2].tolist() == [[1, 2, 2, 0], [3, 7, 9, 5]]
    assert recents.columns[0].values.tolist() == [10, 20, 20, 0]


def test_ties_in_both_clocks_are_ordered_by_ordinal(vocabulary: Vocabulary) -> None:
    column = recent([[1, 1]], ordinal=lists([[1, 0]], pa.int32()), item=lists([[11, 10]], pa.int64()))
    assert read(column, vocabulary).columns[0].values.tolist() == [10, 11]


def test_a_slice_is_read_as_its_own_rows(vocabulary: Vocabulary) -> None:
    recents = read(recent([[1, 2], [3], [4, 5]]).slice(1, 2), vocabulary)
    assert recents.offsets.tolist() == [0, 1, 3]
    assert recents.order[0].tolist() == [3, 4, 5]


def test_large_lists_and_large_strings_will_do(vocabulary: Vocabulary) -> None:
    column = recent(
        [[1], [2, 3]],
        item=pa.array([[1], [2, None]], pa.large_list(pa.int32())),
        action=pa.array([["buy"], ["like", None]], pa.large_list(pa.large_string())),
    )
    recents = read(column, vocabulary)
    assert recents.columns[0].values.tolist() == [1, 2, 0]
    assert recents.columns[1].values.tolist() == [0, 1, 0]
    for column_ in recents.columns.values():
        assert column_.mask is not None
        assert column_.mask.tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("words", "indices", "codes"),
    [
        (["like", "buy"], [0, 1, 1], [1, 0, 0]),
        (["like", "hover", "buy"], [0, 2, 2], [1, 0, 0]),  # a word that no event has
        (["like", "like", "buy"], [1, 0, 2], [1, 1, 0]),
        (["like", None], [0, 1, None], [1, 0, 0]),
    ],
)
def test_dictionaries_will_do(
    vocabulary: Vocabulary, words: list[str | None], indices: list[int | None], codes: list[int]
) -> None:
    encoded = pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(words))
    action = pa.ListArray.from_arrays(pa.array([0, 1, 3], pa.int32()), encoded)
    column = read(recent([[1], [2, 3]], action=action), vocabulary).columns[1]
    assert column.values.tolist() == codes
    nulls = [index is None or words[index] is None for index in indices]
    assert (column.mask is not None and column.mask.tolist() == nulls) if any(nulls) else column.mask is None


def test_no_examples(vocabulary: Vocabulary) -> None:
    assert len(read(recent([[1]]).slice(0, 0), vocabulary)) == 0
    assert len(read(pa.array([], recent([[1]]).type), vocabulary)) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"item": None}, "'recent' lacks item"),
        ({"ordinal": None}, "'recent' lacks ordinal"),
        ({"item": lists([[1], [2]], pa.int64())}, r"row 0: the lists 'recent.event_ts' and 'recent.item' differ"),
        ({"item": pa.array([1, 2])}, "'recent.item' is int64; it is a list"),
        ({"item": lists([[1, 2], [0.5]], pa.float64())}, "'item' is double"),
        ({"item": pa.array([[1, 2], None], pa.list_(pa.int64()))}, "'recent.item' has a null in row 1"),
        ({"ingest_ts": lists([[1, None], [1]], TIME_TYPE)}, "'recent.ingest_ts' has a null in row 1"),
        ({"ordinal": lists([[1, None], [1]], pa.int32())}, "'recent.ordinal'"),
    ],
)
def test_a_malformed_column_is_named(vocabulary: Vocabulary, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        read(recent([[1, 2], [3]], **changes), vocabulary)


def test_a_trait_that_is_not_there_is_fine_where_no_event_is(vocabulary: Vocabulary) -> None:
    """Examples sealed after a trait was dropped are read as of a pin from before, which has it still."""
    recents = read(recent([[], []], item=None), vocabulary)
    assert recents.offsets.tolist() == [0, 0, 0]
    assert [len(column.values) for column in recents.columns.values()] == [0, 0]


def test_a_null_example_is_named(vocabulary: Vocabulary) -> None:
    rows = recent([[1], [2]])
    column = pa.StructArray.from_arrays(rows.flatten(), fields=list(rows.type), mask=pa.array([False, True]))
    with pytest.raises(SchemaError, match="null in row 1"):
        read(column, vocabulary)
    with pytest.raises(SchemaError, match="struct of lists"):
        read(pa.array([1]), vocabulary)


def test_an_unknown_value_is_named(vocabulary: Vocabulary) -> None:
    with pytest.raises(PointerError, match="'hover'"):
        read(recent([[1]], action=lists([["hover"]], pa.string())), vocabulary)


def pointers(n: int, *, watermark: int, end_ts: int) -> Pointers:
    zeros = np.zeros(n, np.int64)
    return Pointers(
        bytes(16), zeros + watermark, zeros, zeros + end_ts, zeros.astype(np.int32), zeros, zeros.astype(np.uint64)
    )


@pytest.mark.parametrize(
    ("watermark", "end_ts", "cutoff", "error", "message"),
    [
        (0, 100, 20, LeakageError, "row 1: a recent event .* was ingested .*20Z, not before the cutoff"),
        (0, 19, 100, LeakageError, "row 1: .* is after the request's end"),
        (20, 100, 100, PointerError, "row 0: .* would count twice"),
        (200, 100, 100, LeakageError, "row 0: the pointer's watermark .* is after the cutoff"),
    ],
)
def test_what_a_request_could_not_have_seen_is_refused(
    vocabulary: Vocabulary, watermark: int, end_ts: int, cutoff: int, error: type[Exception], message: str
) -> None:
    recents = read(recent([[10], [11, 20]]), vocabulary)
    with pytest.raises(error, match=message):
        refuse_leaks(recents, pointers(2, watermark=watermark, end_ts=end_ts), np.full(2, cutoff))


def test_a_recent_event_that_stands_twice_is_refused(vocabulary: Vocabulary) -> None:
    recents = read(recent([[1], [3, 2, 3]]), vocabulary)
    two, zeros = np.full(2, 10), np.zeros(2, np.int64)
    pointers = Pointers(bytes(16), zeros, zeros, two, zeros.astype(np.int32), zeros, zeros.astype(np.uint64))
    with pytest.raises(PointerError, match=r"row 1: .* twice"):
        refuse_leaks(recents, pointers, two)


def test_a_recent_event_at_an_anchors_own_time_is_no_leak(vocabulary: Vocabulary) -> None:
    recents = read(recent([[10]]), vocabulary)
    refuse_leaks(recents, pointers(1, watermark=10, end_ts=10), np.array([11]))
