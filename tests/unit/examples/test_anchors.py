"""Which events become anchors: the count of what each of them could see, against counting one by one."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from latewood.events import Events
from latewood.examples.anchors import _with_history
from latewood.users import user_keys

EVENT = st.tuples(st.integers(0, 3), st.integers(0, 8), st.integers(-3, 12))


def sorted_events(rows: list[tuple[int, int, int]]) -> Events:
    user, event_ts, delay = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    users = pa.array(user)
    keys = user_keys(users)
    events = Events(users, keys, event_ts, event_ts + delay, np.zeros(len(rows), np.int32), {})
    return events.take(events.order())


@given(st.lists(EVENT, min_size=1, max_size=40), st.integers(0, 6))
def test_at_least_so_many_were_known(rows: list[tuple[int, int, int]], at_least: int) -> None:
    events = sorted_events(rows)
    users = events.user_ids.to_pylist()
    expected = []
    for i in range(len(events)):
        cutoff = min(events.event_ts[i], events.ingest_ts[i]) + 1
        seen = sum(users[k] == users[i] and events.ingest_ts[k] < cutoff for k in range(i))
        expected.append(seen >= at_least)
    assert _with_history(events, at_least).tolist() == expected


def test_no_events_have_no_history() -> None:
    assert _with_history(sorted_events([(1, 1, 0)]).take(np.zeros(0, np.int64)), 1).tolist() == []
