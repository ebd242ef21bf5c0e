"""Bisection of many sorted ranges at once: one step of all of them is one numpy operation. Pure."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def bisect(
    low: NDArray[np.int64], high: NDArray[np.int64], is_before: Callable[[NDArray[np.int64]], NDArray[np.bool_]]
) -> NDArray[np.int64]:
    """Of each range `[low, high)`, the first place that is not before what it is searched for, or `high`.

    Args: is_before: asked with one place per range; what it says of ranges that are found already does not count, for
        which it is asked for place 0.
    """
    low, high = low.copy(), high.copy()
    while (searching := low < high).any():
        middle = (low + high) >> 1
        before = searching & is_before(np.where(searching, middle, 0))
        low = np.where(before, middle + 1, low)
        high = np.where(searching & ~before, middle, high)
    return low
