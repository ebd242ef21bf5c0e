"""The columns that a capture adds: the same as Arrow makes of the same values, array by array."""

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import latewood.capture.message
from latewood.capture import recent_type
from latewood.capture.message import add_columns
from latewood.capture.plan import Plan, plan_of
from latewood.columns import Column, Lists, TraitColumn, times_to_arrow
from latewood.events import Suppressions
from latewood.mutable import Recent, TierState, View, no_view
from latewood.pointer import Pointers, places_to_arrow
from latewood.schema import Schema, Trait
from latewood.storage import open_storage
from latewood.users import UserKeys
from latewood.vocabulary import Vocabulary

EPOCH = bytes(range(16))
PLAIN = [pa.bool_(), pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()]
PLAIN += [pa.float32(), pa.float64(), pa.timestamp("us"), pa.timestamp("us", "Europe/Berlin")]
CODED = [pa.string(), pa.dictionary(pa.int32(), pa.string()), pa.dictionary(pa.int32(), pa.int64())]
LISTS = [pa.list_(type_) for type_ in PLAIN + CODED] + [pa.list_(type_, 3) for type_ in PLAIN + CODED]
TYPES = PLAIN + CODED + LISTS
SCHEMA = Schema(user_id=pa.int64(), traits=pa.schema([(f"t{k}", type_) for k, type_ in enumerate(TYPES)]))
SIZE = 500  # events in the view
names = itertools.count()


class Made:
    """A view of random events, and the vocabulary that their codes are of."""

    def __init__(self, seed: int, *, nulls: bool = True, absent: tuple[int, ...] = ()) -> None:
        self.rng = np.random.default_rng(seed)
        self.vocabulary = Vocabulary(open_storage(f"memory://message-{next(names)}"), SCHEMA)
        empty = no_view(SCHEMA)
        times = (self._integers(np.int64) for _ in range(2))
        traits = {trait.id: self._column(trait, nulls) for trait in SCHEMA if trait.id not in absent}
        keys = np.zeros(SIZE, np.uint64), np.zeros(SIZE, np.uint64)
        self.view = View(*keys, empty.user_ids, np.zeros(SIZE, np.int64), *times, self._integers(np.int32), traits)

    def _integers(self, dtype: Any) -> Any:
        return self.rng.integers(0, np.iinfo(dtype).max, SIZE, dtype, endpoint=True)

    def _column(self, trait: Trait, nulls: bool) -> TraitColumn:
        mask = self.rng.random(SIZE) < 0.3 if nulls else None
        values = self._values(trait)
        if not trait.is_list:
            return Column(values, mask)
        lengths = self.rng.integers(0, 5, SIZE) if trait.list_size is None else np.full(SIZE, trait.list_size)
        lengths[mask if mask is not None else []] = 0
        return Lists(values, self.rng.integers(0, SIZE - 5, SIZE), lengths.astype(np.int32), mask)

    def _values(self, trait: Trait) -> Any:
        if trait.coded:
            numbers = self.rng.integers(0, 40, SIZE)
            words = pa.array(numbers) if pa.types.is_integer(trait.item_type) else pa.array(["ä" * k for k in numbers])
            values = self.vocabulary.encode(trait, pa.array([words.to_pylist()]) if trait.is_list else words).known
        elif trait.dtype == np.bool_:
            values = self.rng.random(SIZE) < 0.5
        else:  # any bits: NaNs with payloads among them
            values = np.frombuffer(bytearray(self.rng.bytes(SIZE * trait.dtype.itemsize)), trait.dtype)
        return values

    def recent(self, requests: int, most: int = 6, places: int = 3) -> Recent:
        offsets = self._offsets(requests, most)
        rows = self.rng.integers(0, SIZE, offsets[-1])
        of = self._offsets(requests, places)
        columns = [self.rng.integers(0, 10**15, of[-1]) for _ in range(3)]
        keys = UserKeys(np.zeros(of[-1], np.uint64), np.zeros(of[-1], np.uint64))
        suppressed = Suppressions(keys, columns[0], columns[1], np.arange(of[-1], dtype=np.int32), columns[2])
        cutoff = self.rng.integers(0, 10**15, requests)
        return Recent(TierState(), cutoff, offsets, self.view, rows, of, suppressed)

    def _offsets(self, requests: int, most: int) -> Any:
        return np.concatenate([[0], np.cumsum(self.rng.integers(0, most + 1, requests))]).astype(np.int64)

    def pointers(self, requests: int) -> Pointers:
        times = (self.rng.integers(-(10**15), 10**15, requests) for _ in range(3))
        counts = np.arange(requests, dtype=np.int32), np.arange(requests) * 10**6
        return Pointers(EPOCH, *times, *counts, self.rng.integers(0, 2**64, requests, np.uint64))


def added(made: Made, pointers: Pointers, recent: Recent) -> pa.Table:
    features = pa.table({"row": np.arange(len(pointers))})
    table = add_columns(features, pointers, recent, SCHEMA, made.vocabulary)
    assert table.column_names[0] == "row"
    return table.drop_columns(["row"])


def by_arrow(pointers: Pointers, recent: Recent, vocabulary: Vocabulary) -> pa.Table:
    """What the columns are by definition."""
    view, rows, suppressed = recent.view, recent.rows, recent.suppressed
    flat = [times_to_arrow(view.event_ts[rows]), times_to_arrow(view.ingest_ts[rows]), pa.array(view.ordinal[rows])]
    for trait in SCHEMA:
        column = view.column(trait.id, rows)
        if column is None:
            flat.append(pa.nulls(len(rows), trait.value_type))
        elif isinstance(column, Lists):
            flat.append(lists_by_arrow(trait, column, vocabulary))
        else:
            flat.append(values_by_arrow(trait, column, vocabulary))
    places = places_to_arrow(suppressed.event_ts, suppressed.ingest_ts, suppressed.ordinal)
    type_ = recent_type(SCHEMA)
    columns = [*((recent.offsets, values) for values in flat), (recent.suppressed_offsets, places)]
    lists = [
        pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, type=field.type)
        for (offsets, values), field in zip(columns, type_, strict=True)
    ]
    added = [pointers.to_arrow(), pa.StructArray.from_arrays(lists, fields=list(type_)), times_to_arrow(recent.cutoff)]
    fields = [
        pa.field(name, column.type, False) for name, column in zip(("uih", "recent", "cutoff"), added, strict=True)
    ]
    return pa.table(added, pa.schema(fields))


def values_by_arrow(trait: Trait, column: Column, vocabulary: Vocabulary) -> pa.Array:
    if trait.coded:
        return vocabulary.values(trait.id, 40).take(pa.array(column.values, mask=column.mask))
    if pa.types.is_timestamp(trait.item_type):
        return pa.array(column.values, pa.int64(), mask=column.mask).view(trait.item_type)
    return pa.array(column.values, trait.item_type, mask=column.mask, from_pandas=False)


def lists_by_arrow(trait: Trait, column: Lists, vocabulary: Vocabulary) -> pa.Array:
    """List by list. Arrow has room for the items of a null in a list of one size."""
    count = 0 if trait.list_size is None else trait.list_size
    nulls = np.zeros(len(column.starts), np.bool_) if column.mask is None else column.mask
    ends = zip(column.starts.tolist(), (column.starts + column.lengths).tolist(), nulls.tolist(), strict=True)
    places = [range(start, end) if not null else [None] * count for start, end, null in ends]
    pool = values_by_arrow(trait, Column(column.items), vocabulary)
    items = pool.take(pa.array([place for of in places for place in of], pa.int64()))
    mask = pa.array(nulls) if nulls.any() else None
    if trait.list_size is not None:
        return pa.FixedSizeListArray.from_arrays(items, trait.list_size, mask=mask)
    return pa.ListArray.from_arrays(pa.array(np.cumsum([0, *map(len, places)]), pa.int32()), items, mask=mask)


def assert_same(found: pa.Table, wanted: pa.Table) -> None:
    """Bit for bit: Arrow takes two NaNs for unequal."""
    found.validate(full=True)
    assert found.schema.equals(wanted.schema, check_metadata=True)
    for name in wanted.column_names:
        assert bits(pa.concat_arrays(found[name].chunks)) == bits(pa.concat_arrays(wanted[name].chunks)), name


def bits(array: pa.Array) -> Any:
    """A column as plain lists, and what is no integer as the integers of its bits."""
    if pa.types.is_struct(array.type):
        return {field.name: bits(array.field(k)) for k, field in enumerate(array.type)}
    if pa.types.is_fixed_size_list(array.type):
        return array.is_null().to_pylist(), bits(array.flatten())
    if pa.types.is_list(array.type):
        return (
            array.is_null().to_pylist(),
            [end - array.offsets[0].as_py() for end in array.offsets.to_pylist()],
            bits(array.flatten()),
        )
    if pa.types.is_floating(array.type) or pa.types.is_timestamp(array.type):
        return array.view(pa.int32() if array.type.bit_width == 32 else pa.int64()).to_pylist()
    return array.to_pylist()


@pytest.mark.parametrize("nulls", [True, False])
@pytest.mark.parametrize("requests", [0, 1, 7, 300])
def test_columns_of_every_type(requests: int, nulls: bool) -> None:
    made = Made(requests, nulls=nulls)
    pointers, recent = made.pointers(requests), made.recent(requests)
    assert_same(added(made, pointers, recent), by_arrow(pointers, recent, made.vocabulary))


def test_requests_without_recent_events() -> None:
    made = Made(0)
    pointers, recent = made.pointers(3), made.recent(3, most=0, places=0)
    table = added(made, pointers, recent)
    assert_same(table, by_arrow(pointers, recent, made.vocabulary))
    assert table["recent"].to_pylist() == [{field.name: [] for field in recent_type(SCHEMA)}] * 3


def test_traits_that_no_recent_event_has() -> None:
    """They were added to the schema since; `SCHEMA` has one of every kind."""
    made = Made(1, absent=tuple(range(len(SCHEMA.traits))))
    pointers, recent = made.pointers(9), made.recent(9)
    assert_same(added(made, pointers, recent), by_arrow(pointers, recent, made.vocabulary))


def test_a_column_without_nulls_among_the_rows_has_no_bitmap() -> None:
    """Though the tier has a mask for it."""
    made = Made(2)
    mask = made.view.traits[5].mask
    assert mask is not None
    mask[:] = False
    pointers, recent = made.pointers(5), made.recent(5)
    column = added(made, pointers, recent)["recent"].chunk(0).field("t5")
    assert column.flatten().null_count == 0


def test_more_events_than_one_list_array_can_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latewood.capture.message, "_LIST_MAX", 20)
    made = Made(3)
    pointers, recent = made.pointers(30), made.recent(30)
    table = added(made, pointers, recent)
    assert table["recent"].num_chunks > 5
    assert_same(table, by_arrow(pointers, recent, made.vocabulary))


def test_what_is_logged_holds_nothing_of_the_tier() -> None:
    """The arena's columns go on growing, and are let go of."""
    made = Made(4, nulls=False)
    pointers, recent = made.pointers(4), made.recent(4)
    table = added(made, pointers, recent)
    before = [bits(column.chunk(0)) for column in table.columns]
    for column in (
        made.view.event_ts,
        *(of.items if isinstance(of, Lists) else of.values for of in made.view.traits.values()),
        pointers.length,
        recent.cutoff,
    ):
        column[:] = 0
    assert [bits(column.chunk(0)) for column in table.columns] == before


def test_a_column_of_another_width_is_not_read() -> None:
    made = Made(5)
    made.view.traits[3] = made.view.traits[1]
    with pytest.raises(ValueError, match="trait 3 is kept as int8, not as int16"):
        added(made, made.pointers(2), made.recent(2))


def test_no_byte_is_written_past_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(6)
    monkeypatch.setattr(Plan, "room", lambda plan, *_: plan.head.nbytes + 8)
    with pytest.raises(RuntimeError, match=r"a message of \d+ bytes was thought to need"):
        added(made, made.pointers(9), made.recent(9))


def test_a_plan_is_drawn_once() -> None:
    assert plan_of(SCHEMA) is plan_of(SCHEMA)
    same = Schema.from_json(SCHEMA.to_json())
    assert plan_of(same) is not plan_of(SCHEMA)
    assert plan_of(same).schema == plan_of(SCHEMA).schema
