"""The oracle against a still duller one: Python loops over rows."""

import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latewood.errors import SchemaError
from latewood.projection import Projection, last
from latewood.testing import Oracle, fat_rows, strategies

TIME = pa.timestamp("us", "UTC")
ANCHOR = pa.struct([("ingest_ts", TIME), ("ordinal", pa.int32())])


def events_of(rows: list[tuple[Any, int, int, int]]) -> pa.Table:
    user, event_ts, ingest_ts, item = zip(*rows, strict=True) if rows else ((), (), (), ())
    return pa.table(
        {
            "user_id": pa.array(user, pa.int64()),
            "event_ts": pa.array(event_ts, pa.int64()),
            "ingest_ts": pa.array(ingest_ts, pa.int64()),
            "item": pa.array(item, pa.int64()),
        }
    )


def items(events: pa.Table, requests: dict[str, Any], max_len: int | None = None) -> list[list[int]]:
    table = fat_rows(events, pa.table(requests), Projection(max_len=max_len, traits=["item"]))
    return [row["item"] for row in table["history"].to_pylist()]


def test_before_the_request_and_known_before() -> None:
    events = events_of([(1, 10, 10, 100), (1, 20, 20, 101), (1, 15, 35, 102), (2, 5, 5, 200)])
    assert items(events, {"user_id": [1, 1, 1, 2, 3], "request_ts": [20, 21, 36, 5, 99]}) == [
        [100],  # an event at the request's own time is not before it
        [100, 101],  # 102 happened before, but was not known
        [100, 102, 101],  # known late, it stands where it happened
        [],
        [],  # a stranger
    ]


def test_a_cutoff_of_its_own() -> None:
    events = events_of([(1, 10, 10, 100), (1, 11, 90, 101)])
    assert items(events, {"user_id": [1, 1], "request_ts": [50, 50], "cutoff": [90, 91]}) == [[100], [100, 101]]


def test_max_len_keeps_the_newest() -> None:
    events = events_of([(1, t, t, t) for t in range(5)])
    for max_len, expected in [(None, [0, 1, 2, 3, 4]), (9, [0, 1, 2, 3, 4]), (2, [3, 4]), (0, [])]:
        assert items(events, {"user_id": [1], "request_ts": [99]}, max_len) == [expected]


def test_an_anchor_ends_inside_its_tied_group() -> None:
    # the same event_ts, two ingest times, two events equal in both: arrival decides
    events = events_of([(1, 10, 12, 3), (1, 10, 10, 1), (1, 10, 10, 2), (1, 9, 50, 0)])
    anchors = pa.array(
        [{"ingest_ts": 10, "ordinal": 0}, {"ingest_ts": 10, "ordinal": 1}, {"ingest_ts": 12, "ordinal": 0}, None],
        ANCHOR,
    )
    got = items(events, {"user_id": [1] * 4, "request_ts": [10, 10, 10, 51], "anchor": anchors})
    assert got == [[], [1], [1, 2], [0, 1, 2, 3]]


def test_an_anchor_known_before_it_happened_sees_what_was_known_then() -> None:
    events = events_of([(1, 1, 1, 1), (1, 2, 8, 2), (1, 10, 5, 3)])
    anchor = pa.array([{"ingest_ts": 5, "ordinal": 0}], ANCHOR)
    assert items(events, {"user_id": [1], "request_ts": [10], "anchor": anchor}) == [[1]]


def test_features_are_kept_and_the_example_s_own_columns_dropped() -> None:
    requests = pa.table(
        {"label": [1], "user_id": [1], "uih": [0], "recent": [0], "cutoff": [5], "request_ts": [5], "x": ["a"]}
    )
    table = fat_rows(events_of([]), requests, Projection())
    assert table.column_names == ["label", "user_id", "request_ts", "x", "history"]
    assert table["history"].to_pylist() == [{"event_ts": [], "item": []}]
    assert table["history"].type == pa.struct([("event_ts", pa.list_(TIME)), ("item", pa.list_(pa.int64()))])


def test_values_come_plain() -> None:
    events = pa.table(
        {
            "user_id": pa.array(["ü", "ü"]).dictionary_encode(),
            "event_ts": pa.array([1, 2], pa.timestamp("s")),
            "ingest_ts": pa.array([1, 2], pa.timestamp("ms", "UTC")),
            "event_id": ["a", "b"],
            "action": pa.array(["like", None]).dictionary_encode(),
            "at": pa.array([None, 3], pa.timestamp("s")),
            "score": pa.array([float("nan"), None], pa.float32(), from_pandas=False),
        }
    )
    table = fat_rows(events, pa.table({"user_id": ["ü"], "request_ts": [2_000_001]}), Projection())
    fields = [("event_ts", TIME), ("action", pa.string()), ("at", pa.timestamp("us")), ("score", pa.float32())]
    assert table["history"].type == pa.struct([(name, pa.list_(type_)) for name, type_ in fields])
    row = table["history"].combine_chunks()
    assert row.field("action").to_pylist() == [["like", None]]
    assert row.field("score").flatten().null_count == 1
    assert np.isnan(row.field("score").flatten()[0].as_py())
    assert row.field("at").flatten().cast(pa.int64()).to_pylist() == [None, 3_000_000]


def test_groups_need_to_be_told() -> None:
    events, requests = events_of([(1, 1, 1, 7)]), pa.table({"user_id": [1], "request_ts": [5]})
    told = fat_rows(events, requests, Projection(groups=["g"]), groups={"g": ["item"], "other": []})
    assert told["history"].type.names == ["event_ts", "item"] if hasattr(told["history"].type, "names") else True
    assert told["history"].to_pylist()[0]["item"] == [7]
    for projection, groups in [
        (Projection(groups=["g"]), None),
        (Projection(groups=["h"]), {"g": []}),
        (Projection(traits=["z"]), None),
    ]:
        with pytest.raises(SchemaError):
            fat_rows(events, requests, projection, groups=groups)


def test_nothing_asked_and_no_traits() -> None:
    events = events_of([(1, 1, 1, 7)])
    none = pa.table({"user_id": pa.array([], pa.int64()), "request_ts": pa.array([], pa.int64())})
    assert fat_rows(events, none, Projection()).num_rows == 0
    table = fat_rows(events, pa.table({"user_id": [1, 2], "request_ts": [5, 5]}), Projection(traits=[]))
    assert table["history"].to_pylist() == [{}, {}]


def test_long_answers_come_in_several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    events = events_of([(1, t, t, t) for t in range(10)])
    requests = pa.table({"user_id": [1] * 7, "request_ts": [3, 0, 10, 1, 2, 9, 4]})
    whole = fat_rows(events, requests, Projection())
    monkeypatch.setattr("latewood.testing.oracle._CHUNK_EVENTS", 5)
    parts = Oracle(events).fat_rows(requests, Projection())
    assert parts["history"].num_chunks > 2
    assert parts.equals(whole)


def test_malformed_events_are_refused() -> None:
    with pytest.raises(SchemaError, match="ingest_ts"):
        Oracle(pa.table({"user_id": [1], "event_ts": [1]}))
    with pytest.raises(SchemaError, match="time"):
        Oracle(pa.table({"user_id": [1], "event_ts": [1], "ingest_ts": pa.array([None], pa.int64())}))


@given(st.data())
def test_it_equals_a_loop_over_rows(data: st.DataObject) -> None:
    schema = data.draw(strategies.schemas(min_traits=1))
    events = data.draw(strategies.events(schema))
    requests = data.draw(strategies.requests(schema))
    projection = Projection(max_len=data.draw(st.none() | st.integers(0, 5)))
    rows = list(zip(*(events[name].to_pylist() for name in ("user_id", "event_ts", "ingest_ts")), strict=True))
    traits = [name for name in events.column_names if name not in ("user_id", "event_ts", "ingest_ts")]
    plain = {name: events[name].cast(schema[name].value_type) for name in traits}
    table = fat_rows(events, requests, projection)
    assert table.num_rows == requests.num_rows
    for i, request in enumerate(requests.to_pylist()):
        now = request["request_ts"]
        seen = [
            k
            for k, (user, event_ts, known) in enumerate(rows)
            if user == request["user_id"] and event_ts < now and known < now
        ]
        seen.sort(key=lambda k: (rows[k][1], rows[k][2], k))
        kept = seen if projection.max_len is None else seen[len(seen) - min(len(seen), projection.max_len) :]
        history = table["history"][i]
        assert history["event_ts"].as_py() == [rows[k][1] for k in kept]
        for name in traits:
            assert bits(history[name].values) == bits(plain[name].take(pa.array(kept, pa.int64())).combine_chunks())


def bits(array: pa.Array) -> list[Any]:
    """Values, and the items of lists, so that NaN equals NaN and -0.0 is not 0.0."""
    return [
        _bits(value) for value in (array.cast(pa.int64()) if pa.types.is_timestamp(array.type) else array).to_pylist()
    ]


def _bits(value: Any) -> Any:
    if isinstance(value, list):
        return [_bits(item) for item in value]
    return struct.pack("<d", value) if isinstance(value, float) else value


def superseded(rows: list[tuple[Any, int, int, int, int | None]]) -> pa.Table:
    """Events with the ingest time of the version that took their place."""
    times = pa.array([row[4] for row in rows], pa.int64())
    return events_of([row[:4] for row in rows]).append_column("superseded_at", times)


def test_a_corrected_event_is_seen_until_the_correction() -> None:
    events = superseded([(1, 10, 10, 100, 30), (1, 11, 30, 101, None), (1, 12, 12, 102, 40)])
    for cutoff, expected in [(29, [100, 102]), (30, [100, 102]), (31, [101, 102]), (40, [101, 102]), (41, [101])]:
        assert items(events, {"user_id": [1], "request_ts": [50], "cutoff": [cutoff]}) == [expected]


def test_an_anchor_does_not_see_its_own_earlier_versions() -> None:
    # 2 corrects 1, which was known in time; 3 corrects 2 and moves it to a later time
    events = superseded([(1, 9, 9, 0, None), (1, 10, 10, 1, 20), (1, 10, 20, 2, 30), (1, 12, 30, 3, None)])
    anchors = pa.array([{"ingest_ts": 20, "ordinal": 0}, {"ingest_ts": 30, "ordinal": 0}], ANCHOR)
    requests = {"user_id": [1, 1], "request_ts": [10, 12], "anchor": anchors}
    assert items(events, requests) == [[0], [0]]


def test_streams_are_not_its_business() -> None:
    events = pa.table({"user_id": [1], "event_ts": [1], "ingest_ts": [1]})
    requests = pa.table({"user_id": [1], "request_ts": [2]})
    with pytest.raises(SchemaError, match="knows no streams"):
        fat_rows(events, requests, Projection(streams={"all": last(1)}))
