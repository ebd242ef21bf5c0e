"""Capture and backfill while events are corrected, deleted and forgotten, against the oracle (protocol R2, R13, R16)."""

from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import latewood as lw
from latewood.capture import read_examples
from latewood.errors import ScrubbedError
from latewood.events import NEVER
from latewood.pointer import PLACE_TYPE
from latewood.testing import different_rows, fat_rows

USERS = ["ada", "bob", "çelik"]
SECOND = 1_000_000


class Truth:
    """Every version that was ever appended, for the oracle."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def table(self) -> pa.Table:
        rows = [
            row | {"superseded_at": None if row["superseded_at"] == NEVER else row["superseded_at"]}
            for row in self.rows
        ]
        types = {"user_id": pa.string(), "action": pa.string(), "score": pa.float32()}
        return pa.table(
            {
                name: pa.array([row[name] for row in rows], types.get(name, pa.int64()))
                for name in ("user_id", "event_ts", "ingest_ts", "superseded_at", "item", "action", "score")
            }
        )

    def append(self, world: Any, rows: list[dict[str, Any]]) -> None:
        """Append events; those with `newer`, a row here, correct it, or delete it if they have no event_ts."""
        n = len(rows)
        names = [field.name for field in PLACE_TYPE]
        places = [
            None if row.get("newer") is None else {name: self.rows[row["newer"]][name] for name in names}
            for row in rows
        ]
        table = {
            "user_id": pa.array([row["user_id"] for row in rows], pa.string()),
            "event_ts": pa.array([row["event_ts"] for row in rows], pa.int64()),
            "item": pa.array(
                [None if row["event_ts"] is None else len(self.rows) + k for k, row in enumerate(rows)], pa.int64()
            ),
            "action": pa.array([None] * n, pa.string()),
            "score": pa.array([None] * n, pa.float32()),
            "supersedes": pa.array(places, PLACE_TYPE),
        }
        receipt = world.store.append(pa.table(table))
        for k, row in enumerate(rows):
            ingest_ts = int(receipt.ingest_ts[k])
            if row.get("newer") is not None:
                older = self.rows[row["newer"]]
                older["superseded_at"] = min(older["superseded_at"], ingest_ts)
            event_ts = row["event_ts"]
            self.rows.append(
                {
                    "user_id": row["user_id"] if event_ts is not None else "nobody",  # a deletion is no event
                    "event_ts": 0 if event_ts is None else event_ts,
                    "ingest_ts": ingest_ts,
                    "ordinal": int(receipt.ordinal[k]),
                    "superseded_at": NEVER,
                    "item": len(self.rows),
                    "action": None,
                    "score": None,
                }
            )

    def live(self) -> list[int]:
        return [k for k, row in enumerate(self.rows) if row["user_id"] != "nobody" and row["superseded_at"] == NEVER]


def random_rows(world: Any, truth: Truth, rng: np.random.Generator, count: int) -> list[dict[str, Any]]:
    """Events of the last seconds and corrections and deletions of any, each of at most one time in a batch."""
    rows, taken = [], set[int]()
    for _ in range(count):
        event_ts = world.clock.now() - int(rng.integers(-3, 40)) * SECOND
        row: dict[str, Any] = {"user_id": USERS[rng.integers(3)], "event_ts": event_ts}
        live = [k for k in truth.live() if k not in taken]
        if live and rng.random() < 0.4:
            newer = live[rng.integers(len(live))]
            taken.add(newer)
            row |= {"newer": newer, "user_id": truth.rows[newer]["user_id"]}
            if rng.random() < 0.4:
                row["event_ts"] = None
            elif rng.random() < 0.5:
                row["event_ts"] = truth.rows[newer]["event_ts"]
            else:  # then the version before may have been known in time, and must end the history
                row["event_ts"] = world.clock.now() + int(rng.integers(-3, 3)) * SECOND
        rows.append(row)
    return rows


@pytest.mark.parametrize("seed", range(6))
def test_every_example_means_what_it_saw_for_good(world: Any, seed: int) -> None:
    """Appends, corrections, deletions, captures and compactions in any order; all captures are compared in the end."""
    rng, truth = np.random.default_rng(seed), Truth()
    captured: list[pa.Table] = []
    for _ in range(40):
        world.clock.advance(int(rng.integers(0, 3)) * SECOND)
        act = rng.integers(0, 6)
        if act < 3:
            truth.append(world, random_rows(world, truth, rng, int(rng.integers(1, 12))))
        elif act < 5:
            end_ts = world.clock.now() - rng.integers(-2, 20, 5) * SECOND
            captured.append(world.store.capture(requests(rng.choice([*USERS, "x"], 5).tolist(), end_ts)).columns)
        else:
            world.store.compact()
    compare(world, truth, pa.concat_tables(captured))
    world.store.compact()
    compare(world, truth, pa.concat_tables(captured))


@pytest.mark.parametrize("seed", range(4))
def test_backfills_and_anchors_see_what_was_known_then(world: Any, seed: int) -> None:
    rng, truth = np.random.default_rng(seed), Truth()
    for k in range(12):
        world.clock.advance(int(rng.integers(1, 4)) * SECOND)
        truth.append(world, random_rows(world, truth, rng, int(rng.integers(1, 12))))
        if k in (4, 8):
            world.store.compact()
    closed = world.store.tier.state().closed
    plain = requests(rng.choice(USERS, 40).tolist(), closed // SECOND * SECOND - rng.integers(0, 30, 40) * SECOND)
    for _ in range(2):
        examples = lw.backfill(world.store, plain, allow_empty=True)
        compare(world, truth, examples)
        anchors = lw.anchors(world.store, min_history=0)
        assert sorted(anchors["item"].to_pylist()) == truth.live()
        soon = anchors.filter(pa.array([ts < closed for ts in anchors["request_ts"].cast(pa.int64()).to_pylist()]))
        assert soon["anchor"].combine_chunks().field("end").null_count < len(soon)
        examples = lw.backfill(world.store, soon.drop_columns(["item", "action", "score"]), allow_empty=True)
        history = lw.Materializer(world.store, lw.Projection(traits=["item"]))(examples)
        expected = fat_rows(
            truth.table(), soon.drop_columns(["item", "action", "score"]), lw.Projection(traits=["item"])
        )
        assert not len(different_rows(history.to_arrow(), expected))
        for at_least in (1, 3, 8):
            enough = set(lw.anchors(world.store, min_history=at_least)["item"].to_pylist())
            of_soon = soon["item"].to_pylist()
            assert {i for i, n in zip(of_soon, history.lengths, strict=True) if n >= at_least} == enough & set(of_soon)
        world.store.compact()


def compare(world: Any, truth: Truth, examples: pa.Table) -> None:
    for projection in (lw.Projection(), lw.Projection(3, traits=["item", "event_ts"])):
        history = lw.Materializer(world.store, projection)(examples).to_arrow()
        asked = examples.select(["user_id", "request_ts", "cutoff"])
        expected = fat_rows(truth.table(), asked, projection)
        assert not len(different_rows(history, expected))


def requests(users: list[str], request_ts: Any, **columns: Any) -> pa.Table:
    return pa.table({"user_id": users, "request_ts": pa.array(request_ts, pa.int64()), **columns})


def test_places_are_logged_though_the_new_version_is_out_of_range(world: Any) -> None:
    now, truth = world.clock.now(), Truth()
    truth.append(world, [{"user_id": "ada", "event_ts": now - k} for k in (3, 2, 1)])
    world.store.compact()
    truth.append(world, [{"user_id": "ada", "event_ts": now + 900, "newer": 1}])
    truth.append(world, [{"user_id": "ada", "event_ts": None, "newer": 2}])
    examples = world.store.capture(requests(["ada", "ada", "bob"], [now, now - 1, now])).columns
    recent = examples["recent"].to_pylist()
    assert [row["item"] for row in recent] == [[], [], []]
    assert [[place["ordinal"] for place in row["supersedes"]] for row in recent] == [[0, 0], [0, 0], []]
    compare(world, truth, examples)


def test_history_shows_what_is_so_now_and_what_was_then(world: Any) -> None:
    now, truth = world.clock.now(), Truth()
    truth.append(world, [{"user_id": "ada", "event_ts": now - 2}, {"user_id": "ada", "event_ts": now - 1}])
    then = world.clock.advance(SECOND)
    for _ in range(2):
        world.clock.advance(SECOND)
        truth.append(world, [{"user_id": "ada", "event_ts": None, "newer": 0}] if len(truth.rows) == 2 else [])
        assert world.store.history("ada")["item"].to_pylist() == [1]
        assert world.store.history("ada", as_of=then)["item"].to_pylist() == [0, 1]
        world.store.compact()


def forgetful(world: Any) -> Truth:
    """Two users with stored and recent events, one of whom was scrubbed; no compaction has seen it yet."""
    now, truth = world.clock.now(), Truth()
    truth.append(world, [{"user_id": user, "event_ts": now - 9} for user in ("ada", "bob")])
    world.store.compact()
    truth.append(world, [{"user_id": user, "event_ts": now - 5} for user in ("ada", "bob")])
    truth.append(world, [{"user_id": "ada", "event_ts": None, "newer": 0}])
    world.store.scrub(["ada"], compact=False)
    return truth


def test_what_was_scrubbed_is_withheld_until_a_generation_forgot_it(world: Any) -> None:
    forgetful(world)
    world.clock.advance(60 * SECOND)
    now = world.clock.now()
    world.append(["ada"], [now])  # she comes back
    captured = world.store.capture(requests(["ada", "bob"], [now + 1, now + 1]))
    assert [uih["length"] for uih in captured.columns["uih"].to_pylist()] == [0, 1]
    assert captured.columns["recent"][0].as_py()["supersedes"] == []
    for _ in range(2):
        batch = lw.Materializer(world.store, lw.Projection(traits=["item"]))(captured.columns)
        assert np.split(batch.values["item"], batch.offsets[1:-1])[0].tolist() == [0]  # the world's first item
        assert batch.lengths.tolist() == [1, 2]
        assert world.store.history("ada")["item"].to_pylist() == [0]
        assert lw.anchors(world.store, min_history=0)["user_id"].to_pylist().count("ada") == 1
        world.store.compact()


def test_a_reader_without_the_mutable_tier_withholds_it_too(world: Any) -> None:
    forgetful(world)
    reader = lw.Store.open(world.store.path, read_only=True, clock=world.clock)
    assert reader.history("ada").num_rows == 0
    assert reader.history("bob").num_rows == 1
    with pytest.raises(ScrubbedError):
        reader.history("ada", as_of=world.clock.now() - 1)
    examples = read_examples(reader, pa.table({"user_id": ["ada"]}), end_ts=None, cutoff=None)
    assert examples["uih"][0].as_py()["length"] == 0


def test_a_capture_that_knows_fewer_scrubs_than_the_tier_reads_them(world: Any) -> None:
    other = lw.Store.open(world.store.path, clock=world.clock)
    other.capture(requests(["ada"], [5]))
    forgetful(world)
    captured = other.capture(requests(["ada", "bob"], [world.clock.now()] * 2)).columns
    assert [uih["length"] for uih in captured["uih"].to_pylist()] == [0, 1]
    assert captured["recent"][0].as_py()["item"] == []


def test_events_scrubbed_by_a_condition_take_their_users_examples_with_them(world: Any) -> None:
    now = world.clock.now()
    world.append(["ada", "ada", "bob"], [now - 3, now - 2, now - 1])
    before = world.store.capture(requests(["ada", "bob"], [now, now])).columns
    world.store.scrub(where=lw.col("item") == 1)
    batch = lw.Materializer(world.store, lw.Projection(traits=["item"]), on_missing="mask")(before)
    assert batch.weights.tolist() == [0, 1]
    after = world.store.capture(requests(["ada", "bob"], [now, now]))
    assert after.history(lw.Projection(traits=["item"])).values["item"].tolist() == [0, 2]


def test_labels_are_logged_whatever_a_trait_is_called(world: Any) -> None:
    now = world.clock.now()
    world.append(["ada"], [now - 2])
    world.store.alter(rename={"item": "thing"}, add=pa.schema([("item", pa.int64())]))
    world.store.compact()
    world.clock.advance(1)
    table = {"user_id": ["ada"], "event_ts": [now - 1], "thing": [7], "item": [8], "action": ["view"]}
    world.store.append(pa.table(table | {"score": pa.array([1.0], pa.float32())}))
    captured = world.store.capture(requests(["ada"], [now]))
    names = [field.name for field in captured.columns.schema.field("recent").type]
    assert names == ["event_ts", "ingest_ts", "ordinal", "item", "action", "score", "item@3", "supersedes"]
    assert captured.columns["recent"][0].as_py()["item"] == [7]
    history = captured.history(lw.Projection(traits=["thing", "item"])).to_arrow()["history"][0].as_py()
    assert history == {"thing": [0, 7], "item": [None, 8]}


def test_retention_and_capture_agree(world: Any) -> None:
    now = world.clock.now()
    world.append(["ada"] * 6, [now - k * SECOND for k in range(6, 0, -1)])
    world.store.compact()
    before = world.store.capture(requests(["ada"], [now])).columns
    world.store.alter(retention=lw.Retention(max_age=timedelta(seconds=3.5)))
    world.clock.advance(1)
    world.append(["ada"], [now])
    world.store.compact()
    after = world.store.capture(requests(["ada"], [now])).columns
    assert after["uih"][0].as_py()["length"] == 3
    items = lw.Projection(traits=["item"])
    assert lw.Materializer(world.store, items)(after).values["item"].tolist() == [3, 4, 5]
    assert lw.Materializer(world.store, lw.Projection(2, traits=["item"]))(before).values["item"].tolist() == [4, 5]
    with pytest.raises(
        lw.ExpiredError, match=r"row 0, user 'ada': .* retention left 3 of them; events before .* are gone"
    ):
        lw.Materializer(world.store, items)(before)


@pytest.mark.parametrize(
    ("anchor", "message"),
    [
        ({"end": 5}, "column 'anchor.end' is int64; a place has event_ts, ingest_ts, ordinal"),
        ({"end": {"event_ts": 1, "ingest_ts": 1}}, "column 'anchor.end' is struct"),
        (
            {"end": {"event_ts": 1, "ingest_ts": None, "ordinal": 0}},
            r"column 'anchor.end.ingest_ts' has a null in row 0",
        ),
        ({"end": {"event_ts": 1, "ingest_ts": 1, "ordinal": "0"}}, r"column 'anchor.end.ordinal' is string"),
        ({"end": {"event_ts": 10, "ingest_ts": 9, "ordinal": 1}}, "row 0: the end is after the anchor itself"),
    ],
)
def test_ends_that_are_none_are_refused(world: Any, anchor: dict[str, Any], message: str) -> None:
    with pytest.raises(lw.SchemaError, match=message):
        lw.backfill(world.store, requests(["ada"], [10], anchor=[{"ingest_ts": 9, "ordinal": 0} | anchor]))


def test_an_end_may_be_given_for_some_anchors_only(world: Any) -> None:
    now = world.clock.now()
    world.append(["ada"] * 3, [now] * 3)
    places = [place for _, place in world.log]
    end = dict(zip(("event_ts", "ingest_ts", "ordinal"), places[1], strict=True))
    own = {"ingest_ts": places[2][1], "ordinal": places[2][2]}
    anchors = [own | {"end": None}, own | {"end": end}, None]
    table = world.store.capture(requests(["ada"] * 3, [now] * 3, anchor=anchors)).columns
    assert world.held(table) == [[0, 1], [0], []]
