"""The kernels' own arithmetic against plain counterparts."""

from typing import Any

import numpy as np
import pytest
import xxhash
from numba import njit

from latewood.kernels import kernel
from latewood.stripes.addresses import address_of
from latewood.stripes.checksum import xxh64
from latewood.stripes.identity import identities, identity, mark_later, run_identities, seed_of, sum_identities
from latewood.stripes.layout import TABLE_FIELDS, UNPACKERS
from latewood.stripes.pack import choose_width, count_bits, pack_values
from latewood.stripes.unpack import scale_rows, sum_pairs, unpack_rows, unpack_scaled_rows
from latewood.stripes.unroll import ADDRESSES, unpack_scaled_stripe, unpack_stripe
from latewood.users import UserKeys


@njit(nogil=True)
def hash_prefix(data: Any, start: Any, size: Any) -> Any:
    return xxh64(address_of(data) + np.uint64(start), np.uint64(size))


def test_xxh64_is_the_library_s() -> None:
    data = np.random.default_rng(1).integers(0, 256, 3000, np.uint8)
    for size in [*range(200), 255, 256, 257, 1023, 2990]:
        for start in (0, 1, 7):
            expected = xxhash.xxh64_intdigest(data[start : start + size].tobytes())
            assert int(hash_prefix(data, start, size)) == expected, (start, size)


@njit(nogil=True)
def hash_events(users: Any, checks: Any, event_ts: Any, ingest_ts: Any, ordinal: Any, out: Any) -> Any:
    for i in range(len(out)):
        out[i] = identity(users[i], checks[i], event_ts[i], ingest_ts[i], ordinal[i])


def test_identity_is_its_vectorised_twin() -> None:
    rng = np.random.default_rng(2)
    n = 1000
    keys = UserKeys(*(rng.integers(0, 2**64, n, np.uint64) for _ in range(2)))
    event, ingest = (rng.integers(-(2**63), 2**63, n) for _ in range(2))
    ordinal = rng.integers(0, 2**31, n).astype(np.int32)
    out = np.zeros(n, np.uint64)
    hash_events(*keys, event, ingest, ordinal, out)
    assert (out == identities(keys, event, ingest, ordinal)).all()


@njit(nogil=True)
def sum_events(key: Any, times: Any, delays: Any, ordinals: Any, first: Any, count: Any, sums: Any) -> Any:
    start = np.uint64(first)
    wide, narrow = start << np.uint64(3), start << np.uint64(2)
    columns = (address_of(times) + wide, address_of(delays) + wide, address_of(ordinals) + narrow)
    seed, n = seed_of(key[0], key[1]), np.uint64(count)
    run_identities(seed, columns[0], columns[1], columns[2], n, address_of(sums))
    return sum_identities(seed, columns[0], columns[1], columns[2], n)


@njit(nogil=True)
def mark_events(times: Any, delays: Any, first: Any, count: Any, since: Any, marks: Any) -> Any:
    wide = np.uint64(first) << np.uint64(3)
    columns = address_of(times) + wide, address_of(delays) + wide
    return mark_later(columns[0], columns[1], np.uint64(count), since, address_of(marks))


@pytest.mark.parametrize("size", [10**6, 2**62])
def test_sums_of_identities_are_those_of_each(size: int) -> None:
    """Of any count from any place on, whatever lies behind; times far before 1970, delays that overflow."""
    rng = np.random.default_rng(4)
    room, key = 300, (np.uint64(2**64 - 3), np.uint64(12345678901234567890))
    times, delays = rng.integers(-size, size, room), rng.integers(-size // 2, size, room)
    ends = np.array([-(2**63), 2**63 - 1, 0, -1])
    times[7::23], delays[5::19] = rng.choice(ends, len(times[7::23])), rng.choice(ends, len(delays[5::19]))
    ordinals = rng.integers(0, 2**31, room).astype(np.int32)
    ordinals[3::17] = 2**31 - 1
    ingests = times + delays  # wraps, as the kernels do
    each = [
        _identity_in_python(int(key[0]), int(key[1]), *event)
        for event in zip(times.tolist(), ingests.tolist(), ordinals.tolist(), strict=True)
    ]
    for first in (0, 1, 5, 8):
        for count in [*range(41), 255, 256]:
            sums = np.full(room, 7, np.uint64)
            total = sum_events(key, times, delays, ordinals, first, count, sums)
            expected = np.array([sum(each[first : first + k]) % 2**64 for k in range(count + 1)], np.uint64)
            assert int(total) == expected[-1], (first, count)
            assert (sums[: count + 1] == expected).all(), (first, count)
            assert (sums[count + 8 :] == 7).all(), "written too far"


def test_later_events_are_marked() -> None:
    """Of any count from any place on, whatever lies behind."""
    rng = np.random.default_rng(5)
    room = 300
    times, delays = rng.integers(-(10**6), 10**6, room), rng.integers(-5, 5, room)
    ingests = times + delays
    for first in (0, 1, 5, 8):
        for count in [*range(41), 255, 256]:
            of_these = ingests[first : first + count]
            for since in (-(2**63), 2**63 - 1, int(rng.integers(-(10**6), 10**6)), int(of_these.max(initial=0))):
                marks = np.full(40, 7, np.uint8)
                rows = mark_events(times, delays, first, count, since, marks)
                found = np.unpackbits(marks, count=count, bitorder="little").astype(bool)
                expected = of_these >= since
                assert (found == expected).all(), (first, count, since)
                assert rows == len(np.unique(np.flatnonzero(expected) // 8)), (first, count, since)
                assert (marks[(count + 7) // 8 :] == 7).all(), "written too far"


@njit(nogil=True)
def add_up(steps: Any, pairs: Any, start: Any, out: Any) -> Any:
    return sum_pairs(address_of(steps), np.uint64(pairs), np.uint64(start), address_of(out))


def test_steps_add_up_by_pairs() -> None:
    steps = np.random.default_rng(6).integers(0, 2**64, 300, np.uint64)
    start = 2**64 - 5
    for pairs in [*range(20), 127, 128]:
        out = np.full(300, 7, np.uint64)
        last = add_up(steps, pairs, start, out)
        expected = np.uint64(start) + np.cumsum(steps[: 2 * pairs])
        assert (out[: 2 * pairs] == expected).all(), pairs
        assert (out[2 * pairs :] == 7).all(), "written too far"
        assert int(last) == (int(expected[-1]) if pairs else start)


def test_identity_never_changes() -> None:
    """Pointers in users' logs carry sums of these."""
    keys = UserKeys(np.array([0, 1, 2**64 - 1], np.uint64), np.array([0, 2, 3], np.uint64))
    event, ingest = np.array([0, 1_700_000_000_000_000, -5]), np.array([0, 1_700_000_000_000_001, 2**62])
    found = identities(keys, event, ingest, np.array([0, 1, 7], np.int32)).tolist()
    assert found == [_identity_in_python(int(h), int(c), int(e), int(i), o) for h, c, e, i, o in zip(
        *keys, event, ingest, [0, 1, 7], strict=True)]  # fmt: skip


def _identity_in_python(user_hash: int, check: int, event_ts: int, ingest_ts: int, ordinal: int) -> int:
    """The definition, in integers of any size."""
    m = (1 << 64) - 1
    h = ((user_hash ^ (check * 0x9E3779B97F4A7C15 & m)) + event_ts * 0xBF58476D1CE4E5B9) & m
    h ^= h >> 32
    h = (h * 0x94D049BB133111EB + ingest_ts * 0xD6E8FEB86659FD93) & m
    h ^= h >> 29
    h = (h * 0xA0761D6478BD642F + ordinal * 0xE7037ED1A0B428DB) & m
    h ^= h >> 32
    h = h * 0x8EBC6AF09C88C6E3 & m
    return h ^ (h >> 29)


def pack_plainly(values: list[int], width: int, bits: int) -> bytes:
    """Rows of 256 / bits lanes, each lane a bit stream: with Python's integers."""
    lanes = 256 // bits
    rows = -(-len(values) // lanes)
    streams = [0] * lanes
    for i, value in enumerate(values):
        streams[i % lanes] |= value << (i // lanes * width)
    words = -(-rows * width // bits)
    mask = (1 << bits) - 1
    return b"".join(
        ((stream >> (word * bits)) & mask).to_bytes(bits // 8, "little") for word in range(words) for stream in streams
    )


@kernel
def pack_and_unpack(
    values: Any, events: Any, itemsize: Any, width: Any, start: Any, stop: Any, reference: Any, packed: Any, out: Any
) -> Any:
    pack_values(address_of(values), events, itemsize, width, np.uint64(0), np.uint64(0), address_of(packed))
    unpack_rows(itemsize, address_of(packed), width, start, stop, address_of(out), reference)


def test_the_example_in_the_documentation_holds() -> None:
    words = np.frombuffer(pack_plainly([5, 1, 7, 2, 0, 3, 6, 4, 1, 1], 3, 32), np.uint32)
    assert words.tolist() == [13, 9, 7, 2, 0, 3, 6, 4]


WIDTHS = [(1, w) for w in range(9)] + [(2, w) for w in (0, 1, 5, 11, 15, 16)] + [(4, w) for w in (0, 1, 7, 13, 31, 32)]
WIDTHS += [(8, w) for w in (0, 1, 9, 31, 32, 33, 47, 63, 64)]


@pytest.mark.parametrize(("itemsize", "width"), WIDTHS)
def test_packed_bytes_are_those_of_the_format(itemsize: int, width: int) -> None:
    rng = np.random.default_rng(itemsize * 100 + width)
    bits = (64 if width > 32 else 32) if itemsize == 8 else itemsize * 8
    dtype = np.dtype(f"u{itemsize}")
    for events in (1, 9, 31, 32, 33, 200, 255, 256):
        values = np.zeros(256, np.uint64)
        values[:events] = rng.integers(0, 1 << width, events, np.uint64) if width else 0
        expected = pack_plainly(values[:events].tolist(), width, bits)
        packed, out = np.zeros(4096, np.uint8), np.zeros(256, dtype)
        start, stop, reference = events // 3, events, 5
        u = np.uint64
        pack_and_unpack(values, u(events), u(itemsize), u(width), u(start), u(stop), u(reference), packed, out)
        assert packed[: len(expected)].tobytes() == expected
        assert not packed[len(expected) :].any()
        assert (out[start:stop] == (values[start:stop] + u(reference)).astype(dtype)).all()


@kernel
def unpack_both(table: Any, itemsize: Any, packed: Any, width: Any, reference: Any, by_rows: Any, at_once: Any) -> Any:
    unpack_rows(itemsize, address_of(packed), width, np.uint64(0), np.uint64(256), address_of(by_rows), reference)
    unpack_stripe(address_of(table), itemsize, address_of(packed), width, address_of(at_once), reference)


@kernel
def unpack_both_scaled(
    table: Any, packed: Any, width: Any, reference: Any, factor: Any, by_rows: Any, at_once: Any
) -> Any:
    start, stop = np.uint64(0), np.uint64(256)
    unpack_scaled_rows(address_of(packed), width, start, stop, address_of(by_rows), reference, factor)
    unpack_scaled_stripe(address_of(table), address_of(packed), width, address_of(at_once), reference, factor)


@pytest.mark.parametrize("itemsize", [1, 2, 4, 8])
def test_unrolled_code_unpacks_like_rows_at_every_width(itemsize: int) -> None:
    rng = np.random.default_rng(itemsize)
    table, u = np.zeros(TABLE_FIELDS, np.uint64), np.uint64
    table[UNPACKERS] = ADDRESSES.ctypes.data
    for width in range(min(itemsize * 8, 32) + 1):
        packed = rng.integers(0, 256, 4096).astype(np.uint8)
        by_rows, at_once = np.zeros((2, 257 * itemsize), np.uint8)
        unpack_both(table, u(itemsize), packed, u(width), u(300), by_rows, at_once)
        assert (by_rows == at_once).all()
        assert not at_once[-itemsize:].any()
        assert at_once.any()
        if itemsize == 8:
            unpack_both_scaled(table, packed, u(width), u(2**63 - 9), u(2**32 - 3), by_rows, at_once)
            assert (by_rows == at_once).all()


@kernel
def scale(itemsize: Any, start: Any, stop: Any, out: Any, factor: Any, plus: Any) -> Any:
    scale_rows(itemsize, start, stop, address_of(out), factor, plus)


@pytest.mark.parametrize("itemsize", [1, 2, 4, 8])
def test_scaled_rows_are_multiplied_and_moved(itemsize: int) -> None:
    values = np.random.default_rng(3).integers(0, 256, 256).astype(f"u{itemsize}")
    out, u = values.copy(), np.uint64
    scale(u(itemsize), u(0), u(256), out, u(7), u(300))
    assert (out == (values.astype(np.uint64) * u(7) + u(300)).astype(values.dtype)).all()


@kernel
def choose(values: Any, events: Any, itemsize: Any, counts: Any) -> Any:
    bits = count_bits(address_of(values), events, np.uint64(0), ~np.uint64(0), address_of(counts))
    return choose_width(address_of(counts), bits, events, itemsize)


@pytest.mark.parametrize("itemsize", [1, 2, 4, 8])
def test_the_cheapest_width_is_chosen(itemsize: int) -> None:
    rng = np.random.default_rng(itemsize)
    for events in (1, 7, 100, 256):
        for _ in range(20):
            widths = rng.integers(0, itemsize * 8, 256, endpoint=True) * (rng.random(256) < rng.random())
            values = np.array([int(rng.integers(0, 2**63)) >> (63 - min(int(w), 63)) for w in widths], np.uint64)
            values[events:] = 0
            found = choose(values, np.uint64(events), np.uint64(itemsize), np.zeros(65, np.uint64))
            assert int(found[0]) == min(_size(values[:events].tolist(), width, itemsize) for width in range(65))


def _size(values: list[int], width: int, itemsize: int) -> int:
    top = max(values).bit_length()
    bits = (64 if width > 32 else 32) if itemsize == 8 else itemsize * 8
    rows = -(-len(values) // (256 // bits))
    wide = sum(value >> width > 0 for value in values)
    high = next(size for size in (1, 2, 4, 8) if top - width <= size * 8)
    return -(-rows * width // bits) * 32 + wide * (1 + high)
