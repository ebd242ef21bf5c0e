"""Groups against the oracle: each request of an example sees what it sees alone, and none is lost."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import latewood as lw
from corrected_events import SPAN, Made
from latewood.capture import grouping
from latewood.clock import DAY_US, HOUR_US
from latewood.testing import ManualClock

PROJECTION = lw.Projection(traits=["number"])
STRANGER = 99


@pytest.fixture(scope="module", params=range(3))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    made = Made(tmp_path_factory.mktemp("groups"), request.param)
    yield made
    made.store.close()


def plain_requests(made: Made, count: int = 300) -> pa.Table:
    """At any time, of any user, and of one whom nobody knows."""
    rng = np.random.default_rng(count)
    users = np.append(rng.integers(1, 5, count - 1), STRANGER)
    return pa.table({"user_id": users, "request_ts": rng.integers(1, SPAN, count), "id": np.arange(count)})


def anchor_requests(made: Made) -> pa.Table:
    anchors = lw.anchors(made.store, min_history=0)
    return anchors.append_column("id", pa.array(np.arange(len(anchors))))


def alone(made: Made, requests: pa.Table) -> dict[int, list[int]]:
    """What each request sees, by the oracle."""
    rows = made.oracle.fat_rows(requests, PROJECTION)
    return {id_: row["number"] for id_, row in zip(rows["id"].to_pylist(), rows["history"].to_pylist(), strict=True)}


def together(batch: lw.Batch, max_len: int | None = None) -> list[tuple[int, list[int]]]:
    """What each request of a batch sees: its id and history."""
    each = lw.requests_in(batch, max_len)
    spans = zip(*(each[name].to_pylist() for name in ("id", "start", "stop")), strict=True)
    return [(id_, batch.values["number"][start:stop].tolist()) for id_, start, stop in spans]


@pytest.mark.parametrize("chunk", [None, 1, 7, 2**70])
@pytest.mark.parametrize("kind", [plain_requests, anchor_requests])
@pytest.mark.parametrize("at_once", [11, 2**70])
def test_each_request_sees_what_it_sees_alone(made: Made, kind, chunk: int | None, at_once: int) -> None:  # type: ignore[no-untyped-def]
    requests = kind(made)
    examples = lw.groups(made.store, requests, "user", chunk=chunk, complete=True, at_once=at_once)
    batch = lw.Materializer(made.store, PROJECTION)(examples)
    found = together(batch)
    assert len(found) == len(dict(found)) == len(requests)
    assert dict(found) == alone(made, requests)
    each = lw.requests_in(batch)
    assert each["seen"].to_pylist() == [len(history) for _, history in found]
    ends = batch.offsets[each["example"].to_numpy() + 1] - each["stop"].to_numpy()
    assert ends.min() == 0
    assert chunk is None or ends.max() < chunk
    assert len(examples) < len(requests) or chunk == 1


def test_those_that_do_not_nest_are_split_off_and_counted(made: Made) -> None:
    requests = plain_requests(made)
    examples = lw.groups(made.store, requests, "user", complete=True)
    seen = alone(made, requests)
    firsts = examples.filter(pa.array(examples["part"].to_numpy() == 0))
    assert len(firsts) == len(requests["user_id"].unique())
    fit = 0
    for example in firsts.to_pylist():
        whole = seen[example["requests"][-1]["id"]]
        ids = [request["id"] for request in example["requests"]]
        assert all(seen[i] == whole[: len(seen[i])] for i in ids)
        fit += len(ids)
    assert fit < len(requests)  # there are late events, so that some are elsewhere
    assert sum(map(len, examples["requests"].to_pylist())) == len(requests)


def test_where_nothing_is_late_a_user_is_one_example(tmp_path: Path) -> None:
    ts = np.arange(1, 101) * HOUR_US
    events = {"user_id": np.arange(100) % 3, "event_ts": ts, "ingest_ts": ts, "number": np.arange(100)}
    schema = lw.Schema(user_id=pa.int64(), traits=pa.schema([("number", pa.int64())]))
    with lw.Store.create(tmp_path / "store", schema, clock=ManualClock(2_000 * HOUR_US)) as store:
        store.append(pa.table(events))
        anchors = lw.anchors(store)
        assert lw.groups(store, anchors, "user")["part"].to_pylist() == [0, 0, 0]
        for group, period in (
            ("user/1d", DAY_US),
            ("user/2d", 2 * DAY_US),
            ("user/5h", 5 * HOUR_US),
            ("user/90min", 5_400_000_000),
        ):
            examples = lw.groups(store, anchors, group)
            days = {
                (user, at // period)
                for user, at in zip(
                    *(anchors[name].cast(pa.int64()).to_pylist() for name in ("user_id", "request_ts")), strict=True
                )
            }
            assert len(examples) == len(days)
            assert sum(examples["part"].to_pylist()) == 0
            for example in examples.to_pylist():
                times = [request["request_ts"] for request in example["requests"]]
                assert times == sorted(times)
                assert times[-1] == example["request_ts"]


def test_a_chunk_and_a_length_say_what_to_load(made: Made) -> None:
    requests = plain_requests(made)
    examples = lw.groups(made.store, requests, "user", chunk=8, complete=True)
    loader = lw.Loader(made.store, examples, lw.Projection(max_len=8 + 5, traits=["number"]), batch_size=4, seed=1)
    found = [request for batch in loader for request in together(batch, max_len=5)]
    assert len(found) == len(requests)
    assert dict(found) == {id_: history[-5:] for id_, history in alone(made, requests).items()}
    short = lw.Materializer(made.store, lw.Projection(max_len=8, traits=["number"]))(examples)
    with pytest.raises(
        lw.SchemaError, match=r"sees 5 events, of which the batch has \d: give the projection a max_len"
    ):
        lw.requests_in(short, max_len=5)


def test_over_ranks_each_request_counts_once(made: Made) -> None:
    requests = plain_requests(made)
    examples = lw.groups(made.store, requests, "user", chunk=40, complete=True)
    found = [
        id_
        for rank in range(3)
        for batch in lw.Loader(made.store, examples, PROJECTION, batch_size=2, rank=rank, world_size=3)
        for id_, _ in together(batch)
    ]
    assert sorted(found) == list(range(len(requests)))


def test_who_finds_no_like_in_many_rounds_is_alone(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "_ROUNDS", 1)
    requests = plain_requests(made)
    examples = lw.groups(made.store, requests, "user", complete=True)
    assert all(len(example["requests"]) == 1 for example in examples.to_pylist() if example["part"])
    assert dict(together(lw.Materializer(made.store, PROJECTION)(examples))) == alone(made, requests)


def test_groups_are_written_and_read_as_any_examples(made: Made, tmp_path: Path) -> None:
    requests = plain_requests(made)
    examples = lw.groups(made.store, requests, "user", complete=True)
    with lw.ExampleLog(tmp_path / "log") as log:
        log.append(examples)
    loader = lw.Loader(made.store, str(tmp_path / "log" / "**" / "*.parquet"), PROJECTION, batch_size=3, seed=1)
    assert dict(request for batch in loader for request in together(batch)) == alone(made, requests)


def test_no_requests_make_no_examples(made: Made) -> None:
    examples = lw.groups(made.store, plain_requests(made).slice(0, 0))
    assert len(examples) == 0
    assert lw.groups(made.store, plain_requests(made), complete=True).schema.equals(examples.schema)


def test_what_makes_no_sense_is_refused(made: Made) -> None:
    requests = plain_requests(made)
    for group in ("item/1d", "user/", "user/0d", "user/1", "user/1.5h", "user/-1d", "user/9999999d", "", None, 1):
        with pytest.raises(lw.SchemaError, match="is 'user', or 'user/' and a period"):
            lw.groups(made.store, requests, group)  # type: ignore[arg-type]
    for options in ({"chunk": 0}, {"chunk": 2.5}, {"at_once": 0}):
        with pytest.raises(lw.SchemaError, match="at least 1"):
            lw.groups(made.store, requests, **options)  # type: ignore[arg-type]
    for name in ("seen", "behind", "part", "requests", "example", "start", "stop"):
        with pytest.raises(lw.SchemaError, match=f"column '{name}'"):
            lw.groups(made.store, requests.append_column(name, requests["id"]))
    with pytest.raises(lw.SchemaError, match="no column 'requests'"):
        lw.requests_in(lw.Materializer(made.store, PROJECTION)(lw.backfill(made.store, requests, complete=True)))
    streams = lw.Projection(traits=["number"], streams={"even": lw.last(9, lw.col("number") > 50)})
    batch = lw.Materializer(made.store, streams)(lw.groups(made.store, requests, complete=True))
    with pytest.raises(lw.SchemaError, match="has streams"):
        lw.requests_in(batch)
    batch = lw.Materializer(made.store, PROJECTION)(lw.groups(made.store, requests, complete=True))
    for max_len in (-1, 2.5):
        with pytest.raises(lw.SchemaError, match="at least 0"):
            lw.requests_in(batch, max_len)  # type: ignore[arg-type]


def test_a_scrubbed_user_is_refused_or_masked_like_any(tmp_path: Path) -> None:
    made = Made(tmp_path, 5)
    requests = plain_requests(made)
    examples = lw.groups(made.store, requests, "user", complete=True)
    made.store.scrub(user_ids=[2])
    with pytest.raises(lw.ScrubbedError):
        lw.Materializer(made.store, PROJECTION)(examples)
    expected = {
        id_: history
        for (id_, history), user in zip(alone(made, requests).items(), requests["user_id"].to_pylist(), strict=True)
        if user != 2
    }
    assert dict(together(lw.Materializer(made.store, PROJECTION, on_missing="mask")(examples))) == expected
    made.store.close()
