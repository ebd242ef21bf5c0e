"""Whatever happened to the bytes of a shard, reading says so or gives what was written; it never reads astray."""

import json
import struct
from collections.abc import Iterator

import numpy as np
import pytest
import xxhash

from latewood.columns import Column
from latewood.errors import CorruptionError, SchemaError
from latewood.stripes import Shard, decode_column
from latewood.stripes.footer import trailer_bytes
from latewood.stripes.layout import (
    BUILT_IN,
    EXCEPTIONS_SHIFT,
    HAS_NULLS_SHIFT,
    MODE_SHIFT,
    NEVER_CLEAN,
    SIZE_CODE_SHIFT,
    WIDTH_SHIFT,
)
from made_shards import (
    all_dtypes,
    columns_for,
    decode_user,
    open_bytes,
    random_columns,
    ranges_of,
    run_of,
    same,
    tables_of,
    write_shard,
)

COLUMNS = columns_for({"item": np.int64, "code": np.int32, "like": np.bool_, "score": np.float32}, superseded=True)


@pytest.fixture(scope="module")
def users():
    rng = np.random.default_rng(3)
    return {user: random_columns(rng, count, COLUMNS) for user, count in (("a", 3), ("b", 300))}


@pytest.fixture(scope="module")
def data(users) -> bytes:
    return write_shard(COLUMNS, run_of(users))[0]


def read_all(shard: Shard, users) -> None:
    """Read everything, and compare: what is read without an error must be right."""
    for index, user in enumerate(shard.user_ids.to_pylist()):
        for column, (values, mask) in enumerate(users[user]):
            assert same(decode_user(shard, index, column), values, mask)


def test_every_flipped_byte_is_found(data: bytes, users) -> None:
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << (place % 8)
        # a newer version can only be told from damage by what else is right
        error = (CorruptionError, SchemaError) if 8 <= place < 12 else CorruptionError
        with pytest.raises(error, match="shard"):
            read_all(open_bytes(bytes(damaged)), users)


def test_every_truncation_is_found(data: bytes) -> None:
    for size in range(len(data)):
        with pytest.raises(CorruptionError, match="shard"):
            open_bytes(data[:size])


def test_appended_bytes_are_found(data: bytes) -> None:
    for more in (b"\0", data, data[-24:]):
        with pytest.raises(CorruptionError, match="shard"):
            open_bytes(data + more)


def test_damage_is_named(data: bytes, users) -> None:
    shard = open_bytes(data)
    user = shard.user_ids.to_pylist().index("b")
    damaged = bytearray(data)
    damaged[_payload_start(shard, user, 3)] ^= 1
    shard = open_bytes(bytes(damaged))
    for _ in range(2):  # not only the first time
        with pytest.raises(CorruptionError, match=r"shard: user 'b', column 'item', block 0"):
            decode_user(shard, user, 3)
        with pytest.raises(CorruptionError, match=r"user 'b', column 'item'"):
            shard.verify(np.array([user]))
    shard.verify(np.array([1 - user]))
    assert same(decode_user(shard, user, 0), users["b"][0].values)
    unread = np.zeros(300, np.int64)
    decode_column(tables_of(shard), ranges_of((0, user, 0, 300)), 3, unread, verify=False)


def _payload_start(shard: Shard, user: int, column: int) -> int:
    entries = shard._words("entries")
    first, stop = shard.first_stripe[user : user + 2].tolist()
    entry = entries[first * len(shard.columns) + column * (stop - first)]
    return 64 + (int(entry) & ((1 << 40) - 1))


def test_a_newer_version_is_named_as_such(data: bytes) -> None:
    newer = data[:8] + struct.pack("<I", 2) + data[12:]
    with pytest.raises(SchemaError, match="format version 2"):
        open_bytes(newer)


def forge(data: bytes, section: str, change) -> bytes:
    """A file whose index was changed and whose hashes are right again: an adversary's, or a bug's."""
    size = struct.unpack("<Q", data[-24:-16])[0]
    footer = json.loads(data[-24 - size : -24])
    offset, length, _ = footer["sections"][section]
    part = bytearray(data[offset : offset + length])
    change(np.frombuffer(part, np.uint64))
    footer["sections"][section][2] = f"{xxhash.xxh3_64_intdigest(bytes(part)):016x}"
    document = json.dumps(footer, separators=(",", ":")).encode()
    body = data[:offset] + bytes(part) + data[offset + length : -24 - size]
    return body + document + trailer_bytes(document)


def test_forging_nothing_changes_nothing(data: bytes) -> None:
    assert forge(data, "entries", lambda words: None) == data


def bit_flips(data: bytes, section: str) -> Iterator[bytes]:
    shard = open_bytes(data)
    words = shard.footer.sections[section].size_bytes // 8
    for word in range(words):
        for bit in range(64):

            def flip(part: np.ndarray, word: int = word, bit: int = bit) -> None:
                part[word] ^= np.uint64(1) << np.uint64(bit)

            yield forge(data, section, flip)


@pytest.mark.parametrize("section", ["entries", "users", "stripes"])
def test_forged_index_words_never_lead_astray(data: bytes, section: str) -> None:
    """Each is refused on opening, or what it says stays inside the file: reading ends without a crash."""
    refused = readable = 0
    for forged in bit_flips(data, section):
        try:
            shard = open_bytes(forged)
        except CorruptionError:
            refused += 1
            continue
        readable += 1
        for user in range(shard.user_count):
            for column in range(len(shard.columns)):
                stop = int(shard.first_event[user + 1] - shard.first_event[user])
                out = np.zeros(stop, shard.columns[column].dtype)
                decode_column(tables_of(shard), ranges_of((0, user, 0, stop)), column, out, verify=False)
    assert refused > 0, "no flip was refused: are they written at all?"
    assert readable > 0, "no flip could be read: are the hashes right again?"


@pytest.mark.parametrize(
    ("shift", "value"),
    [
        (MODE_SHIFT, 7),
        (MODE_SHIFT, 6),
        (MODE_SHIFT, 2),
        (MODE_SHIFT, 4),
        (WIDTH_SHIFT, 127),
        (WIDTH_SHIFT, 65),
        (EXCEPTIONS_SHIFT, 511),
        (EXCEPTIONS_SHIFT, 257),
        (SIZE_CODE_SHIFT, 3),
        (HAS_NULLS_SHIFT, 1),
        (63, 1),
        (0, (1 << 40) - 1),
    ],
)
def test_impossible_entries_are_refused(data: bytes, shift: int, value: int) -> None:
    for word in range(10):

        def change(part: np.ndarray, word: int = word) -> None:
            part[word] |= np.uint64(value) << np.uint64(shift)
            if shift == MODE_SHIFT:
                part[word] &= ~(np.uint64(7 ^ value) << np.uint64(shift))

        forged = forge(data, "entries", change)
        if forged == data:
            continue
        with pytest.raises(CorruptionError):
            open_bytes(forged)


@pytest.mark.parametrize("name", ["users", "events", "stripes", "blocks", "payload_bytes", "generation", "shard"])
@pytest.mark.parametrize("value", [-1, 0, 1, 10**6, 2**61, 2**70, 1.5, "7", None, [], True])
def test_forged_counts_are_refused(data: bytes, name: str, value: object) -> None:
    size = struct.unpack("<Q", data[-24:-16])[0]
    footer = json.loads(data[-24 - size : -24])
    if footer[name] == value:
        return
    document = json.dumps(footer | {name: value}).encode()
    forged = data[: -24 - size] + document + trailer_bytes(document)
    with pytest.raises(CorruptionError):
        open_bytes(forged, generation=3, number=1)


@pytest.mark.parametrize("document", [b"", b"{}", b"[]", b"\xff", b"null", b'{"epoch": 1}'])
def test_other_footers_are_refused(data: bytes, document: bytes) -> None:
    size = struct.unpack("<Q", data[-24:-16])[0]
    with pytest.raises(CorruptionError):
        open_bytes(data[: -24 - size] + document + trailer_bytes(document))


def test_unknown_column_types_are_a_schema_error(data: bytes) -> None:
    size = struct.unpack("<Q", data[-24:-16])[0]
    document = data[-24 - size : -24].replace(b'"float32"', b'"float16"')
    with pytest.raises(SchemaError, match="float16"):
        open_bytes(data[: -24 - size] + document + trailer_bytes(document))


def test_payload_of_any_content_stays_in_bounds() -> None:
    """Noise in place of the payload, without checksums: every value is wrong, every byte written is in its place."""
    columns = columns_for(all_dtypes())
    rng = np.random.default_rng(11)
    data = bytearray(write_shard(columns, run_of({1: random_columns(rng, 1000, columns)}))[0])
    payload = open_bytes(bytes(data)).footer.counts["payload_bytes"]
    for _ in range(20):
        data[64 : 64 + payload] = rng.integers(0, 256, payload, np.uint8).tobytes()
        shard = open_bytes(bytes(data))
        for column in range(len(columns)):
            out = np.full(1200, 1, columns[column].dtype)
            ranges = ranges_of((0, 0, 100, 900))
            ranges.target[:] = 200
            mask = np.full(1200, 1, np.uint8).view(np.bool_)
            decode_column(tables_of(shard), ranges, column, out, mask, verify=False)
            assert (out[:200] == 1).all()
            assert (out[1000:] == 1).all()
            assert mask[:200].all()
            assert mask[1000:].all()


def test_verify_recomputes_the_index(users) -> None:
    clean = {user: columns[:-1] for user, columns in users.items()}
    data = write_shard(COLUMNS, run_of(clean))[0]
    open_bytes(data).verify()
    for word, change in ((1, 1), (2, 1), (5, 2**40), (8, 1)):  # latest ingests and sums of identities

        def raise_word(part: np.ndarray, word: int = word, change: int = change) -> None:
            part[word] += np.uint64(change)

        forged = open_bytes(forge(data, "stripes", raise_word))
        with pytest.raises(CorruptionError, match="index disagrees"):
            forged.verify()


@pytest.mark.parametrize("superseded", [False, True])
def test_forged_claims_of_superseded_events_are_refused(superseded: bool) -> None:
    """That a stripe is never clean, or that it is, where its events say otherwise: kernels rely on it."""
    columns = columns_for({}, superseded=superseded)
    made = random_columns(np.random.default_rng(1), 300, columns)
    if superseded:
        mask = np.ones(300, np.bool_)
        mask[280] = False
        made[-1] = Column(np.full(300, 2**62), mask)
    sound = write_shard(columns, run_of({1: made}))[0]
    for stripe, latest in ((0, NEVER_CLEAN), (1, NEVER_CLEAN - 1)):

        def claim(part: np.ndarray, stripe: int = stripe, latest: int = latest) -> None:
            part[stripe * 3 + 1] = latest

        if superseded or latest == NEVER_CLEAN:
            with pytest.raises(CorruptionError, match=f"superseded.*stripe {stripe}"):
                open_bytes(forge(sound, "stripes", claim))


def test_verify_compares_when_events_were_superseded() -> None:
    columns = columns_for({}, superseded=True)
    made = random_columns(np.random.default_rng(1), 3, columns)
    ingest_ts = made[0].values + made[1].values
    made[-1] = Column(ingest_ts + 7, np.array([False, True, True]))
    sound = write_shard(columns, run_of({1: made}))[0]
    shard = open_bytes(sound)
    shard.verify()
    entry = shard._words("entries")[3]
    at = 64 + int(entry & np.uint64((1 << 40) - 1)) + 1  # its bitmap, then the values as they are
    assert struct.unpack("<q", sound[at : at + 8]) == (ingest_ts[0] + 7,)
    damaged = sound[:at] + struct.pack("<q", ingest_ts[0] - 1) + sound[at + 8 :]
    block = xxhash.xxh64_intdigest(damaged[at - 1 : 64 + shard.footer.counts["payload_bytes"]])

    def seal(part: np.ndarray) -> None:
        part[3] = block

    with pytest.raises(CorruptionError, match="superseded before it was ingested"):
        open_bytes(forge(damaged, "checksums", seal)).verify()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda columns: columns[-1:] + columns[:-1],
        lambda columns: [*columns[:3], columns[-1], *columns[3:-1]],
        lambda columns: [*columns, columns[-1]],
        lambda columns: [*columns[:-1], columns[-1] | {"id": -5}],
        lambda columns: [*columns[:-1], columns[-1] | {"dtype": "int32"}],
        lambda columns: [*columns[:-1], columns[-1] | {"role": "trait"}],
        lambda columns: [*columns[:4], *columns[3:]],
        lambda columns: columns[:2],
        lambda columns: [],
    ],
)
def test_impossible_columns_are_refused(data: bytes, wrong) -> None:
    size = struct.unpack("<Q", data[-24:-16])[0]
    footer = json.loads(data[-24 - size : -24])
    document = json.dumps(footer | {"columns": wrong(footer["columns"])}).encode()
    with pytest.raises(CorruptionError):
        open_bytes(data[: -24 - size] + document + trailer_bytes(document))


def test_verify_recomputes_the_keys(data: bytes) -> None:
    def lower(part: np.ndarray) -> None:
        part[1] -= np.uint64(1)

    with pytest.raises(CorruptionError, match="keys"):
        open_bytes(forge(data, "users", lower)).verify()


def test_verify_checks_the_total_order() -> None:
    late, zeros = np.array([5, 3]), np.zeros(2, np.int64)
    for delays, ordinals in ((late, [0, 0]), (zeros, [1, 0]), (zeros, [0, 0])):
        columns = [Column(zeros), Column(delays), Column(np.array(ordinals, np.int32))]
        shard = open_bytes(write_shard(BUILT_IN, run_of({1: columns}))[0])
        with pytest.raises(CorruptionError, match="user 1, stripe 0: the events are not sorted"):
            shard.verify()
