"""When the checksums of blocks are checked: once, never, or in every batch, by what a file becomes after it was read."""

import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import latewood as lw
from latewood.stripes.layout import HEADER_BYTES
from latewood.testing import ManualClock, different_rows

START = 1_700_000_000_000_000
EVENTS = 400  # two stripes
DRAWN = np.random.default_rng(8)
# Of any exponent and sign, so that they are stored as they are, and can be found in a file.
SCORES = DRAWN.random(EVENTS, np.float32) * np.exp2(DRAWN.integers(-90, 90, EVENTS), dtype=np.float32)
SCORES *= DRAWN.choice(np.array([-1, 1], np.float32), EVENTS)
ITEMS = DRAWN.choice([-1, 1], 2 * EVENTS) * DRAWN.random(2 * EVENTS) * np.exp2(DRAWN.integers(-900, 900, 2 * EVENTS))
PLAIN = lw.Projection(traits=["score"])
LISTS = lw.Projection(traits=["tags"])
STREAMS = lw.Projection(traits=["score"], streams={"low": lw.last(300, lw.col("score") < 1e20)})
# Shows little, so that it is the condition that reads the damaged block.
CONDITION = lw.Projection(traits=["like"], streams={"low": lw.last(300, lw.col("score") < 1e20)})
Make = Callable[[lw.Store, lw.Projection, Any, pa.Table], Callable[[], Any]]


@pytest.fixture
def store(store_path: Path, clock: ManualClock) -> Iterator[lw.Store]:
    """User 7, whose events are stored but for the newest; and user 8, of whom nothing is damaged."""
    traits = pa.schema([("score", pa.float32()), ("tags", pa.list_(pa.float64())), ("like", pa.bool_())])
    with lw.Store.create(store_path, lw.Schema(user_id=pa.int64(), traits=traits), shards=1, clock=clock) as store:
        clock.set(START + 10**9)
        table = {"user_id": np.full(EVENTS, 7), "event_ts": START + 1000 * np.arange(EVENTS)}
        lists = pa.ListArray.from_arrays(pa.array(np.arange(0, 2 * EVENTS + 1, 2), pa.int32()), pa.array(ITEMS))
        events = pa.table({**table, "score": SCORES, "tags": lists, "like": SCORES < 0})
        store.append(events)
        store.append(events.slice(0, 1).set_column(0, "user_id", pa.array([8])))
        store.compact()
        yield store


@pytest.fixture
def examples(store: lw.Store) -> pa.Table:
    """Requests whose histories end within a stripe, so that looking them up decodes times."""
    users, ends = [7, 8, 7, 7], [1000 * EVENTS, 5, 300_500, 399_500]
    return store.capture(pa.table({"user_id": users, "request_ts": START + np.array(ends)})).columns


def flip(store_path: Path, found: bytes | int) -> None:
    """Change a byte of the shard's file where it is, as other processes see it: of some bytes in it, or by its place."""
    [path] = store_path.glob("generations/**/*.stripes")
    data = path.read_bytes()
    place = found if isinstance(found, int) else data.index(found)
    file = os.open(path, os.O_RDWR)
    try:
        os.pwrite(file, bytes([data[place] ^ 1]), place)
    finally:
        os.close(file)


def called(store: lw.Store, projection: lw.Projection, verify: Any, examples: pa.Table) -> Callable[[], Any]:
    materializer = lw.Materializer(store, projection, verify=verify)
    return lambda: materializer(examples)


def halves(store: lw.Store, projection: lw.Projection, verify: Any, examples: pa.Table) -> Callable[[], Any]:
    """Looked up once, so that only decoding reads anew."""
    materializer = lw.Materializer(store, projection, verify=verify)
    resolved = materializer.resolve(examples)
    return lambda: materializer.batch(resolved)


def shared(store: lw.Store, projection: lw.Projection, verify: Any, examples: pa.Table) -> Callable[[], Any]:
    materializer = lw.Materializer(store, projection, verify=verify)
    return lambda: materializer.shared(examples).expand()


def window(store: lw.Store, projection: lw.Projection, verify: Any, examples: pa.Table) -> Callable[[], Any]:
    materializer = lw.Materializer(store, projection, verify=verify)
    resolved = materializer.resolve(examples)
    return lambda: materializer.window_batch(materializer.window(resolved), 0, len(examples))


def sent(store: lw.Store, projection: lw.Projection, verify: Any, examples: pa.Table) -> Callable[[], Any]:
    """A materializer as another process gets it, but of the same store, whose files are mapped."""
    make, (_, *arguments) = lw.Materializer(store, projection, verify=verify).__reduce__()
    materializer = make(store, *arguments)
    return lambda: materializer(examples)


def loader(store: lw.Store, projection: lw.Projection, verify: Any, examples: pa.Table) -> Callable[[], Any]:
    loader = lw.Loader(store, examples, projection, verify=verify, order="user")
    return lambda: next(iter(loader))


def loader_sent(store: lw.Store, projection: lw.Projection, verify: Any, examples: pa.Table) -> Callable[[], Any]:
    make, (_, *arguments) = lw.Loader(store, examples, projection, verify=verify, order="user").__reduce__()
    remade = make(store, *arguments)
    return lambda: next(iter(remade))


def loader_shared(store: lw.Store, projection: lw.Projection, verify: Any, examples: pa.Table) -> Callable[[], Any]:
    loader = lw.Loader(store, examples, projection, verify=verify, order="user", shared=True)
    return lambda: next(iter(loader)).expand()


WAYS: list[tuple[Make, lw.Projection, bytes, str]] = [
    *((make, PLAIN, SCORES.tobytes(), "score") for make in (called, halves, shared, window, sent)),
    *((make, LISTS, ITEMS.tobytes(), "tags") for make in (called, shared, window)),
    *((make, STREAMS, SCORES.tobytes(), "score") for make in (called, halves)),
    (called, CONDITION, SCORES.tobytes(), "score"),
    *((make, PLAIN, SCORES.tobytes(), "score") for make in (loader, loader_sent, loader_shared)),
    (loader, LISTS, ITEMS.tobytes(), "tags"),
    (loader, STREAMS, SCORES.tobytes(), "score"),
]


@pytest.mark.parametrize(("make", "projection", "found", "column"), WAYS)
def test_what_is_damaged_after_it_was_read_is_found_if_it_is_checked_always(
    store: lw.Store,
    store_path: Path,
    examples: pa.Table,
    make: Make,
    projection: lw.Projection,
    found: bytes,
    column: str,
) -> None:
    once, always = (make(store, projection, verify, examples) for verify in (True, "always"))
    before = once().to_arrow()
    assert len(different_rows(always().to_arrow(), before)) == 0
    flip(store_path, found[:16])
    after = once().to_arrow()  # it was checked, and is not again
    assert projection is CONDITION or len(different_rows(after, before)) > 0
    for _ in range(2):
        with pytest.raises(
            lw.CorruptionError, match=rf"\.stripes: user 7, column '{column}.*', block 0: the bytes are"
        ):
            always()


def test_what_looking_up_reads_is_checked_always(store: lw.Store, store_path: Path, examples: pa.Table) -> None:
    once, always = (called(store, PLAIN, verify, examples) for verify in (True, "always"))
    before = once().to_arrow()
    assert len(different_rows(always().to_arrow(), before)) == 0
    flip(store_path, HEADER_BYTES + 20)  # the first column of the first user; its number's hash is below the other's
    with pytest.raises(lw.CorruptionError, match="user 7, column 'event_ts', block 0"):
        always()


def test_others_are_read_as_before(store: lw.Store, store_path: Path, examples: pa.Table) -> None:
    always = called(store, PLAIN, "always", examples.slice(1, 1))
    before = always().to_arrow()
    flip(store_path, SCORES.tobytes()[:16])
    assert len(different_rows(always().to_arrow(), before)) == 0


def test_never_does_not_look_at_what_it_decodes(store: lw.Store, store_path: Path, examples: pa.Table) -> None:
    flip(store_path, SCORES.tobytes()[:16])
    with lw.Store.open(store_path, read_only=True) as trainer:
        never, once = (called(trainer, PLAIN, verify, examples) for verify in (False, True))
        values = never().values["score"]
        assert values[0] != SCORES[0]
        assert values[1] == SCORES[1]
        with pytest.raises(lw.CorruptionError, match="column 'score', block 0"):
            once()


@pytest.mark.parametrize("verify", ["once", "", None, 1, ["always"]])
def test_other_settings_are_refused(store: lw.Store, examples: pa.Table, verify: Any) -> None:
    expected = r'verify is True, False or "always", not '
    with pytest.raises(lw.SchemaError, match=expected):
        lw.Materializer(store, PLAIN, verify=verify)
    with pytest.raises(lw.SchemaError, match=expected):
        lw.Loader(store, examples, PLAIN, verify=verify)


@pytest.mark.parametrize("verify", [True, False, "always"])
def test_another_process_checks_as_often(store: lw.Store, examples: pa.Table, verify: Any) -> None:
    with lw.Store.open(store.path, read_only=True) as trainer:
        for made in (
            lw.Materializer(trainer, PLAIN, verify=verify),
            lw.Loader(trainer, examples, PLAIN, verify=verify).materializer,
        ):
            assert pickle.loads(pickle.dumps(made)).__reduce__()[1][3] == verify
