"""Rows as runs: the newest of them, and without some."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from latewood.immutable.resolve import Resolution, Runs
from latewood.materialize.choose import choose
from latewood.materialize.recents import Recents
from latewood.materialize.suppress import Hits, StoredRows

ROWS = st.lists(st.sets(st.integers(0, 40), max_size=30).map(sorted), max_size=6)


def runs_of(users: list[list[int]]) -> Runs:
    """The rows of each user as runs, of which every one has at least one."""
    offsets, found = [0], []
    for rows in users:
        starts = [row for row in rows if row - 1 not in rows]
        found += [(start, next(n for n in range(99) if start + n not in rows)) for start in starts] or [(0, 0)]
        offsets.append(len(found))
    return Runs(np.array(offsets), *np.array(found, np.int64).reshape(-1, 2).T.copy())


def rows_in(runs: Runs) -> list[list[int]]:
    """The inverse, checked: there is a run for each user, and an empty one only where there is no other."""
    users = []
    for first, stop in zip(runs.offsets[:-1].tolist(), runs.offsets[1:].tolist(), strict=True):
        assert stop > first
        assert stop == first + 1 or (runs.length[first:stop] > 0).all()
        users.append([int(runs.start[run]) + k for run in range(first, stop) for k in range(runs.length[run])])
        assert runs.before[first:stop].tolist() == [sum(runs.length[first:run]) for run in range(first, stop)]
    assert runs.counts.tolist() == list(map(len, users))
    return users


@given(ROWS, st.randoms(use_true_random=False))
def test_the_newest_rows(users: list[list[int]], random: st.DataObject) -> None:
    wanted = [random.randint(0, len(rows)) for rows in users]  # type: ignore[attr-defined]
    n, runs = len(users), runs_of(users)
    none, no_recents = np.zeros(n, np.int64), Recents(np.zeros(n + 1, np.int64), np.zeros((3, 0), np.int64), {})
    resolution = Resolution(
        none, none, none, none, runs.counts, runs, none, none.astype(np.uint8), none, none.astype(np.uint64)
    )
    chosen = choose(resolution, StoredRows(resolution.runs, resolution.count), no_recents, np.array(wanted, np.int64))
    assert rows_in(chosen.runs) == [rows[len(rows) - count :] for rows, count in zip(users, wanted, strict=True)]
    assert chosen.before.tolist() == chosen.runs.before.tolist()
    assert np.diff(chosen.offsets).tolist() == wanted


@given(ROWS, st.randoms(use_true_random=False))
def test_without_some_rows(users: list[list[int]], random: st.DataObject) -> None:
    hits = [sorted(random.sample(rows, random.randint(0, len(rows)))) for rows in users]  # type: ignore[attr-defined]
    flat = np.array([row for rows in hits for row in rows], np.int64)
    left = Hits(np.cumsum([0, *map(len, hits)]), flat).left_out_of(runs_of(users))
    assert rows_in(left) == [sorted(set(rows) - set(some)) for rows, some in zip(users, hits, strict=True)]


@given(ROWS.filter(len), st.data())
def test_some_users(users: list[list[int]], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(users) - 1), max_size=5))
    assert rows_in(runs_of(users).take(np.array(chosen, np.int64))) == [users[i] for i in chosen]
    start = data.draw(st.integers(0, len(users)))
    stop = data.draw(st.integers(start, len(users)))
    assert rows_in(runs_of(users).take(slice(start, stop))) == users[start:stop]
