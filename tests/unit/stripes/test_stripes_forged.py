"""Files that only validation stands against: made to be read, their checksums right, their contents not ours."""

import json
import struct

import numpy as np
import pytest

from forged_shards import ForgedShard
from latewood.columns import Column
from latewood.errors import CorruptionError, SchemaError
from latewood.stripes import ShardWriter
from latewood.stripes.footer import trailer_bytes
from latewood.stripes.layout import (
    BUILT_IN,
    DELTA,
    EXCEPTIONS_SHIFT,
    HAS_REFERENCE_SHIFT,
    MODE_SHIFT,
    SIZE_CODE_SHIFT,
    WIDTH_SHIFT,
)
from made_shards import all_dtypes, columns_for, decode_user, open_bytes, random_columns, run_of, take, write_shard

COLUMNS = columns_for(all_dtypes(), superseded=True)


def test_taking_apart_and_putting_together_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    for users in ({1: 5000, 2: 1}, {"a": 300, "ü": 700}):
        data = write_shard(COLUMNS, run_of({u: random_columns(rng, n, COLUMNS) for u, n in users.items()}))[0]
        forged = ForgedShard(data)
        forged.checksums[:] = 0
        assert forged.seal() == data
        assert len(forged.seal(aligned=True)) % 64 == 0
        open_bytes(forged.seal(aligned=True)).verify()


def test_stripes_larger_than_ours_are_carried_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another writer may take 4,328 bytes for what ours needs 2,048. The room for carried bytes is what they take."""
    columns = columns_for({"x": np.int64})
    zeros = [Column(np.zeros(256, column.dtype)) for column in columns]
    forged = ForgedShard(write_shard(columns, run_of({1: zeros}))[0])
    flags = 63 << WIDTH_SHIFT | 256 << EXCEPTIONS_SHIFT | 3 << SIZE_CODE_SHIFT | 1 << HAS_REFERENCE_SHIFT
    wide = struct.pack("<q", 5) + bytes(63 * 32) + bytes(256 * 8) + bytes(range(256))
    forged.replace_payload([b"", b"", b"", wide], [DELTA << MODE_SHIFT, 0, 0, flags])
    old = open_bytes(forged.seal())
    rooms = []
    reserve = ShardWriter._reserve
    monkeypatch.setattr(ShardWriter, "_reserve", lambda self, size: (rooms.append(size), reserve(self, size)))
    nothing = [take(column, slice(0, 0)) for column in zeros]
    data, _ = write_shard(columns, run_of({1: nothing}, {1: (0, 1)}, old))
    assert rooms[0] >= len(wide)
    assert decode_user(open_bytes(data), 0, 3).values.tolist() == [5] * 256


@pytest.mark.parametrize("value", [0, 1, 2**40 - 1, 2**63])
def test_the_entry_behind_the_last_is_checked(value: int) -> None:
    """It tells where the last stripe ends: without a check a block could reach far past the file."""
    forged = ForgedShard(write_shard(COLUMNS, run_of({1: random_columns(np.random.default_rng(1), 300, COLUMNS)}))[0])
    forged.entries[-1] = value
    with pytest.raises(CorruptionError, match="fill the payload"):
        open_bytes(forged.seal(mend_blocks=False))


def footer_of(data: bytes, change) -> bytes:
    size = struct.unpack("<Q", data[-24:-16])[0]
    footer = change(data[-24 - size : -24])
    return data[: -24 - size] + footer + trailer_bytes(footer)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"latest_ingest":', b'"latest_ingest":Infinity,"old":'),
        (b'"latest_ingest":', b'"latest_ingest":1.5,"old":'),
        (b'"latest_ingest":', b'"latest_ingest":99999999999999999999,"old":'),
        (b'"id":-1', b'"id":Infinity'),
        (b'"id":-1', b'"id":true'),
        (b'"name":"event_ts"', b'"name":7'),
        (b'"sections":', b'"sections":[],"old":'),
        (b'"epoch":"', b'"epoch":"\xff'),
    ],
)
def test_footers_of_other_types_are_refused(old: bytes, new: bytes) -> None:
    data = write_shard(BUILT_IN, run_of({1: random_columns(np.random.default_rng(1), 3, BUILT_IN)}))[0]
    with pytest.raises((CorruptionError, SchemaError), match="shard"):
        open_bytes(footer_of(data, lambda footer: footer.replace(old, new)))


def test_a_footer_of_brackets_is_refused() -> None:
    data = write_shard(BUILT_IN, run_of({1: random_columns(np.random.default_rng(1), 3, BUILT_IN)}))[0]
    with pytest.raises(CorruptionError, match="not readable"):
        open_bytes(footer_of(data, lambda footer: b"[" * 100_000))
    with pytest.raises(CorruptionError, match="not readable"):
        open_bytes(footer_of(data, lambda footer: json.dumps(["[" * 10]).encode()))


def test_user_ids_that_are_not_text_are_refused() -> None:
    forged = ForgedShard(write_shard(BUILT_IN, run_of({"é": random_columns(np.random.default_rng(1), 3, BUILT_IN)}))[0])
    forged.ids["user_bytes"] = b"\xc3("
    shard = open_bytes(forged.seal())
    with pytest.raises(CorruptionError, match="shard: the user ids are not text"):
        shard.verify()
