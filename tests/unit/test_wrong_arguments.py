"""Mistakes that everyone makes once: seconds for microseconds, a path for a store, the same command once more."""

import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import latewood as lw
from latewood.testing import ManualClock

NOW_S = 1_700_000_000
SCHEMA = lw.Schema(user_id=pa.int64(), traits=pa.schema([("item", pa.int64())]))


@pytest.fixture
def store(store_path: Path) -> lw.Store:
    return lw.Store.create(store_path, SCHEMA, shards=1, clock=ManualClock(NOW_S * 10**6))


def event(event_ts: int) -> pa.Table:
    return pa.table({"user_id": [1], "event_ts": [event_ts], "item": [1]})


@pytest.mark.parametrize("per_second", [1, 1000])
def test_times_in_another_unit_are_doubted(store: lw.Store, per_second: int) -> None:
    with pytest.warns(UserWarning, match="all of event_ts lie in early 1970: are they seconds or milliseconds"):
        store.append(event(NOW_S * per_second))
    with pytest.warns(UserWarning, match="all of request_ts lie in early 1970"):
        store.capture(pa.table({"user_id": [1], "request_ts": [NOW_S * per_second]}))


def test_other_times_are_not(store: lw.Store, tmp_path: Path) -> None:
    store.append(event(NOW_S * 10**6))
    store.append(event(-NOW_S))
    store.append(pa.table({"user_id": [1, 1], "event_ts": [NOW_S, NOW_S * 10**6], "item": [1, 2]}))
    store.capture(pa.table({"user_id": [1], "request_ts": [NOW_S * 10**6]}))
    with lw.Store.create(tmp_path / "early", SCHEMA, shards=1, clock=ManualClock(10**6)) as early:
        early.append(event(1000))  # its clock, too, is in 1970


NOW, DAY = NOW_S * 10**6, 86_400_000_000
IN_SECONDS = "given in seconds or milliseconds"


def test_moments_in_another_unit_find_nothing_and_are_doubted(store: lw.Store) -> None:
    store.append(event(NOW))
    requests = pa.table({"user_id": [1, 1], "request_ts": [NOW, NOW + 1]})
    with pytest.warns(
        UserWarning, match=f"all requests are at or after test=1970-01-01T00:28:20Z; was test {IN_SECONDS}"
    ):
        assert lw.split_by_time(requests, test=NOW_S).train.num_rows == 0
    with pytest.warns(UserWarning, match=f"before until=1970-01-01T00:28:20Z; was until {IN_SECONDS}"):
        assert len(store.vocab("item", until=NOW_S).values) == 0
    with pytest.warns(UserWarning, match=f"among the targets, .*; was targets {IN_SECONDS}"):
        assert lw.sequences(store, targets=(0, NOW_S)).num_rows == 0


def test_moments_that_find_something_are_not(store: lw.Store) -> None:
    store.append(event(NOW - 2))
    requests = pa.table({"user_id": [1, 1], "request_ts": [NOW, NOW + 1]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lw.split_by_time(requests, test=NOW + 1).train.num_rows == 1
        assert lw.split_by_time(requests, test=NOW + 2).test.num_rows == 0
        assert lw.split_by_time(requests.slice(0, 0), test=NOW_S).train.num_rows == 0
        early = pa.table({"user_id": [1], "request_ts": [5]})
        assert lw.split_by_time(early, test=7).train.num_rows == 1
        spread = pa.table({"user_id": [1, 1], "request_ts": [DAY, 400 * DAY]})
        assert lw.split_by_time(spread, test=60 * DAY).test.num_rows == 1
        assert lw.split_by_time(requests, test=datetime(1970, 3, 2, tzinfo=UTC)).train.num_rows == 0
        assert lw.split_by_time(requests, test=NOW + 2, validation=0).validation.num_rows == 2
        assert len(store.vocab("item").values) == len(store.vocab("item", until=NOW + 1).values) == 1


def test_whole_sequences_that_keep_few_targets_say_what_does(store: lw.Store) -> None:
    late = {"event_ts": [NOW - 90, *range(NOW - 80, NOW - 70)], "ingest_ts": [NOW - 1, *range(NOW - 80, NOW - 70)]}
    store.append(pa.table({"user_id": [1] * 11, "item": [1] * 11} | late))
    with pytest.warns(UserWarning, match="10 of 10 events of the period are no targets.*lw.groups of lw.anchors"):
        assert lw.sequences(store, targets=(NOW - 85, NOW)).num_rows == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: lw.anchors("stores/a"), lambda: lw.sequences("stores/a", targets=(0, 1)),  # type: ignore[arg-type]
        lambda: lw.groups("stores/a", pa.table({}), group="user"), lambda: lw.why("stores/a", 1, 2, 3),  # type: ignore
        lambda: lw.backfill("stores/a", pa.table({})), lambda: lw.verify("stores/a"),  # type: ignore[arg-type]
        lambda: lw.seal("stores/a", pa.table({})),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_a_path_is_no_store_to_any_function(call: Any) -> None:
    with pytest.raises(lw.SchemaError, match=r"a path is no store; open it first: lw.Store.open\('stores/a'"):
        call()


def test_nanoseconds_are_refused(store: lw.Store) -> None:
    """As a moment that is taken they would let all of the future in."""
    requests = pa.table({"user_id": [1], "request_ts": [NOW]})
    for ask in (lambda ns: store.vocab("item", until=ns), lambda ns: lw.split_by_time(requests, test=ns)):
        with pytest.raises(lw.SchemaError, match="outside of the years 1 to 9999: was it given in nanoseconds"):
            ask(NOW * 1000)


def test_anchors_that_were_stamped_with_the_time_of_their_import_have_no_history(store: lw.Store) -> None:
    store.append(pa.table({"user_id": [1, 1], "event_ts": [NOW - 9, NOW - 8], "item": [1, 2]}))
    with pytest.warns(UserWarning, match="none of 2 events sees 1 event before it that was known by then"):
        assert lw.anchors(store).num_rows == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lw.anchors(store, min_history=0).num_rows == 2
        assert lw.anchors(store, where=lw.col("item") == 7).num_rows == 0


@pytest.mark.parametrize("make", [lw.Materializer, lambda *of: lw.Loader(of[0], "nowhere", of[1])])
def test_a_path_is_no_store_and_a_dictionary_no_projection(store: lw.Store, make: Any) -> None:
    with pytest.raises(lw.SchemaError, match=r"open it first: lw.Store.open\('stores/a', read_only=True\)"):
        make("stores/a", lw.Projection())
    with pytest.raises(lw.SchemaError, match=r"is an lw.Projection, not \{'max_len': 3\}"):
        make(store, {"max_len": 3})
