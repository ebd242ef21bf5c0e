"""Steps of about as many events on every rank, whatever the lengths of histories: `batch_tokens`.

Batches are cut out of the epoch's order as lines are out of a text: a history that does not fit begins the next one. A step
is as many lines as there are ranks, broken anew so that the longest of them is as short as can be, since all ranks wait for
it. Where a step ends depends on its beginning and on lengths that every rank reads from the same log; so all ranks make the
same steps, and whoever goes on from a position, on however many ranks, loses and repeats nothing.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from latewood.loading.order import Order
from latewood.loading.steps import Share, Step
from latewood.projection import Projection

_AT_ONCE = 65_536  # positions that are looked at together: their lengths as Python's integers are 2 MB


def tokens_of(events: NDArray[np.int64], projection: Projection, batch_tokens: int) -> NDArray[np.int64]:
    """What each example counts in a batch: the most events that the projection can show of as many. Shapes: (n,) → (n,).

    One without events counts as one, for it costs something too; and one that no batch holds is a batch of its own.
    """
    kinds = [stream.count for _, stream in projection.kinds]
    limits = [limit for limit in (projection.max_len, projection.scan) if limit is not None]
    most = [min(batch_tokens, int(events.max(initial=1))), *limits]
    return np.clip(events, 1, max(1, min([*most, sum(kinds)] if kinds else most)))


class TokenSteps:
    """Steps of at most `batch_tokens` tokens on every rank.

    Args:
        tokens: (n,) of the examples as they lie, each at least 1 and at most `batch_tokens`.
        order: of the epoch.
        batch_size: the most examples of a batch, too; None: any number.
    """

    def __init__(
        self, share: Share, order: Order, tokens: NDArray[np.int64], batch_tokens: int, batch_size: int | None = None
    ) -> None:
        self._share, self._order, self._tokens = share, order, tokens
        self._most, self._size = batch_tokens, len(tokens) if batch_size is None else batch_size
        self._counted: dict[int, int] = {}  # by position: counting walks through all the rest

    def count(self, position: int = 0) -> int:
        if position not in self._counted:
            steps = sum(1 for _ in self._bounds(position))
            self._counted[position] = -(-steps // self._share.stride)
        return self._counted[position]

    def steps(self, position: int = 0) -> Iterator[Step]:
        rank, stride, total = self._share.rank, self._share.stride, len(self._tokens)
        mine: Step | None = None
        for i, bounds in enumerate(self._bounds(position)):
            if i % stride:
                continue
            if mine is not None:
                yield replace(mine, following=bounds[0])
            start, stop = bounds[rank : rank + 2]
            mine = Step(start, stop, int(start == stop), bounds[0], bounds[-1], bounds[-1])
            if stride == 1:  # else it is known only later where this share's next one starts
                yield mine
                mine = None
        if mine is not None:
            yield replace(mine, following=total)

    def skip(self, position: int, steps: int) -> int:
        if not steps:
            return position
        for i, bounds in enumerate(self._bounds(position)):
            if i == steps:
                return bounds[0]
        return len(self._tokens)

    def _bounds(self, position: int) -> Iterator[list[int]]:
        """Of every step, where each rank's part begins, and where the last one's ends."""
        total, room = len(self._tokens), _AT_ONCE
        before, first = [0], position  # tokens before each position from `first` on
        while position < total:
            i = position - first
            bounds, is_full = self._cut(before, i, self._most)
            if bounds[-1] == len(before) - 1 and first + bounds[-1] < total:  # there may be room for more: look further
                room = 2 * room if not i and len(before) > 1 else room
                before, first = self._before(position, min(position + room, total)), position
                continue
            if self._share.remainder == "drop" and not is_full:
                return
            yield [first + bound for bound in self._even(before, bounds)]
            position = first + bounds[-1]

    def _before(self, start: int, stop: int) -> list[int]:
        return [0, *np.cumsum(self._tokens[self._order.rows(start, stop)]).tolist()]

    def _cut(self, before: Sequence[int], start: int, most: int, until: int | None = None) -> tuple[list[int], bool]:
        """The bounds of as many batches as there are ranks, of up to `most` tokens; and whether nothing more would fit."""
        until = len(before) - 1 if until is None else until
        bounds, is_full = [start], True
        for _ in range(self._share.world_size):
            begin = bounds[-1]
            fits = bisect_right(before, before[begin] + most, begin, until + 1) - 1
            end = min(fits, begin + self._size)
            is_full = end < until or before[end] - before[begin] == most or end - begin == self._size
            bounds.append(end)
        return bounds, is_full

    def _even(self, before: Sequence[int], bounds: list[int]) -> list[int]:
        """The same examples dealt to the ranks anew, so that the most tokens of one are as few as can be."""
        start, until, ranks = bounds[0], bounds[-1], self._share.world_size
        if ranks == 1:
            return bounds
        most = max(before[b] - before[a] for a, b in pairwise(bounds))
        low = -(-(before[until] - before[start]) // ranks)  # no cut has fewer
        while low < most:
            middle = (low + most) // 2
            again, _ = self._cut(before, start, middle, until)
            if again[-1] == until:
                bounds, most = again, max(before[b] - before[a] for a, b in pairwise(again))
            else:
                low = middle + 1
        return bounds
