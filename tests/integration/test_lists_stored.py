"""Lists through the life of a store: what was appended comes back, whatever happens, and what is forgotten goes."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import latewood as lw
from latewood.testing import ManualClock

START, MINUTE = 1_700_000_000_000_000, 60_000_000
TYPES: dict[str, pa.DataType] = {
    "tags": pa.list_(pa.string()),
    "kinds": pa.list_(pa.dictionary(pa.int32(), pa.string())),
    "ids": pa.list_(pa.int64()),
    "flags": pa.list_(pa.bool_()),
    "times": pa.list_(pa.timestamp("us", "UTC")),
    "vector": pa.list_(pa.float32(), 3),
    "names": pa.list_(pa.string(), 2),
}
SCHEMA = lw.Schema(user_id=pa.int64(), traits=pa.schema([*TYPES.items(), ("plain", pa.int32())]))
USERS = range(4)
FORGOTTEN = 3


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> lw.Store:
    return lw.Store.create(tmp_path / "store", SCHEMA, shards=2, clock=clock)


def cell(rng: np.random.Generator, name: str, user: int) -> Any:
    """One value, null now and then; the words of the forgotten user are only his."""
    if rng.random() < 0.15:
        return None
    type_ = TYPES[name]
    length = type_.list_size if pa.types.is_fixed_size_list(type_) else int(rng.choice([0, 1, 2, 9]))
    if name in ("tags", "kinds", "names"):
        word = "secret" if user == FORGOTTEN else "common"
        return [f"{word}-{name}-{n}" for n in rng.integers(0, 20, length)]
    if name == "flags":
        return (rng.random(length) < 0.5).tolist()
    numbers = rng.integers(-(2**40), 2**40, length)
    return numbers.astype(np.float32).tolist() if name == "vector" else numbers.tolist()


def table(rng: np.random.Generator, users: list[int], event_ts: list[int]) -> pa.Table:
    columns = {
        name: pa.array([cell(rng, name, user) for user in users], type_ if name != "kinds" else pa.list_(pa.string()))
        for name, type_ in TYPES.items()
    }
    plain = pa.array(np.arange(len(users)), pa.int32())
    return pa.table({"user_id": users, "event_ts": event_ts, **columns, "plain": plain})


def append(store: lw.Store, clock: ManualClock, seed: int, count: int) -> dict[int, list[dict[str, Any]]]:
    """Events of all users, some of them late. Returns: the rows of each user."""
    rng, now = np.random.default_rng(seed), clock.advance(MINUTE)
    users = rng.integers(0, len(USERS), count).tolist()
    lateness = np.where(rng.random(count) < 0.1, rng.integers(0, 50 * MINUTE, count), rng.integers(0, 1000, count))
    rows = table(rng, users, (now - lateness).tolist())
    store.append(rows)
    values = rows.select([*TYPES, "plain"]).to_pylist()
    return {user: [row for row, of in zip(values, users, strict=True) if of == user] for user in USERS}


def rows_of(store: lw.Store, user: int, names: Any = (*TYPES, "plain")) -> list[dict[str, Any]]:
    return store.history(user).select(list(names)).to_pylist()


def by_content(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(map(repr, rows))


def test_lists_come_back_from_every_generation(store: lw.Store, clock: ManualClock) -> None:
    expected: dict[int, list[dict[str, Any]]] = {user: [] for user in USERS}
    for seed in range(4):
        for user, rows in append(store, clock, seed, 900).items():
            expected[user] += rows
        before = [store.history(user) for user in USERS]
        if seed == 2:
            store.alter(shards=3)
        store.compact()
        assert all(store.history(user).equals(before[user]) for user in USERS)
        for user in USERS:
            assert by_content(rows_of(store, user)) == by_content(expected[user])
    types = {field.name: field.type for field in store.history(0).schema}
    assert {name: types[name] for name in ("tags", "ids", "vector")} == {n: TYPES[n] for n in ("tags", "ids", "vector")}
    assert lw.verify(store).difference_count == 0


def test_an_older_moment_has_the_lists_of_then(store: lw.Store, clock: ManualClock) -> None:
    append(store, clock, 1, 600)
    event_ts = clock.advance(MINUTE)
    receipt = store.append(table(np.random.default_rng(8), [0], [event_ts]))
    moment, seen = clock.advance(MINUTE), [store.history(user) for user in USERS]
    store.compact()
    target = {"event_ts": event_ts, "ingest_ts": int(receipt.ingest_ts[0]), "ordinal": int(receipt.ordinal[0])}
    correction = table(np.random.default_rng(9), [0], [event_ts])
    store.append(correction.append_column("supersedes", pa.array([target])))
    append(store, clock, 2, 600)
    clock.advance(MINUTE)
    store.compact()
    assert all(store.history(user, as_of=moment).equals(seen[user]) for user in USERS)
    assert store.history(0).num_rows > seen[0].num_rows
    (corrected,) = (row for row in store.history(0).to_pylist() if row["event_ts"] == seen[0]["event_ts"][-1].as_py())
    assert {name: corrected[name] for name in TYPES} == correction.select(list(TYPES)).to_pylist()[0]
    assert lw.verify(store).difference_count == 0


def test_a_list_trait_comes_and_goes(store: lw.Store, clock: ManualClock) -> None:
    append(store, clock, 1, 1500)
    store.compact()
    store.alter(add=pa.schema([("later", pa.list_(pa.string())), ("pair", pa.list_(pa.int8(), 2))]), drop=["ids"])
    clock.advance(MINUTE)
    store.compact()
    assert rows_of(store, 1, ["later", "pair"]) == [{"later": None, "pair": None}] * store.history(1).num_rows
    now = clock.advance(MINUTE)
    more = {"later": pa.array([["a", "b"], []]), "pair": pa.array([[1, 2], None], pa.list_(pa.int8(), 2))}
    new = table(np.random.default_rng(2), [1, 1], [now - 2, now - 1]).drop_columns(["ids"])
    store.append(pa.table({**{name: new[name] for name in new.column_names}, **more}))
    clock.advance(MINUTE)
    store.compact()
    assert rows_of(store, 1, ["later", "pair"])[-2:] == [
        {"later": ["a", "b"], "pair": [1, 2]},
        {"later": [], "pair": None},
    ]
    assert "ids" not in store.history(1).column_names
    assert lw.verify(store).difference_count == 0


def test_retention_leaves_the_newest_lists(store: lw.Store, clock: ManualClock) -> None:
    append(store, clock, 1, 2000)
    store.compact()
    before = {user: rows_of(store, user) for user in USERS}
    store.alter(retention=lw.Retention(max_events=100))
    clock.advance(MINUTE)
    store.compact()
    for user in USERS:
        left = rows_of(store, user)
        assert 100 <= len(left) < 300
        assert left == before[user][-len(left) :]


def test_nothing_is_left_of_the_lists_of_a_forgotten_user(store: lw.Store, clock: ManualClock, tmp_path: Path) -> None:
    append(store, clock, 1, 800)
    store.compact()
    append(store, clock, 2, 800)
    store.compact()
    append(store, clock, 3, 300)
    before = {user: rows_of(store, user) for user in USERS if user != FORGOTTEN}
    assert _holding(tmp_path, b"secret-")
    store.scrub(user_ids=[FORGOTTEN])
    clock.advance(timedelta(minutes=1))
    store.compact()
    assert rows_of(store, FORGOTTEN) == []
    assert {user: rows_of(store, user) for user in before} == before
    assert lw.verify(store).difference_count == 0
    store.close()
    assert _holding(tmp_path, b"secret-") == []
    assert _holding(tmp_path, b"common-")


def _holding(folder: Path, what: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and what in path.read_bytes()]


def test_a_rebuilt_store_has_the_lists(store: lw.Store, clock: ManualClock, tmp_path: Path) -> None:
    append(store, clock, 1, 800)
    store.compact()
    append(store, clock, 2, 300)
    with lw.rebuild(store, tmp_path / "new", shards=3) as new:
        for user in USERS:
            assert rows_of(new, user) == rows_of(store, user)
        assert lw.verify(new).difference_count == 0


def test_old_data_is_loaded_in_little_memory(tmp_path: Path, clock: ManualClock) -> None:
    """What does not fit is spilled."""
    from latewood.compaction import bulk_load
    from latewood.intake import read_events

    clock.advance(10 * MINUTE)
    tables = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        event_ts = START + rng.integers(0, MINUTE, 500)
        part = table(rng, rng.integers(0, len(USERS), 500).tolist(), event_ts.tolist())
        tables.append(part.append_column("ingest_ts", pa.array(event_ts + 1)))
    stores = [lw.Store.create(tmp_path / name, SCHEMA, shards=2, clock=clock) for name in ("little", "much")]
    for store, memory_bytes in zip(stores, (1, 1 << 30), strict=True):
        bulk_load(store, (read_events(t, SCHEMA, store.encode).events for t in tables), memory_bytes=memory_bytes)
        store.refresh()
    little, much = stores
    for user in USERS:
        assert rows_of(little, user) == rows_of(much, user)
    expected = [row for t in tables for row in t.select([*TYPES, "plain"]).to_pylist()]
    assert by_content([row for user in USERS for row in rows_of(little, user)]) == by_content(expected)
