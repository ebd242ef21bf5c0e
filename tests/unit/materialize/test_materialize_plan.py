"""Plan and assemble, checked against plain lists: whatever is shared, every output must come out right."""

from dataclasses import dataclass

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from latewood.immutable.resolve import Rows, Runs
from latewood.materialize.assemble import assemble, copy_segments
from latewood.materialize.choose import Candidates
from latewood.materialize.plan import Plan, plan
from latewood.materialize.split import Parts, split


def rows_of(*stretches: tuple[int, int, int, int]) -> Rows:
    return Rows(*np.array(stretches, np.int64).reshape(-1, 4).T.copy())


def planned(*stretches: tuple[int, int, int, int], direct: bool = True) -> Plan:
    """Of heads, or of tails whose heads are empty."""
    rows, n = rows_of(*stretches), len(stretches)
    lengths = rows.stop - rows.start
    offsets = np.cumsum(lengths) - lengths
    if direct:
        return plan(Parts(rows, rows_of(), np.zeros(0, np.int64), offsets, lengths), int(lengths.sum()))
    none = np.zeros(n, np.int64)
    return plan(Parts(rows._replace(stop=rows.start), rows, np.arange(n), offsets, none), int(lengths.sum()))


def ranges_of(plan: Plan) -> list[tuple[int, ...]]:
    ranges = plan.ranges
    columns = (ranges.shard, ranges.user, ranges.start, ranges.stop, ranges.target)
    return [tuple(int(x) for x in row) for row in zip(*columns, strict=True)]


def test_examples_of_different_users_are_decoded_in_place() -> None:
    result = planned((0, 5, 10, 20), (1, 5, 10, 20), (0, 4, 0, 3))
    assert sorted(ranges_of(result)) == [(0, 4, 0, 3, 20), (0, 5, 10, 20, 0), (1, 5, 10, 20, 10)]
    assert result.size == 23
    assert result.base.tolist() == [0, 10, 20]


def test_overlapping_stretches_of_a_user_are_decoded_once_in_scratch() -> None:
    result = planned((0, 1, 100, 1100), (0, 1, 300, 1300), (0, 1, 500, 1500))
    assert ranges_of(result) == [(0, 1, 100, 1500, 3000)]
    assert result.base.tolist() == [3000, 3200, 3400]
    assert result.size == 4400


def test_a_stretch_that_covers_the_others_needs_no_scratch() -> None:
    result = planned((0, 1, 0, 500), (0, 1, 0, 1500), (0, 1, 300, 900))
    assert ranges_of(result) == [(0, 1, 0, 1500, 500)]
    assert result.base.tolist() == [500, 500, 800]
    assert result.size == 2600


def test_windows_far_apart_are_not_united() -> None:
    result = planned((0, 1, 0, 64), (0, 1, 90_000, 90_064))
    assert ranges_of(result) == [(0, 1, 0, 64, 0), (0, 1, 90_000, 90_064, 64)]


def test_a_small_overlap_of_long_stretches_is_not_worth_copying_them() -> None:
    result = planned((0, 1, 0, 4096), (0, 1, 4000, 8000))
    assert len(result.ranges) == 2
    assert result.size == 8096


def test_small_windows_in_one_stripe_share_its_decoding() -> None:
    result = planned((0, 1, 0, 10), (0, 1, 200, 210))
    assert ranges_of(result) == [(0, 1, 0, 210, 20)]


def test_a_tail_is_decoded_in_scratch() -> None:
    result = planned((0, 1, 5, 10), direct=False)
    assert ranges_of(result) == [(0, 1, 5, 10, 5)]
    assert result.base.tolist()[1:] == [5]


def test_a_tail_leaves_its_head_in_place() -> None:
    parts = Parts(rows_of((0, 1, 0, 1000)), rows_of((0, 1, 1000, 1010)), *np.array([[0], [0], [1000]], np.int64))
    result = plan(parts, 1008)
    assert ranges_of(result) == [(0, 1, 0, 1000, 0), (0, 1, 1000, 1010, 1008)]


def test_nothing_wanted() -> None:
    assert len(planned().ranges) == 0
    result = planned((0, 1, 7, 7), (0, -1, 0, 0))
    assert len(result.ranges) == 0
    assert result.size == 0


@dataclass
class Example:
    """The stored rows that an example sees and its recents, each given by the number of stored ones before it."""

    shard: int
    user: int
    rows: list[int]
    recents: list[int]
    keep: int


@st.composite
def examples(draw: st.DrawFn) -> Example:
    low = draw(st.integers(0, 1500))
    span = draw(st.integers(0, 2000))
    gaps = draw(st.one_of(st.just(set()), st.sets(st.integers(low, low + span), max_size=20)))
    rows = [row for row in range(low, low + span) if row not in gaps]
    recents = draw(st.one_of(st.just([len(rows)] * 3), st.lists(st.integers(0, len(rows)), max_size=5)))
    keep = draw(st.integers(0, len(rows) + len(recents)))
    return Example(draw(st.integers(0, 1)), draw(st.integers(0, 2)), rows, sorted(recents), keep)


def runs_of(stored: list[list[int]]) -> Runs:
    """The rows of each example as runs, of which every one has at least one."""
    found = []
    for rows in stored:
        starts = [row for i, row in enumerate(rows) if not i or rows[i - 1] + 1 < row] or [0]
        ends = [row + 1 for i, row in enumerate(rows) if row + 1 not in rows[i + 1 : i + 2]] or [0]
        found.append([(start, end - start) for start, end in zip(starts, ends, strict=True)])
    offsets = np.cumsum([0, *map(len, found)])
    return Runs(offsets, *np.array([run for runs in found for run in runs], np.int64).reshape(-1, 2).T.copy())


def value(shard: int, user: int, row: int) -> int:
    return (shard * 10 + user) * 10_000 + row


def expected(example: Example, first_recent: int) -> list[int]:
    merged: list[int] = []
    for k in range(len(example.rows) + 1):
        merged += [-1 - first_recent - j for j, place in enumerate(example.recents) if place == k]
        merged += [value(example.shard, example.user, row) for row in example.rows[k : k + 1]]
    return merged[len(merged) - example.keep :]


@given(st.lists(examples(), max_size=12))
def test_every_output_is_complete_whatever_is_shared(batch: list[Example]) -> None:
    """The whole way from candidates to output, with Python in the place of the stripes' kernel."""
    shape = [(e, all(place == len(e.rows) for place in e.recents)) for e in batch]
    recent_stop = np.cumsum([len(e.recents) for e in batch], dtype=np.int64)
    offsets = np.concatenate(([0], np.cumsum([e.keep for e in batch], dtype=np.int64)))
    # As `choose` cuts: exactly what is kept where recents only follow, everything where they interleave.
    recent_count = np.array(
        [min(len(e.recents), e.keep) if appends else len(e.recents) for e, appends in shape], np.int64
    )
    stored = [(e.rows[len(e.rows) - max(e.keep - len(e.recents), 0) :] if appends else e.rows) for e, appends in shape]
    stretches = [
        (e.shard, e.user, rows[0], rows[-1] + 1) if rows else (e.shard, e.user, 0, 0)
        for e, rows in zip(batch, stored, strict=True)
    ]
    candidates = Candidates(
        offsets,
        rows_of(*stretches),
        np.array([len(rows) for rows in stored], np.int64),
        runs := runs_of(stored),
        runs.before,
        recent_stop,
        recent_count,
        np.flatnonzero([not appends for _, appends in shape]),
    )
    place_counts = [0 if appends else len(e.recents) for e, appends in shape]
    place_offsets = np.concatenate(([0], np.cumsum(place_counts, dtype=np.int64)))
    places = np.array([place for e, appends in shape if not appends for place in e.recents], np.int64)

    parts = split(candidates, place_offsets, places)
    result = plan(parts, int(offsets[-1]))
    segments = assemble(candidates, parts, result.base, place_offsets, places)
    buffer = np.full(result.size, 2**40, np.int64)
    for shard, user, start, stop, target in ranges_of(result):
        buffer[target : target + stop - start] = [value(shard, user, row) for row in range(start, stop)]
    recents = -1 - np.arange(int(recent_stop[-1]) if len(batch) else 0)
    copy_segments(segments, [(buffer, recents)])
    for i, example in enumerate(batch):
        first_recent = int(recent_stop[i]) - len(example.recents)
        assert buffer[offsets[i] : offsets[i + 1]].tolist() == expected(example, first_recent)


@given(st.lists(st.tuples(st.just(0), st.integers(0, 2), st.integers(0, 3000), st.integers(1, 1000)), max_size=30))
def test_sharing_never_decodes_more_stripes_than_decoding_apart(windows: list[tuple[int, int, int, int]]) -> None:
    result = planned(*((shard, user, start, start + length) for shard, user, start, length in windows))
    apart = sum((start + length - 1) // 256 - start // 256 + 1 for _, _, start, length in windows)
    together = sum((stop - 1) // 256 - start // 256 + 1 for _, _, start, stop, _ in ranges_of(result))
    assert together <= apart


def test_copies_keep_every_bit() -> None:
    segments = np.array([[2, 0, 1], [~0, 1, 1]], np.int64)
    buffer = np.array([0, 0, -0.0], np.float32)
    odd_nan = np.array([0x7FC12345], np.uint32).view(np.float32)
    copy_segments(segments, [(buffer, odd_nan)])
    assert buffer.view(np.uint32)[:2].tolist() == [0x80000000, 0x7FC12345]
