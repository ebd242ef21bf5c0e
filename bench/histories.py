"""Synthetic interaction histories: few users with very long ones, sessions, popular items, traits of every width.

Each ingredient is there because a codec or an access path feels it. Lengths are log-normal, with 0.6 % of the users at
the longest, because most ranges are short and most bytes are in long ones. Times come in sessions, seconds within and
hours between, so that their differences span seven orders of magnitude. Items follow Zipf's law over a catalogue that
does not shrink with the number of users, so that an id takes the same bits at every scale. Flags are rare, categories
few, and `score` is noise that nothing can compress.

Every ingredient has a random stream of its own, so that none depends on how much the others drew.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEED = 20261124
LONGEST = 65_536
MEDIAN_LENGTH, LENGTH_SPREAD, SHORTEST = 700, 1.25, 10
LONGEST_SHARE = 0.006  # of the users

MS = 1_000  # µs: clocks count whole milliseconds
HOUR, DAY = 3_600_000, 86_400_000  # in milliseconds
FIRST_DAY = 1_600_000_000_000  # 2020-09-13, in milliseconds since epoch; users start within the year after it
SESSION_SHARE = 0.07  # of the gaps lie between sessions

ITEMS, AUTHORS, CATEGORIES = 5_000_000, 500_000, 300
ACTIONS, SURFACES = 20, 8
FLAGS = {"like": 0.02, "comment": 0.005, "share": 0.003}

TRAITS: dict[str, type[np.generic]] = {
    "event_ts": np.int64,
    "item_id": np.int64,
    "author_id": np.int64,
    "action_type": np.uint8,
    "surface": np.uint8,
    "watch_ms": np.int32,
    "like": np.bool_,
    "comment": np.bool_,
    "share": np.bool_,
    "creator_cat": np.uint16,
    "score": np.float32,
}
EVENTS_APART = 8  # between the requests of one user, where several are drawn
FEW_TRAITS = ("event_ts", "item_id", "action_type")
PROJECTIONS: dict[int, tuple[str, ...]] = {len(FEW_TRAITS): FEW_TRAITS, len(TRAITS): tuple(TRAITS)}


def event_bytes(traits: tuple[str, ...]) -> int:
    """Bytes per event as plain arrays."""
    return sum(np.dtype(TRAITS[trait]).itemsize for trait in traits)


@dataclass(frozen=True, slots=True, eq=False)
class Histories:
    """All users' events, user after user, oldest first.

    Shapes: offsets (users + 1,): user u owns the rows offsets[u] to offsets[u + 1] of every column (events,).
    Units: event_ts in µs, whole milliseconds, strictly rising within a user.
    """

    seed: int
    offsets: NDArray[np.int64]
    columns: dict[str, NDArray[Any]]

    @property
    def user_count(self) -> int:
        return len(self.offsets) - 1

    @property
    def event_count(self) -> int:
        return int(self.offsets[-1])

    @property
    def lengths(self) -> NDArray[np.int64]:
        lengths: NDArray[np.int64] = np.diff(self.offsets)
        return lengths


@dataclass(frozen=True, slots=True, eq=False)
class Requests:
    """n requests: each sees the first `visible` events of its user. Shapes: both (n,)."""

    user: NDArray[np.int64]
    visible: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.user)

    def slice(self, start: int, stop: int) -> "Requests":
        return Requests(self.user[start:stop], self.visible[start:stop])

    def rows(self, histories: Histories, max_len: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which rows of the columns each request sees, of the newest `max_len`: the ground truth. Half-open."""
        stop = histories.offsets[self.user] + self.visible
        return np.maximum(stop - max_len, histories.offsets[self.user]), stop

    def times(self, histories: Histories) -> NDArray[np.int64]:
        """When each was made: a millisecond after the newest event that it sees. Units: µs."""
        newest = histories.offsets[self.user] + self.visible - 1
        times: NDArray[np.int64] = histories.columns["event_ts"][newest] + MS
        return times


def draw_histories(
    user_count: int,
    *,
    seed: int = SEED,
    shortest: int = SHORTEST,
    longest: int = LONGEST,
    items: int = ITEMS,
    authors: int = AUTHORS,
) -> Histories:
    """Draw everybody's history. The defaults are the recipe; smaller catalogues and lengths are for tests."""
    names = ("lengths", "times", "items", "authors", "categories", "shuffles", "small", "watch", "flags", "score")
    seeds = np.random.SeedSequence(seed).spawn(len(names))
    streams = {name: np.random.default_rng(stream) for name, stream in zip(names, seeds, strict=True)}
    offsets = np.zeros(user_count + 1, np.int64)
    np.cumsum(_lengths(streams["lengths"], user_count, shortest, longest), out=offsets[1:])
    events = int(offsets[-1])
    columns: dict[str, NDArray[Any]] = {"event_ts": _times(streams["times"], offsets)}
    item = _shuffled(streams["shuffles"], items)[_zipf(streams["items"], items, 1.0, events)]
    author_of = _shuffled(streams["shuffles"], authors)[_zipf(streams["authors"], authors, 0.8, items)]
    category_of = _zipf(streams["categories"], CATEGORIES, 0.7, authors)
    columns["item_id"] = item
    columns["author_id"] = author_of[item]
    columns["action_type"] = _zipf(streams["small"], ACTIONS, 1.3, events)
    columns["surface"] = _zipf(streams["small"], SURFACES, 1.0, events)
    columns["watch_ms"] = np.minimum(_log_normal(streams["watch"], 9_000, 1.2, events), 2**31 - 1)
    for flag, rate in FLAGS.items():
        columns[flag] = streams["flags"].random(events, np.float32) < rate
    columns["creator_cat"] = category_of[columns["author_id"]]
    columns["score"] = streams["score"].random(events, np.float32)
    return Histories(seed, offsets, {name: columns[name].astype(dtype, copy=False) for name, dtype in TRAITS.items()})


def draw_requests(histories: Histories, count: int, *, seed: int | None = None) -> Requests:
    """Draw requests: active users ask more often (by the root of their length), in the second half of their history."""
    rng = np.random.default_rng(np.random.SeedSequence(histories.seed if seed is None else seed, spawn_key=(1, 1)))
    user = rng.choice(histories.user_count, count, p=_activity(histories))
    return Requests(user, _visible(rng, histories, user))


def draw_distinct(histories: Histories, batch_size: int, batches: int) -> Requests:
    """Like `draw_requests`, but nobody asks twice within a batch."""
    rng = np.random.default_rng(np.random.SeedSequence(histories.seed, spawn_key=(1, 2)))
    activity = _activity(histories)
    draws = [rng.choice(histories.user_count, batch_size, replace=False, p=activity) for _ in range(batches)]
    user = np.concatenate(draws)
    return Requests(user, _visible(rng, histories, user))


def draw_shared(histories: Histories, users: int, per_user: int) -> Requests:
    """Users who ask `per_user` times each, a few events apart, as within a day. Sorted by user, oldest first."""
    rng = np.random.default_rng(np.random.SeedSequence(histories.seed, spawn_key=(1, 3)))
    user = np.sort(rng.choice(histories.user_count, users, replace=False, p=_activity(histories)))
    newest = _visible(rng, histories, user)
    back = EVENTS_APART * np.arange(per_user - 1, -1, -1)
    return Requests(np.repeat(user, per_user), np.maximum(newest[:, None] - back, 1).ravel())


def _activity(histories: Histories) -> NDArray[np.float64]:
    root = np.sqrt(histories.lengths)
    share: NDArray[np.float64] = root / root.sum()
    return share


def _visible(rng: np.random.Generator, histories: Histories, user: NDArray[np.int64]) -> NDArray[np.int64]:
    length = histories.lengths[user]
    half = length // 2
    return half + 1 + np.floor(rng.random(len(user)) * (length - half)).astype(np.int64)


def _lengths(rng: np.random.Generator, user_count: int, shortest: int, longest: int) -> NDArray[np.int64]:
    lengths = np.floor(_log_normal(rng, MEDIAN_LENGTH, LENGTH_SPREAD, user_count)).astype(np.int64)
    lengths = np.clip(lengths, shortest, longest)
    lengths[rng.permutation(user_count)[: round(user_count * LONGEST_SHARE)]] = longest
    return lengths


def _times(rng: np.random.Generator, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Running sums of gaps, started anew at each user's first event."""
    events, starts = int(offsets[-1]), offsets[:-1]
    gaps = _log_normal(rng, 12_000, 1.1, events)  # within a session: seconds
    away = np.flatnonzero(rng.random(events, np.float32) < SESSION_SHARE)
    gaps[away] = _log_normal(rng, 6 * HOUR, 1.3, len(away))  # between sessions: hours to weeks
    sums = np.cumsum(np.clip(gaps, 1, 40 * DAY).astype(np.int64))
    began = FIRST_DAY + rng.integers(0, 365 * DAY, len(starts))
    sums += np.repeat(began - sums[starts], np.diff(offsets))
    return sums * MS


def _zipf(rng: np.random.Generator, count: int, exponent: float, size: int) -> NDArray[np.int64]:
    """Ranks below `count`, each as probable as (rank + 1) ** -exponent."""
    mass = np.cumsum(np.arange(1, count + 1, dtype=np.float64) ** -exponent)
    ranks = np.empty(size, np.int64)
    for start in range(0, size, 1 << 20):  # sorted draws walk through the mass once instead of jumping about in it
        draws = rng.random(min(1 << 20, size - start)) * mass[-1]
        order = np.argsort(draws)
        found = np.searchsorted(mass, draws[order], "right")
        ranks[start + order] = np.minimum(found, count - 1)
    return ranks


def _shuffled(rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Ids by rank: popularity does not show in the number."""
    return rng.permutation(count)


def _log_normal(rng: np.random.Generator, median: float, spread: float, size: int) -> NDArray[np.float64]:
    return rng.lognormal(np.log(median), spread, size)
