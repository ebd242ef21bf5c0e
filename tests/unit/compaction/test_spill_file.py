"""The spill file: any range of rows of any run comes back as it went in, whatever columns its parts had."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from latewood.compaction.spill_file import SpillFile
from latewood.events import NEVER, Events, concat_events
from latewood.schema import Schema
from latewood.users import user_keys
from made_columns import cells, random_trait

TRAITS = pa.schema(
    [
        ("item", pa.int64()),
        ("like", pa.bool_()),
        ("score", pa.float32()),
        ("tags", pa.list_(pa.int16())),
        ("pair", pa.list_(pa.float32(), 2)),
    ]
)


def events_of(schema: Schema, n: int, seed: int, *, nulls: bool = False, superseded: bool = False) -> Events:
    rng = np.random.default_rng(seed)
    ids = pa.array(rng.integers(-5, 5, n))
    if schema.user_id == pa.string():
        ids = pa.array(["ü" * number for number in rng.integers(0, 5, n).tolist()], pa.string())  # and empty text
    mask = rng.random(n) < 0.5
    traits = {trait.id: random_trait(rng, replace(trait, nullable=nulls), n) for trait in schema}
    times, ordinal = rng.integers(-1000, 1000, (3, n)), rng.integers(0, 9, n).astype(np.int32)
    superseded_at = np.where(mask, times[2], NEVER) if superseded else None
    return Events(ids, user_keys(ids), times[0], times[1], ordinal, traits, superseded_at)


def same(found: Events, expected: Events) -> None:
    assert found.user_ids.type == expected.user_ids.type
    assert found.user_ids.to_pylist() == expected.user_ids.to_pylist()
    for mine, theirs in zip((*found.keys, found.event_ts, found.ingest_ts, found.ordinal),
                            (*expected.keys, expected.event_ts, expected.ingest_ts, expected.ordinal),
                            strict=True):  # fmt: skip
        assert mine.dtype == theirs.dtype
        assert mine.tolist() == theirs.tolist()
    assert list(found.traits) == list(expected.traits)
    for trait, column in found.traits.items():
        assert column.dtype == expected.traits[trait].dtype
        assert cells(column) == cells(expected.traits[trait])
    times = (
        np.full(len(part), NEVER) if part.superseded_at is None else part.superseded_at for part in (found, expected)
    )
    assert np.array_equal(*times)


@pytest.mark.parametrize("user_type", [pa.int64(), pa.string()])
@pytest.mark.parametrize("threads", [1, 3])
def test_every_range_of_a_run_comes_back(user_type: pa.DataType, threads: int) -> None:
    schema = Schema(user_id=user_type, traits=TRAITS)
    parts = [
        events_of(schema, 20, 0),
        events_of(schema, 1, 1, nulls=True),
        events_of(schema, 30, 2, superseded=True),
        events_of(schema, 9, 3, nulls=True, superseded=True).slice(2, 7),
    ]
    file = SpillFile(schema, threads=threads)
    runs = []
    for parts_of_run in (parts, parts[:1], parts[1:3]):
        together = concat_events(parts_of_run)
        order = np.random.default_rng(4).permutation(len(together))
        runs.append((file.append(parts_of_run, order), together.take(order)))
    for run, expected in runs:
        for start in range(0, len(expected), 7):
            for stop in range(start, len(expected) + 1, 5):
                same(file.read(run, start, stop), expected.slice(start, stop))
    assert ("superseded_at" in runs[0][0], "superseded_at" in runs[1][0]) == (True, False)
    file.close()


def test_what_is_read_can_be_written_to() -> None:
    """Read-only arrays would compile the merging kernel once more."""
    schema = Schema(user_id=pa.int64(), traits=TRAITS)
    file = SpillFile(schema)
    events = file.read(file.append([events_of(schema, 10, 0)], np.arange(10)), 2, 8)
    assert events.event_ts.flags.writeable
    assert events.traits[0].values.flags.c_contiguous
    file.close()


def test_a_file_that_was_cut_short_is_an_error(tmp_path: Path) -> None:
    schema = Schema(user_id=pa.int64(), traits=TRAITS)
    file = SpillFile(schema, str(tmp_path))
    run = file.append([events_of(schema, 10, 0)], np.arange(10))
    assert list(tmp_path.iterdir()) == []
    gone = {name: replace(place, offset=file.size_bytes - 8) for name, place in run.items()}
    with pytest.raises(OSError, match="the spill file ends"):
        file.read(gone, 0, 10)
    file.close()
