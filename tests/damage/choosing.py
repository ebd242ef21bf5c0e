"""Searching an opened shard and picking out of it, with guards: what is found and picked is what decoding gives.

That holds whatever is in the file, but for what the index is believed: the times at which stripes begin bound those in
them, and a value of a flag is 0 or 1.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from guarded import Region
from numpy.typing import NDArray

import latewood as lw
from latewood.conditions import OPERATORS, Condition
from latewood.errors import CorruptionError
from latewood.immutable.resolve import Rows, Runs
from latewood.materialize.choose import Candidates
from latewood.materialize.compile import compile_conditions
from latewood.materialize.decode import WantedColumn
from latewood.materialize.find import BeyondError, Found, find_events
from latewood.stripes import Ranges, Shard, Tables, fields_of
from latewood.stripes.decode import Output, decode_columns
from latewood.stripes.pick import Picks, group_rows, pick_columns
from latewood.stripes.search import Search

Rng = np.random.Generator
SENTINEL = 7
ODD = [0, 1, -1, 255, 2**31, 2**63 - 1, -(2**63), 2**64 - 1]


class Room:
    """The guarded regions of searching and picking."""

    def __init__(self) -> None:
        self.groups, self.values, self.mask, self.desk, self.words = (
            Region(size) for size in (1 << 21, 1 << 20, 1 << 18, 1 << 17, 1 << 17)
        )
        self._found = Region(1 << 20), Region(1 << 20)
        self._next = 0

    def groups_for(self, length: int, dtype: Any) -> NDArray[Any]:
        """As `np.empty`, for groups."""
        return self.groups.array(dtype, length)

    def empty(self, length: int, dtype: Any) -> NDArray[Any]:
        """As a pool of buffers; the one given out before stays as it is."""
        self._next = 1 - self._next
        return self._found[self._next].array(dtype, length)


class GuardedSearch(Search):
    """One whose words and desk lie between guards."""

    room: Room

    def __init__(self, search: Search, room: Room) -> None:
        super().__init__(search.leaves, search.intervals, search.operations, search.programs, search.slots)
        words = room.words.array(np.uint64, len(self.words))
        words[:] = self.words
        object.__setattr__(self, "words", words)
        object.__setattr__(self, "room", room)

    def desk(self) -> NDArray[np.uint64]:
        found = self.room.desk.array(np.uint64, len(super().desk()))
        found[:] = 0
        return found


class Decoded:
    """All users' values of every column, but the items of lists. Shapes: values, nulls: (events,) by column."""

    def __init__(self, tables: Tables, shard: Shard) -> None:
        self.counts = np.diff(shard.first_event)
        users = np.arange(len(self.counts))
        self.first = np.cumsum(self.counts) - self.counts
        ranges = Ranges(0 * users, users, 0 * users, self.counts.copy(), self.first)
        self.columns = dict(fields_of(shard.columns))
        size = int(self.counts.sum())
        self.values = {place: np.zeros(size, column.dtype) for place, column in self.columns.items()}
        self.nulls = {place: np.zeros(size, np.bool_) for place in self.columns}
        for place in self.columns:
            decode_columns(tables, ranges, [Output(place, self.values[place], self.nulls[place])], verify=False)


def choose(tables: Tables, shard: Shard, room: Room, rng: Rng) -> None:
    """Search and pick, some of it."""
    if not shard.user_count:
        return
    decoded = Decoded(tables, shard)
    pick(tables, decoded, room, rng)
    for _ in range(2):
        search(tables, shard, decoded, room, rng)


# ---- picking


def pick(tables: Tables, decoded: Decoded, room: Room, rng: Rng) -> None:
    """Rows of some users, between them what is not stored."""
    users = rng.integers(0, len(decoded.counts), 5)
    share = rng.choice([0.003, 0.03, 0.4])
    parts = [np.flatnonzero(rng.random(decoded.counts[user]) < share) for user in users]
    parts = [np.insert(part, rng.integers(0, len(part) + 1, 2), -1) for part in parts]
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    rows = np.concatenate(parts)
    picks = group_rows(tables, 0 * users, users, offsets, rows, room.groups_for)
    where = rows + np.repeat(decoded.first[users], np.diff(offsets))
    for place in decoded.columns:
        _pick_column(tables, decoded, picks, place, where[rows >= 0], room, rng)


def _pick_column(
    tables: Tables, decoded: Decoded, picks: Picks, place: int, where: NDArray[np.int64], room: Room, rng: Rng
) -> None:
    size, stored, dtype = len(picks.rows), picks.rows >= 0, decoded.columns[place].dtype
    at_end = bool(rng.random() < 0.8)
    values, mask = room.values.array(dtype, size, at_end=at_end), room.mask.array(np.bool_, size, at_end=at_end)
    output = Output(place, values, mask if rng.random() < 0.8 else None)
    values[:], mask[:] = SENTINEL, True
    if rng.random() < 0.5:
        try:
            pick_columns(tables, picks, [output])
        except CorruptionError:
            values[:], mask[:] = SENTINEL, True
    nulls = pick_columns(tables, picks, [output], verify=False).nulls[0]
    assert (values[~stored] == np.array(SENTINEL).astype(dtype)).all(), "values of rows that are not stored"
    assert mask[~stored].all(), "masks of rows that are not stored"
    assert values[stored].tobytes() == decoded.values[place][where].tobytes(), "picked, and not what is decoded"
    if output.mask is not None:
        assert mask[stored].tolist() == decoded.nulls[place][where].tolist(), "picked, and another mask"
    assert nulls or not decoded.nulls[place][where].any(), "nulls that were not announced"


# ---- searching


def search(tables: Tables, shard: Shard, decoded: Decoded, room: Room, rng: Rng) -> None:
    """Streams of a few conditions over all users, with recent events among the stored ones."""
    words = {
        f"c{place}": pa.array([f"w{i % 5}" for i in range(int(rng.choice([0, 4, 300])))], pa.string())
        for place, column in decoded.columns.items()
        if column.dtype == np.int32 and rng.random() < 0.5
    }
    wanted = {
        f"c{place}": WantedColumn(f"c{place}", None, place, column.dtype, True)
        for place, column in decoded.columns.items()
    }
    streams = int(rng.integers(1, 4))
    conditions = [None if rng.random() < 0.1 else _draw(decoded, words, rng, 2) for _ in range(streams)]
    compiled = GuardedSearch(compile_conditions(conditions, wanted, words), room)
    counts = rng.choice(np.array([0, 1, 5, 1000, 2**62]), streams)
    max_len = int(rng.choice([0, 3, 300])) if rng.random() < 0.3 else None
    candidates, places = _candidates(decoded.counts, rng)
    recent_bits = rng.integers(0, 1 << streams, int(candidates.recent_stop[-1]))
    verify = bool(rng.random() < 0.5)
    merged = np.concatenate([[0], np.cumsum(candidates.recent_count)]), places
    used = [int(name[1:]) for name in frozenset().union(*(c.names for c in conditions if c is not None))]
    beyond, found = None, None
    try:
        found = find_events(
            tables,
            candidates,
            merged,
            compiled,
            counts,
            recent_bits,
            max_len,
            verify,
            room,  # type: ignore[arg-type]
        )
    except CorruptionError:
        return
    except BeyondError as error:
        beyond = error.column
    if found is None:
        assert beyond is not None
        assert _codes_beyond(decoded, words, beyond), "a code without a value, which has one"
        return
    if all(_is_believed(shard, decoded, words, place) for place in used):
        _compare(found, candidates, places, _truths(decoded, words, conditions), counts, recent_bits, max_len, decoded)


def _draw(decoded: Decoded, words: dict[str, pa.Array], rng: Rng, depth: int) -> Condition:
    kind = rng.integers(0, 6) if depth else 5
    if kind == 0:
        return ~_draw(decoded, words, rng, depth - 1)
    if kind < 3:
        left, right = _draw(decoded, words, rng, depth - 1), _draw(decoded, words, rng, depth - 1)
        return left & right if kind == 1 else left | right
    place = int(
        rng.choice(np.array([0, *(place for place, of in decoded.columns.items() if of.role in ("trait", "lengths"))]))
    )
    name, dtype = f"c{place}", decoded.columns[place].dtype
    if rng.random() < 0.1 or decoded.columns[place].role == "lengths":
        return lw.col(name).is_null()
    if name in words:
        values: list[Any] = ["w0", "w3", "w9"]
    elif dtype.kind == "b":
        return lw.col(name) == bool(rng.random() < 0.7)
    else:
        values = [*rng.choice(decoded.values[place], 30).tolist(), *(ODD if dtype.kind in "iu" else [0.5, np.nan])]
    if rng.random() < 0.2:
        return lw.col(name).is_in(values)
    comparison: Condition = OPERATORS[str(rng.choice(list(OPERATORS)))](lw.col(name), values[rng.integers(len(values))])
    return comparison


def _candidates(counts: NDArray[np.int64], rng: Rng) -> tuple[Candidates, NDArray[np.int64]]:
    """Of each user some runs of rows, and recent events. Returns: also how many stored ones lie before each of these."""
    starts, lengths, of_users, recents, places = [], [], [], [], list[int]()
    for count in counts.tolist():
        edges = np.unique(rng.integers(0, count + 1, 2 * int(rng.integers(1, 4))))
        if rng.random() < 0.5:
            edges = np.array([0, count])
        elif len(edges) % 2:
            edges = edges[1:]
        runs = edges.reshape(-1, 2) if len(edges) else np.zeros((1, 2), np.int64)
        stored, recent = int((runs[:, 1] - runs[:, 0]).sum()), int(rng.integers(0, 4))
        starts.append(runs[:, 0])
        lengths.append(runs[:, 1] - runs[:, 0])
        of_users.append(len(runs))
        recents.append(recent)
        places += np.sort(rng.integers(0, stored + 1, recent)).tolist()
    runs_ = Runs(np.concatenate([[0], np.cumsum(of_users)]), np.concatenate(starts), np.concatenate(lengths))
    stored_count, recent_count = runs_.counts, np.array(recents, np.int64)
    total = stored_count + recent_count
    kept = np.where(rng.random(len(total)) < 0.5, total, rng.integers(0, total + 1))
    users = np.arange(len(counts))
    ends = runs_.offsets[1:] - 1
    hull = Rows(0 * users, users, runs_.start[runs_.offsets[:-1]], runs_.start[ends] + runs_.length[ends])
    return Candidates(
        np.concatenate([[0], np.cumsum(kept)]),
        hull,
        stored_count,
        runs_,
        runs_.before,
        np.cumsum(recent_count),
        recent_count,
        np.flatnonzero(recent_count),
    ), np.array(places, np.int64)


def _codes_beyond(decoded: Decoded, words: dict[str, pa.Array], place: int) -> bool:
    """Whether a coded column has a code without a value."""
    if f"c{place}" not in words:
        return False
    codes = decoded.values[place][~decoded.nulls[place]]
    return bool(((codes < 0) | (codes >= len(words[f"c{place}"]))).any())


def _is_believed(shard: Shard, decoded: Decoded, words: dict[str, pa.Array], place: int) -> bool:
    """Whether a column holds nothing but what the index and its type say."""
    if decoded.values[place].dtype == np.bool_:
        return bool((decoded.values[place].view(np.uint8) <= 1).all())
    if place:
        return not _codes_beyond(decoded, words, place)
    for user, (first, count) in enumerate(zip(decoded.first.tolist(), decoded.counts.tolist(), strict=True)):
        times = decoded.values[0][first : first + count].view(np.uint64)
        begins = shard.first_ts[slice(*shard.first_stripe[user : user + 2].tolist())].view(np.uint64)
        of = np.arange(count) // 256
        bounded = of < len(begins) - 1
        low, high = begins[of[bounded]], begins[of[bounded] + 1]
        if ((times[bounded] - low) > (high - low)).any():
            return False
    return True


def _truths(
    decoded: Decoded, words: dict[str, pa.Array], conditions: Sequence[Condition | None]
) -> list[NDArray[np.bool_]]:
    """Which of all rows meet each condition."""
    size = int(decoded.counts.sum())
    arrays = {}
    for place, values in decoded.values.items():
        array = pa.array(values, mask=decoded.nulls[place])
        if f"c{place}" in words and not _codes_beyond(decoded, words, place):
            array = pa.DictionaryArray.from_arrays(array, words[f"c{place}"])
        arrays[f"c{place}"] = array
    return [np.ones(size, np.bool_) if where is None else where.evaluate(arrays) for where in conditions]


def _compare(
    found: Found,
    candidates: Candidates,
    places: NDArray[np.int64],
    truths: list[NDArray[np.bool_]],
    counts: NDArray[np.int64],
    recent_bits: NDArray[np.int64],
    max_len: int | None,
    decoded: Decoded,
) -> None:
    """With all events of each user, oldest first, of which every stream takes its newest."""
    bits_of_rows = sum((truth.astype(np.int64) << i for i, truth in enumerate(truths)), np.int64(0))
    runs, recent_first = candidates.runs, candidates.recent_stop - candidates.recent_count
    for user in range(len(candidates.stored_count)):
        mine = range(*runs.offsets[user : user + 2].tolist())
        rows = np.concatenate([np.arange(runs.start[k], runs.start[k] + runs.length[k]) for k in mine])
        recent = slice(int(recent_first[user]), int(candidates.recent_stop[user]))
        at = places[recent]
        source = np.insert(rows, at, ~np.arange(recent.start, recent.stop))
        bits = np.insert(bits_of_rows[decoded.first[user] + rows], at, recent_bits[recent])
        newest = len(source) - int(candidates.offsets[user + 1] - candidates.offsets[user])
        kept = np.zeros(len(source), np.int64)
        for stream, count in enumerate(counts.tolist()):
            meets = newest + np.flatnonzero(bits[newest:] >> stream & 1)
            kept[meets[len(meets) - min(count, len(meets)) :]] |= 1 << stream
        chosen = np.flatnonzero(kept)
        if max_len is not None:
            chosen = chosen[len(chosen) - min(max_len, len(chosen)) :]
        these = slice(*found.offsets[user : user + 2].tolist())
        assert found.source[these].tolist() == source[chosen].tolist(), "found, and not what meets the conditions"
        assert found.bits[these].tolist() == kept[chosen].tolist(), "found for other streams"
