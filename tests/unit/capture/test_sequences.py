"""Whole sequences against the oracle: what precedes a target is what an anchor there sees, and no fit event is left out."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import latewood as lw
from corrected_events import BEGINS, ENDS, SCHEMA, Made
from latewood.capture import examples as examples_module
from latewood.testing import ManualClock


@pytest.fixture(scope="module", params=range(3))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = Made(tmp_path_factory.mktemp("sequences"), request.param)
    yield made
    made.store.close()


@pytest.mark.parametrize("min_history", [0, 1, 5])
@pytest.mark.parametrize("chunk", [None, 1, 7, 1_000])
def test_targets_see_what_their_anchors_see(made: Made, chunk: int | None, min_history: int) -> None:
    examples = lw.sequences(made.store, (BEGINS, ENDS), chunk=chunk, min_history=min_history)
    batch = lw.Materializer(made.store, lw.Projection(traits=["number"]))(examples)
    mask, number, whole = lw.target_mask(batch), batch.values["number"], made.whole()
    targets, unfit = Counter[int](), 0
    for i in range(len(batch)):
        start, stop = int(batch.offsets[i]), int(batch.offsets[i + 1])
        sequence = number[start:stop].tolist()
        user = batch.features["user_id"][i].as_py()
        assert sequence == whole[user][: len(sequence)]
        for place in np.flatnonzero(mask[start:stop]).tolist():
            assert sequence[:place] == made.sees[sequence[place]], sequence[place]
            targets[sequence[place]] += 1
        unfit += batch.features["unfit"][i].as_py()
    in_period = [n for row in whole.values() for i, n in enumerate(row) if made.ts[n] >= BEGINS and i >= min_history]
    before = {n: row[:i] for row in whole.values() for i, n in enumerate(row)}
    fit = [n for n in in_period if before[n] == made.sees[n]]
    assert targets == Counter(fit)
    assert unfit == len(in_period) - len(fit) > 0
    if chunk is None:
        assert len(examples) == len(set(examples["user_id"].to_pylist()))
    else:
        assert max(map(len, examples["targets"].to_pylist())) <= chunk


@pytest.mark.parametrize("overlap", [0, 3])
def test_chunks_come_with_what_the_projection_lets_overlap(made: Made, overlap: int) -> None:
    examples = lw.sequences(made.store, (BEGINS, ENDS), chunk=5)
    batch = lw.Materializer(made.store, lw.Projection(max_len=5 + overlap, traits=["number"]))(examples)
    whole = lw.Materializer(made.store, lw.Projection(traits=["number"]))(examples)
    found, expected = lw.target_mask(batch), lw.target_mask(whole)
    assert found.sum() == expected.sum()
    assert batch.values["number"][found].tolist() == whole.values["number"][expected].tolist()
    shorter = lw.Materializer(made.store, lw.Projection(max_len=2, traits=["number"]))(examples)
    assert lw.target_mask(shorter).sum() < expected.sum()  # what is not in the batch is no target in it


def test_a_loader_gives_them(made: Made) -> None:
    examples = lw.sequences(made.store, (BEGINS, ENDS), chunk=5, at_once=7)
    loader = lw.Loader(made.store, examples, lw.Projection(traits=["number"]), batch_size=4)
    found = [n for batch in loader for n in batch.values["number"][lw.target_mask(batch)].tolist()]
    whole = lw.Materializer(made.store, lw.Projection(traits=["number"]))(examples)
    assert sorted(found) == sorted(whole.values["number"][lw.target_mask(whole)].tolist())


def test_over_ranks_each_target_counts_once(made: Made) -> None:
    examples = lw.sequences(made.store, (BEGINS, ENDS), chunk=40)
    projection, found = lw.Projection(traits=["number"]), list[int]()
    for rank in range(3):
        for batch in lw.Loader(made.store, examples, projection, batch_size=2, rank=rank, world_size=3):
            found += batch.values["number"][lw.target_mask(batch)].tolist()
    assert len(examples) % 3  # so that some are repeated, with weight 0
    whole = lw.Materializer(made.store, projection)(examples)
    assert sorted(found) == sorted(whole.values["number"][lw.target_mask(whole)].tolist())


def test_of_streams_nobody_can_tell_the_targets(made: Made) -> None:
    projection = lw.Projection(traits=["number"], streams={"even": lw.last(9, lw.col("number") > 50)})
    batch = lw.Materializer(made.store, projection)(lw.sequences(made.store, (BEGINS, ENDS)))
    with pytest.raises(lw.SchemaError, match="has streams"):
        lw.target_mask(batch)


def test_a_chunk_may_be_larger_than_any_history(made: Made) -> None:
    whole = lw.sequences(made.store, (BEGINS, ENDS))
    assert lw.sequences(made.store, (BEGINS, ENDS), chunk=2**63 - 1).equals(whole)


def test_a_period_without_events_has_no_examples(made: Made) -> None:
    assert len(lw.sequences(made.store, (BEGINS, BEGINS))) == 0
    assert len(lw.sequences(made.store, (0, 1))) == 0


def test_what_makes_no_sense_is_refused(made: Made) -> None:
    with pytest.raises(lw.SchemaError, match="before it begins"):
        lw.sequences(made.store, (ENDS, BEGINS))
    for options in ({"chunk": 0}, {"chunk": 2.5}, {"min_history": -1}, {"at_once": 0}):
        with pytest.raises(lw.SchemaError, match="at least"):
            lw.sequences(made.store, (BEGINS, ENDS), **options)
    with pytest.raises(lw.ConflictError, match=r"the period's end, .*, is past"):
        lw.sequences(made.store, (BEGINS, 900_000))
    requests = pa.table({"user_id": [1], "request_ts": [ENDS]})
    with pytest.raises(lw.SchemaError, match="at_once=0"):
        lw.backfill(made.store, requests, at_once=0)
    batch = lw.Materializer(made.store, lw.Projection())(made.store.capture(requests).columns)
    with pytest.raises(lw.SchemaError, match="no column 'targets'"):
        lw.target_mask(batch)


def test_a_scrubbed_user_has_no_sequence(tmp_path: Path) -> None:
    made = Made(tmp_path, 5)
    made.store.scrub(user_ids=[2])
    assert 2 not in lw.sequences(made.store, (BEGINS, ENDS))["user_id"].to_pylist()
    made.store.close()


def test_so_many_at_a_time_make_no_difference(made: Made) -> None:
    whole = lw.sequences(made.store, (BEGINS, ENDS), chunk=7)
    assert len(whole) > 20
    assert lw.sequences(made.store, (BEGINS, ENDS), chunk=7, at_once=3).equals(whole.combine_chunks())


def test_a_schema_that_changes_between_two_parts_is_that_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no sequence comes twice."""
    made, make = Made(tmp_path, 5), examples_module.make_examples

    def change_after(*args: Any) -> Any:
        examples = make(*args)
        monkeypatch.setattr(examples_module, "make_examples", make)
        made.store.alter(add=pa.schema([("city", pa.string())]))
        made.store.compact()
        return examples

    monkeypatch.setattr(examples_module, "make_examples", change_after)
    examples = lw.sequences(made.store, (BEGINS, ENDS), chunk=7, at_once=3)
    assert "city" in {field.name for field in examples.schema.field("recent").type}
    assert examples.equals(lw.sequences(made.store, (BEGINS, ENDS), chunk=7).combine_chunks())
    made.store.close()


def test_as_many_events_need_not_be_the_same(tmp_path: Path) -> None:
    """Event 3 corrects 1, which came before 2: an anchor on it sees 0 alone, and the sequence has 2 alone before it."""
    clock = ManualClock(1)
    told = [(0, 10, 11, None), (1, 20, 21, None), (2, 25, 26, None), (3, 30, 31, 1), (4, 900, 500, 0)]
    with lw.Store.create(tmp_path / "store", SCHEMA, clock=clock) as store:
        for number, ts, ingest, old in told:
            clock.advance(ingest - clock.now())
            times = {"event_ts": pa.array([ts]), "ingest_ts": pa.array([ingest])}
            event = {"user_id": [1], "number": [number], "event_id": [f"{number}"], **times}
            store.append(pa.table(event | ({} if old is None else {"supersedes": [f"{old}"]})))
        clock.advance(500)
        examples = lw.sequences(store, (30, 800), complete=True)
        batch = lw.Materializer(store, lw.Projection(traits=["number"]))(examples)
        anchor = lw.backfill(store, lw.anchors(store, where=lw.col("number") == 3))
        seen = lw.Materializer(store, lw.Projection(traits=["number"]))(anchor)
        assert (batch.values["number"].tolist(), seen.values["number"].tolist()) == ([2, 3], [0])
        assert lw.target_mask(batch).tolist() == [False, False]
        assert examples["unfit"].to_pylist() == [1]
