"""A second reader of shard files, slow and plain, written from docs/format.md and sharing no code with the first."""

import itertools
import json
import struct
from typing import Any

import numpy as np
import xxhash

EVENTS_PER_STRIPE, STRIPES_PER_BLOCK = 256, 16
TOP = (1 << 64) - 1
NEVER = (1 << 63) - 1


def words(data: bytes) -> list[int]:
    return [word for (word,) in struct.iter_unpack("<Q", data)]


def chunk_bytes(word: int, items: int, dtype: np.dtype[Any]) -> int:
    """How long the bytes of a chunk are. Raises: ValueError: no chunk has such a word."""
    mode, width, exceptions, code = word & 7, word >> 3 & 127, word >> 10 & 511, word >> 19 & 3
    has_nulls, has_reference, size = word >> 21 & 1, word >> 22 & 1, dtype.itemsize
    possible = word >> 23 == 0 and not has_nulls and mode in (0, 1, 3, 4) and exceptions <= items
    if mode == 3:
        possible &= width + exceptions + code + has_reference == 0
    elif mode == 4:
        possible &= dtype.kind == "b" and width + code + has_reference == 0
    elif dtype.kind == "b":
        possible &= mode == 0 and width + has_reference <= 1 and exceptions + code == 0
    elif exceptions:
        possible &= width < size * 8 and 1 << code <= size
    else:
        possible &= width <= size * 8 and code == 0
    if not possible or (mode == 1 and not has_reference):
        raise ValueError("no such chunk")
    if mode == 3:
        return items * size
    if mode == 4:
        return exceptions
    bits = size * 8 if size < 8 else 32 if width <= 32 else 64
    packed = -(-(-(-items // (256 // bits)) * width) // bits) * 32
    return 8 * has_reference + 8 * (mode == 1) + packed + exceptions * (1 + (1 << code))


class PlainReader:
    """Reads one file whole: footer, users, and any column of any user."""

    def __init__(self, data: bytes) -> None:
        assert data[:8] == b"LATEWOOD"
        assert struct.unpack("<III", data[8:20]) == (1, EVENTS_PER_STRIPE, STRIPES_PER_BLOCK)
        size, digest, magic = struct.unpack("<QQ8s", data[-24:])
        footer = data[-24 - size : -24]
        assert magic == b"doowetal"
        assert xxhash.xxh3_64_intdigest(footer) == digest
        self.footer = json.loads(footer)
        self.sections = {}
        for name, (offset, length, expected) in self.footer["sections"].items():
            self.sections[name] = data[offset : offset + length]
            assert xxhash.xxh3_64_intdigest(self.sections[name]) == int(expected, 16)
        self.payload = data[64 : 64 + self.footer["payload_bytes"]]
        self.users = np.array(words(self.sections["users"]), object).reshape(-1, 5)
        self.stripes = np.array(words(self.sections["stripes"]), object).reshape(-1, 3)
        self.entries, self.checksums = words(self.sections["entries"]), words(self.sections["checksums"])
        self.columns = self.footer["columns"]

    def user_ids(self) -> list[Any]:
        if self.footer["user_type"] == "int64":
            return [i for (i,) in struct.iter_unpack("<q", self.sections["user_ids"])]
        offsets, text = words(self.sections["user_offsets"]), self.sections["user_bytes"]
        return [text[a:b].decode() for a, b in itertools.pairwise(offsets)]

    def column(self, user: int, column: int) -> tuple[np.ndarray[Any, Any], list[bool]]:
        """All values of a user's column, and which are null."""
        first_stripe = self.users[user][3]
        events, stripes, _ = (self.users[user + 1] - self.users[user])[2:]
        dtype = np.dtype(self.columns[column]["dtype"])
        base = first_stripe * len(self.columns) + column * stripes
        values: list[int] = []
        nulls: list[bool] = []
        self.check_blocks(user, column)
        for stripe in range(stripes):
            count = min(EVENTS_PER_STRIPE, events - stripe * EVENTS_PER_STRIPE)
            first_ts = self.stripes[first_stripe + stripe][0]
            part, empty = self.stripe(self.entries[base + stripe], count, dtype.itemsize, first_ts)
            values += part
            nulls += empty
        cut = [value & ((1 << (dtype.itemsize * 8)) - 1) for value in values]
        return np.array(cut, f"u{dtype.itemsize}").view(dtype), nulls

    def check_blocks(self, user: int, column: int) -> None:
        """That the checksums of a user's column are right."""
        first_stripe, first_block = self.users[user][3:]
        _, stripes, blocks = (self.users[user + 1] - self.users[user])[2:]
        base = first_stripe * len(self.columns) + column * stripes
        for block in range(blocks):
            first = block * STRIPES_PER_BLOCK
            start = self.entries[base + first] & ((1 << 40) - 1)
            stop = self.entries[base + min(first + STRIPES_PER_BLOCK, stripes)] & ((1 << 40) - 1)
            number = first_block * len(self.columns) + column * blocks + block
            assert xxhash.xxh64_intdigest(self.payload[start:stop]) == self.checksums[number]

    def lists(self, user: int, column: int) -> list[np.ndarray[Any, Any] | None]:
        """All lists of a user, None where null; `column` is that of the lengths.

        Raises: ValueError: lengths and items that do not go together.
        """
        assert [of["role"] for of in self.columns[column : column + 2]] == ["lengths", "items"]
        lengths, nulls = self.column(user, column)
        lengths = [0 if null else length for length, null in zip(lengths.tolist(), nulls, strict=True)]
        if any(length < 0 for length in lengths):
            raise ValueError("a negative length")
        self.check_blocks(user, column + 1)
        first_stripe, stripes = self.users[user][3], self.users[user + 1][3] - self.users[user][3]
        base = first_stripe * len(self.columns) + (column + 1) * stripes
        dtype, found = np.dtype(self.columns[column + 1]["dtype"]), list[np.ndarray[Any, Any] | None]()
        for stripe in range(stripes):
            start, stop = (entry & ((1 << 40) - 1) for entry in self.entries[base + stripe : base + stripe + 2])
            assert self.entries[base + stripe] >> 40 == 6
            of_stripe = lengths[EVENTS_PER_STRIPE * stripe : EVENTS_PER_STRIPE * (stripe + 1)]
            items = self.items(self.payload[start:stop], sum(of_stripe), dtype)
            ends = list(itertools.accumulate(of_stripe))
            found += [items[end - length : end] for length, end in zip(of_stripe, ends, strict=True)]
        return [None if null else items for items, null in zip(found, nulls, strict=True)]

    def items(self, data: bytes, count: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        """The items of a stripe."""
        if not count:
            if data:
                raise ValueError("items of nobody")
            return np.zeros(0, dtype)
        chunks = -(-count // EVENTS_PER_STRIPE)
        if len(data) < 4 * chunks + 4 or int.from_bytes(data[:4], "little") != count:
            raise ValueError("not as many items as the lengths say")
        bits, at, values = dtype.itemsize * 8, 4 * chunks + 4, []
        for chunk in range(chunks):
            word = int.from_bytes(data[4 * chunk + 4 : 4 * chunk + 8], "little")
            size = min(EVENTS_PER_STRIPE, count - EVENTS_PER_STRIPE * chunk)
            stop = at + chunk_bytes(word, size, dtype)
            values += [v & ((1 << bits) - 1) for v in self.decoded(data[at:stop], word << 40, size, bits // 8, 0)[0]]
            at = stop
        if at != len(data):
            raise ValueError("not the bytes that the header asks for")
        return np.array(values, f"u{dtype.itemsize}").view(dtype)

    def superseded(self, user: int) -> list[int]:
        """When each of a user's events was superseded, NEVER where it was not; and what the stripes' records say of it."""
        first_stripe, events = self.users[user][3], int((self.users[user + 1] - self.users[user])[2])
        at = [NEVER] * events
        if self.columns[-1]["role"] == "superseded_at":
            values, nulls = self.column(user, len(self.columns) - 1)
            at = [NEVER if null else value for value, null in zip(values.tolist(), nulls, strict=True)]
        for stripe in range(-(-events // EVENTS_PER_STRIPE)):
            part = at[stripe * EVENTS_PER_STRIPE : (stripe + 1) * EVENTS_PER_STRIPE]
            is_clean = all(time == NEVER for time in part)
            assert is_clean == (self.stripes[first_stripe + stripe][1] != NEVER)
        return at

    def stripe(self, entry: int, events: int, size: int, first_ts: int) -> tuple[list[int], list[bool]]:
        return self.decoded(self.payload[entry & ((1 << 40) - 1) :], entry, events, size, first_ts)

    def decoded(self, data: bytes, entry: int, events: int, size: int, first_ts: int) -> tuple[list[int], list[bool]]:
        mode, width = entry >> 40 & 7, entry >> 43 & 127
        exceptions, code = entry >> 50 & 511, entry >> 59 & 3
        has_nulls, has_reference = entry >> 61 & 1, entry >> 62 & 1
        nulls = [False] * events
        if mode == 5:
            return [0] * events, [True] * events
        if has_nulls:
            nulls = [bool(data[i // 8] >> (i % 8) & 1) for i in range(events)]
            data = data[-(-events // 8) :]
        if mode == 3:
            values = [int.from_bytes(data[i * size : (i + 1) * size], "little") for i in range(events)]
        elif mode == 4:
            values = [int(i in data[:exceptions]) for i in range(events)]
        else:
            reference, factor = 0, 1
            if has_reference:
                reference, data = int.from_bytes(data[:8], "little"), data[8:]
            if mode == 1:
                factor, data = int.from_bytes(data[:8], "little"), data[8:]
            packed = self.packed(data, events, size, width, exceptions, code)
            if mode == 2:
                steps = np.array(packed, object) * (reference if has_reference else 1)
                values = [(first_ts + step) & TOP for step in np.cumsum(steps).tolist()]
            else:
                values = [(reference + value * factor) & TOP for value in packed]
        return [0 if null else value for value, null in zip(values, nulls, strict=True)], nulls

    def packed(self, data: bytes, events: int, size: int, width: int, exceptions: int, code: int) -> list[int]:
        bits = size * 8 if size < 8 else 32 if width <= 32 else 64
        lanes = 256 // bits
        rows = -(-events // lanes)
        stored = -(-rows * width // bits)
        streams = [0] * lanes
        for k in range(stored):
            for lane in range(lanes):
                at = (k * lanes + lane) * bits // 8
                streams[lane] |= int.from_bytes(data[at : at + bits // 8], "little") << (k * bits)
        values = [streams[i % lanes] >> (i // lanes * width) & ((1 << width) - 1) for i in range(events)]
        highs, positions = data[stored * 32 :], data[stored * 32 + (exceptions << code) :]
        for i in range(exceptions):
            values[positions[i]] += int.from_bytes(highs[i << code : (i + 1) << code], "little") << width
        return values
