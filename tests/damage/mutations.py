"""Ways to make a shard file that is not one of ours: what the fuzzer does to real ones, with all checksums mended.

Some changes are wild and most files they make are refused. Others keep to what validation asks for, with entries that our
writer would never choose and payloads of noise: those are read, and the kernels have to live with them.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from forged_shards import OFFSET, ForgedShard

Rng = np.random.Generator
PACKED, SCALED, DELTA, RAW, POSITIONS, NULLS, LISTS = range(7)
NEVER_CLEAN = 2**63 - 1
TOP = 2**64 - 1
ITEMS_MAX = 1 << 18  # that a stripe of the real files may have
EDGES = [0, 1, 2, 255, 256, 257, 2**31 - 1, 2**31, 2**32, 2**39, 2**40 - 1, 2**62, 2**63 - 1, 2**63, TOP - 1, TOP]
SHIFTS = {
    "mode": (40, 3),
    "width": (43, 7),
    "exceptions": (50, 9),
    "code": (59, 2),
    "nulls": (61, 1),
    "reference": (62, 1),
}


class Place(NamedTuple):
    """One stripe of one column."""

    index: int  # of its entry
    column: dict[str, Any]
    number: int  # of the column
    record: int  # of the stripe
    events: int

    @property
    def itemsize(self) -> int:
        return np.dtype(self.column["dtype"]).itemsize


def places(shard: ForgedShard) -> Iterator[Place]:
    """All stripes, in the order of their entries."""
    index = 0
    for user in range(len(shard.users) - 1):
        (_, _, event, stripe, _), (_, _, end, last, _) = shard.users[user : user + 2].tolist()
        for number, column in enumerate(shard.columns):
            for s in range(last - stripe):
                yield Place(index, column, number, stripe + s, min(256, end - event - 256 * s))
                index += 1


def field(entry: int, name: str) -> int:
    shift, bits = SHIFTS[name]
    return entry >> shift & ((1 << bits) - 1)


def entry_of(**fields: int) -> int:
    return sum(value << SHIFTS[name][0] for name, value in fields.items())


def stripe_bytes(entry: int, events: int, itemsize: int) -> int:
    """How long the bytes of a stripe are, by docs/format.md."""
    mode, width = field(entry, "mode"), field(entry, "width")
    if mode == NULLS:
        return 0
    size = -(-events // 8) * field(entry, "nulls")
    if mode == RAW:
        return size + events * itemsize
    if mode == POSITIONS:
        return size + field(entry, "exceptions")
    bits = itemsize * 8 if itemsize < 8 else 32 if width <= 32 else 64
    size += 8 * field(entry, "reference") + 8 * (mode == SCALED)
    size += -(-(-(-events // (256 // bits)) * width) // bits) * 32
    return size + field(entry, "exceptions") * (1 + (1 << field(entry, "code")))


# ---- legal, but not ours


def legal_entry(rng: Rng, place: Place) -> int:
    """Any entry that validation lets pass for this stripe, without its offset."""
    role, dtype, itemsize = place.column["role"], place.column["dtype"], place.itemsize
    nulls = int(role in ("trait", "lengths", "superseded_at") and rng.random() < 0.3)
    if role == "items":
        return entry_of(mode=LISTS)
    if role == "event_ts":
        mode = DELTA
    else:
        modes = [PACKED, RAW, *([POSITIONS] if dtype == "bool" else [SCALED]), *([NULLS] if nulls else [])]
        mode = int(rng.choice(modes))
    if mode in (RAW, NULLS):
        return entry_of(mode=mode, nulls=nulls)
    if mode == POSITIONS:
        return entry_of(mode=mode, nulls=nulls, exceptions=int(rng.integers(0, place.events, endpoint=True)))
    if dtype == "bool":
        width = int(rng.integers(0, 2))
        return entry_of(mode=mode, nulls=nulls, width=width, reference=int(width == 0 and rng.random() < 0.5))
    exceptions = int(rng.choice([0, 0, 1, place.events, rng.integers(0, place.events, endpoint=True)]))
    bits = itemsize * 8
    width = int(rng.choice([0, bits - 1, bits - (exceptions > 0), rng.integers(0, bits)]))
    code = int(rng.integers(0, itemsize.bit_length())) if exceptions else 0
    reference = int(mode == SCALED or rng.random() < 0.4)
    return entry_of(mode=mode, nulls=nulls, width=width, exceptions=exceptions, code=code, reference=reference)


def new_bytes(rng: Rng, place: Place, entry: int, data: bytes) -> bytes:
    """Noise, as much as an entry asks for; for items, whose number the lengths tell, a header of legal words before it."""
    if place.column["role"] != "items":
        return noise(rng, stripe_bytes(entry, place.events, place.itemsize))
    return new_items(rng, place, data)


def new_items(rng: Rng, place: Place, data: bytes, overstep_at: int | None = None) -> bytes:
    """As many items of noise as there were. `overstep_at`: the chunk whose word has a field that no chunk can have."""
    count, chunk = int.from_bytes(data[:4], "little"), place._replace(column=place.column | {"role": "chunk"})
    if count > ITEMS_MAX:  # another change made it so
        return data
    words, parts = [count] if data else [], []
    for number, first in enumerate(range(0, count, 256)):
        chunk = chunk._replace(events=min(256, count - first))
        entry = legal_entry(rng, chunk)
        if number == overstep_at:
            entry = overstepped(rng, entry)
        words.append(entry >> 40)
        parts.append(noise(rng, stripe_bytes(entry, chunk.events, chunk.itemsize)))
    return b"".join([*(word.to_bytes(4, "little") for word in words), *parts])


def overstepped(rng: Rng, entry: int) -> int:
    """An entry with another value in one field."""
    shift, bits = SHIFTS[str(rng.choice(list(SHIFTS)))]
    top = (1 << bits) - 1
    value = int(rng.choice([0, 1, top, rng.integers(0, top, endpoint=True)]))
    return entry & ~(top << shift) | value << shift


def relay(shard: ForgedShard, rng: Rng) -> None:
    """New entries for some stripes, or all, with bytes of noise; everything else moves to make room."""
    share = rng.choice([0.02, 0.2, 1.0])
    starts = (shard.entries & np.uint64(OFFSET)).tolist()
    parts, entries = [], []
    for place in places(shard):
        entry = int(shard.entries[place.index]) & ~OFFSET
        data = shard.payload[starts[place.index] : starts[place.index + 1]].tobytes()
        if rng.random() < share:
            if place.column["role"] == "lengths" and rng.random() < 0.95:  # of noise, nothing else of a list is read
                parts.append(data)
                entries.append(entry)
                continue
            entry = legal_entry(rng, place)
            if place.column["role"] == "superseded_at":
                _claim(shard, rng, place, entry)
            data = new_bytes(rng, place, entry, data)
        parts.append(data)
        entries.append(entry)
    shard.replace_payload(parts, entries)


def misfit(shard: ForgedShard, rng: Rng) -> None:
    """Items that are not as their lengths or their header say: a word of it changed, too many bytes, or too few."""
    starts, parts, entries = (shard.entries & np.uint64(OFFSET)).tolist(), [], []
    share = rng.choice([0.02, 0.3])
    for place in places(shard):
        data = shard.payload[starts[place.index] : starts[place.index + 1]].tobytes()
        if place.column["role"] == "items" and rng.random() < share:
            chunks = -(-int.from_bytes(data[:4], "little") // 256)
            is_possible = chunks and rng.random() < 0.3
            data = new_items(rng, place, data, int(rng.integers(0, chunks))) if is_possible else _misfit(rng, data)
        parts.append(data)
        entries.append(int(shard.entries[place.index]) & ~OFFSET)
    shard.replace_payload(parts, entries)


def relength(shard: ForgedShard, rng: Rng) -> None:
    """Other lengths that add up to the same number of items: some are negative, or huge, or all in one event."""
    starts, parts, entries = (shard.entries & np.uint64(OFFSET)).tolist(), [], []
    counts = {}  # of items, by column and stripe
    for place in places(shard):
        data = shard.payload[starts[place.index] : starts[place.index + 1]].tobytes()
        counts[place.number, place.record] = int.from_bytes(data[:4], "little")
        parts.append(data)
        entries.append(int(shard.entries[place.index]) & ~OFFSET)
    for place in places(shard):
        if place.column["role"] == "lengths" and rng.random() < 0.3:
            count, most = counts[place.number + 1, place.record], int(rng.choice([1, 10, 2**20]))
            lengths = rng.integers(-most if rng.random() < 0.5 else 0, most, place.events)
            lengths[int(rng.integers(0, place.events))] += count - int(lengths.sum())
            parts[place.index] = lengths.astype(np.int32).tobytes()
            entries[place.index] = entry_of(mode=RAW)
    shard.replace_payload(parts, entries)


def _misfit(rng: Rng, data: bytes) -> bytes:
    kind = int(rng.integers(0, 4))
    if kind == 0 or not data:
        return data + noise(rng, int(rng.integers(1, 40)))
    if kind == 1:
        return data[: int(rng.integers(0, len(data)))]
    words = 1 + -(-int.from_bytes(data[:4], "little") // 256)
    at = 4 * int(rng.integers(0, words if kind == 2 else min(words, 2)))
    word = int.from_bytes(data[at : at + 4], "little")
    if rng.random() < 0.5:
        word ^= 1 << int(rng.integers(0, 32))
    else:
        word = int(rng.choice(np.array([*EDGES[:9], word + 1, word - 1, word + 256]))) % 2**32
    return data[:at] + word.to_bytes(4, "little") + data[at + 4 :]


def overstep(shard: ForgedShard, rng: Rng) -> None:
    """One entry with a field that its column cannot have, and as many bytes as it asks for: only its own check is left."""
    chosen, starts = int(rng.integers(0, len(shard.entries) - 1)), (shard.entries & np.uint64(OFFSET)).tolist()
    parts, entries = [], []
    for place in places(shard):
        entry = int(shard.entries[place.index]) & ~OFFSET
        data = shard.payload[starts[place.index] : starts[place.index + 1]].tobytes()
        if place.index == chosen:
            entry = overstepped(rng, legal_entry(rng, place))
            if place.column["role"] != "items":
                data = noise(rng, stripe_bytes(entry, place.events, place.itemsize))
            if place.column["role"] == "superseded_at":
                _claim(shard, rng, place, entry)
        parts.append(data)
        entries.append(entry)
    shard.replace_payload(parts, entries)


def _claim(shard: ForgedShard, rng: Rng, place: Place, entry: int) -> None:
    """What the stripe's record must say of this entry, nearly always."""
    if rng.random() < 0.98:
        latest = int(shard.stripes[place.record, 1])
        is_clean = field(entry, "mode") == NULLS
        shard.stripes[place.record, 1] = (0 if latest == NEVER_CLEAN else latest) if is_clean else NEVER_CLEAN


def noise(rng: Rng, size: int) -> bytes:
    """Bytes: any, small ones, or all the same."""
    kind = rng.integers(0, 4)
    if kind == 0:
        return bytes([int(rng.choice([0, 1, 127, 128, 255]))]) * size
    return rng.integers(0, 4 if kind == 1 else 256, size, np.uint8).tobytes()


def scribble(shard: ForgedShard, rng: Rng) -> None:
    """Other bytes in the payload, here and there or from a place on."""
    if not len(shard.payload):
        return
    start = int(rng.integers(0, len(shard.payload)))
    if rng.random() < 0.5:
        spots = rng.integers(0, len(shard.payload), 20)
        shard.payload[spots] = rng.integers(0, 256, 20, np.uint8)
    else:
        stop = min(len(shard.payload), start + int(rng.integers(1, 3000)))
        shard.payload[start:stop] = np.frombuffer(noise(rng, stop - start), np.uint8)


def retime(shard: ForgedShard, rng: Rng) -> None:
    """Stripe records with times and sums of no event; within a user the times still rise."""
    for user in range(len(shard.users) - 1):
        first, last = shard.users[user : user + 2, 3].tolist()
        if rng.random() < 0.5 and last > first:
            low, high = sorted(rng.choice([-(2**63), -1, 0, 10**15, 2**62, 2**63 - 2], 2).tolist())
            times = np.sort(rng.integers(low, high, last - first, endpoint=True, dtype=np.int64))
            shard.stripes[first:last, 0] = times.view(np.uint64)
    rows = rng.integers(0, len(shard.stripes), 3)
    shard.stripes[rows, 2] = rng.integers(0, TOP, 3, np.uint64)
    unclean = shard.stripes[rows, 1] == NEVER_CLEAN
    latest = rng.choice([-(2**63), -1, 0, 10**15, 2**63 - 2], 3).astype(np.int64).view(np.uint64)
    shard.stripes[rows[~unclean], 1] = latest[~unclean]


def rename_users(shard: ForgedShard, rng: Rng) -> None:
    """Other keys, in order; other ids."""
    count = len(shard.users) - 1
    few = rng.choice(np.array([0, 1, 2**32, 2**63, TOP - 1], np.uint64), count)
    hashes = np.sort(few if rng.random() < 0.5 else rng.integers(0, TOP, count, np.uint64))
    shard.users[:-1, 0] = hashes
    shard.users[:-1, 1] = np.sort(rng.integers(0, 2**20, count, np.uint64))
    name = str(rng.choice(list(shard.ids)))
    data = bytearray(shard.ids[name])
    if data:
        data[int(rng.integers(0, len(data)))] ^= 1 << int(rng.integers(0, 8))
    shard.ids[name] = bytes(data)


# ---- wild


def set_entry(shard: ForgedShard, rng: Rng) -> None:
    """One field of an entry, or one bit, or all."""
    i, kind = int(rng.integers(0, len(shard.entries))), int(rng.integers(0, 3))
    entry = int(shard.entries[i])
    if kind == 0:
        shift, bits = SHIFTS[str(rng.choice(list(SHIFTS)))]
        mask = (1 << bits) - 1
        entry = entry & ~(mask << shift) | int(rng.integers(0, mask, endpoint=True)) << shift
    elif kind == 1:
        entry ^= 1 << int(rng.integers(0, 64))
    else:
        entry = int(rng.integers(0, TOP, dtype=np.uint64))
    shard.entries[i] = entry


def set_word(shard: ForgedShard, rng: Rng) -> None:
    """One word of the users, the stripes or the entries: an edge, or a little more or less than it was."""
    words = [shard.users, shard.stripes, shard.entries, shard.checksums][int(rng.integers(0, 4))].reshape(-1)
    if len(words):
        i = int(rng.integers(0, len(words)))
        changed = int(words[i]) + int(rng.integers(-300, 300))
        words[i] = int(rng.choice(np.array(EDGES, np.uint64))) if rng.random() < 0.5 else changed % 2**64


def set_footer(shard: ForgedShard, rng: Rng) -> None:
    """A count, or a column's dtype, role or presence, or the type of the users."""
    footer, kind = shard.footer, int(rng.integers(0, 5))
    if kind == 0:
        name = str(rng.choice(["users", "events", "stripes", "blocks", "payload_bytes", "latest_ingest"]))
        footer[name] = int(rng.choice(np.array([0, 1, 255, 2**40, 2**61], np.int64)))
    elif kind == 1:
        footer["columns"][int(rng.integers(0, len(footer["columns"])))]["dtype"] = str(
            rng.choice(["bool", "int8", "int16", "int32", "int64", "uint8", "float32", "float64"])
        )
    elif kind == 2:
        del footer["columns"][int(rng.integers(3, len(footer["columns"]))) if len(footer["columns"]) > 3 else 0]
    elif kind == 3:
        footer["columns"].append({"id": 99, "name": "more", "role": "trait", "dtype": "int64", "bytes": 0})
    else:
        footer["user_type"] = "string" if footer["user_type"] == "int64" else "int64"


def grow_user(shard: ForgedShard, rng: Rng) -> None:
    """A user with more events, or fewer, as far as his stripes go; the users after him follow."""
    user, delta = int(rng.integers(0, len(shard.users) - 1)), int(rng.integers(-255, 256))
    events = shard.users[user + 1 :, 2].astype(np.int64) + delta
    shard.users[user + 1 :, 2] = events.astype(np.uint64)
    shard.footer["events"] += delta


def unbalance(shard: ForgedShard, rng: Rng) -> None:
    """What closes a list, and perhaps the footer with it: where the last stripe ends, or what all users have together."""
    value = int(rng.choice(np.array(EDGES, np.uint64)))
    if rng.random() < 0.4:
        shard.entries[-1] = value if rng.random() < 0.5 else (int(shard.entries[-1]) + int(rng.integers(-9, 9))) % 2**64
        return
    word = int(rng.integers(2, 5))
    changed = int(shard.users[-1, word]) + int(rng.integers(-300, 300)) if rng.random() < 0.7 else value
    shard.users[-1, word] = changed % 2**64
    if rng.random() < 0.5:
        shard.footer[("events", "stripes", "blocks")[word - 2]] = max(0, changed)


def empty_user(shard: ForgedShard, rng: Rng) -> None:
    """A user more, without events."""
    at = int(rng.integers(0, len(shard.users)))
    row = shard.users[at].copy()
    row[:2] = shard.users[at - 1, :2] + np.uint64(1) if at else 0
    shard.users = np.insert(shard.users, at, row, axis=0)
    shard.footer["users"] += 1
    for name, size in (("user_ids", 8), ("user_offsets", 8)):
        if name in shard.ids:
            shard.ids[name] += shard.ids[name][-size:]


def drop_section(shard: ForgedShard, rng: Rng) -> None:
    """A section without its last words."""
    count = int(rng.integers(1, 4))
    if rng.random() < 0.5:
        shard.entries = shard.entries[:-count]
    else:
        shard.stripes = shard.stripes[:-count]


Mutation = Callable[[ForgedShard, Rng], None]
LEGAL: tuple[Mutation, ...] = (relay, scribble, retime, rename_users, misfit, relength)
WILD: tuple[Mutation, ...] = (set_entry, set_word, set_footer, grow_user, unbalance, empty_user, drop_section)


def mutate(shard: ForgedShard, rng: Rng) -> None:
    """One case: legal changes, mostly, and now and then a wild one."""
    chosen: list[Mutation] = [LEGAL[i] for i in np.flatnonzero(rng.random(len(LEGAL)) < 0.5)]
    kind = rng.random()
    if kind < 0.3:
        chosen.append(overstep)
    elif kind < 0.5 or not chosen:
        chosen += [WILD[i] for i in rng.integers(0, len(WILD), int(rng.integers(1, 4)))]
    for change in chosen:
        change(shard, rng)
