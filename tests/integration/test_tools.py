"""The tools, from the shell: why, verify, export, shadow, examples; and what alter, pin and scrub say."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import latewood as lw
from latewood.cli import main
from latewood.testing import ManualClock
from moments import START

SECOND = 1_000_000
SCHEMA = lw.Schema(user_id=pa.int64(), traits=pa.schema([("item", pa.int64()), ("word", pa.string())]))

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs commands in a folder with a store: of user 7, events of seconds 1 to 4, the last one still recent."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    make_store(Path("store"))

    def command(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main(list(arguments))
        code = left.value.code
        return code if isinstance(code, int) else 0, *capfd.readouterr()

    return command


def make_store(path: Path) -> None:
    clock = ManualClock(START)
    with lw.Store.create(path, SCHEMA, shards=2, clock=clock) as store, lw.ExampleLog("log") as log:
        for second in (1, 2, 3, 4):
            clock.set(START + second * SECOND)
            events = {"user_id": [7, 8], "event_ts": [clock.now(), clock.now()], "item": [second, -second]}
            store.append(events | {"word": [f"w{second}", None]})
            if second == 3:
                store.compact()
        clock.set(START + 10 * SECOND)
        log.append(store.capture({"user_id": [7, 8], "request_ts": [clock.now()] * 2}).columns)


def moment(second: int) -> str:
    return str(START + second * SECOND)


def answer(said: tuple[int, str, str]) -> dict[str, Any]:
    assert said[0] == 0, said[2]
    document: dict[str, Any] = json.loads(said[1])
    return document


class TestWhy:
    def test_to_people(self, run: Run) -> None:
        code, out, _ = run("why", "store", "--user", "7", "--request-ts", moment(4), "--event-ts", moment(2))
        assert code == 0
        assert "in: event 1 of 3, by its pointer; it is in generation 1" in out
        assert "2023-11-14T22:13:22Z" in out

    def test_to_programs(self, run: Run) -> None:
        when = ("--event-ts", "2023-11-14T22:13:22Z", "--max-len", "1", "--json")
        [verdict] = answer(run("why", "store", "--user", "7", "--request-ts", moment(4), *when))["verdicts"]
        assert (verdict["kind"], verdict["newer"], verdict["event_ts"]) == ("cut", 1, START + 2 * SECOND)

    def test_of_a_logged_example(self, run: Run) -> None:
        asked = ("--examples", "log", "--row", "0", "--event-ts", moment(4), "--json")
        for options in ((), ("--read-only",)):
            [verdict] = answer(run("why", "store", *asked, *options))["verdicts"]
            assert (verdict["kind"], verdict["tier"], verdict["position"]) == ("in", "recent", 3)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--user", "x", "--request-ts", "5", "--event-ts", "5"), "the store's user ids are integers"),
            (("--user", "7", "--request-ts", "noon", "--event-ts", "5"), "--request-ts 'noon' is no moment"),
            (("--user", "7", "--event-ts", "5"), "say whose request it is, and when"),
            (("--examples", "log", "--row", "9", "--event-ts", "5"), "has 2 examples, counted from 0"),
        ],
    )
    def test_mistakes(self, arguments: tuple[str, ...], message: str, run: Run) -> None:
        code, out, err = run("why", "store", *arguments)
        assert (code, out) == (1, "")
        assert err.startswith("latewood: schema: ")
        assert message in err


class TestVerify:
    def test_a_whole_store(self, run: Run) -> None:
        code, out, _ = run("verify", "store")
        assert code == 0
        assert re.search(r"ok +│ yes", out)
        found = answer(run("verify", "store", "--json"))
        assert (found["ok"], found["events"], found["recent"], found["differences"]) == (True, 6, 8, [])

    def test_examples(self, run: Run) -> None:
        found = answer(run("verify", "store", "log", "--sample", "0", "--json"))
        assert (found["ok"], found["examples"], found["sampled"], found["compared"]) == (True, 2, 2, 8)
        assert answer(run("verify", "store", "log", "--sample", "1", "--json"))["sampled"] == 1

    def test_damage_is_1_and_says_where(self, run: Run) -> None:
        file = next(Path("store/generations").rglob("*.stripes"))
        data = bytearray(file.read_bytes())
        data[70] ^= 1
        file.chmod(0o644)
        file.write_bytes(bytes(data))
        code, out, err = run("verify", "store")
        assert (code, err) == (1, "")
        assert file.name in out
        code, out, _ = run("verify", "store", "--json")
        document = json.loads(out)
        assert (code, document["ok"], document["differences"][0]["what"]) == (1, False, "shard")


class TestExport:
    def test_events_go_out_and_come_in_again(self, run: Run) -> None:
        found = answer(run("export", "store", "--events", "out.parquet", "--json"))
        assert (found["events"], found["written"]) == (8, "out.parquet")
        columns = ("--user", "user_id", "--time", "event_ts", "--ingest-time", "ingest_ts")
        code, _, err = run("ingest", "out.parquet", "--store", "again", *columns)
        assert code == 1
        assert "'superseded_at' has a reserved name: name it with" in err
        columns += ("--superseded-time", "superseded_at")
        assert run("ingest", "out.parquet", "--store", "again", *columns)[0] == 0
        with lw.Store.open("store") as store, lw.Store.open("again") as again:
            assert again.history(7).equals(store.history(7))
        code, _, err = run("export", "store", "--events", "out.parquet")
        assert (code, err) == (1, "latewood: conflict: out.parquet exists; --overwrite replaces it\n")
        assert run("export", "store", "--events", "out.parquet", "--overwrite")[0] == 0

    def test_examples_become_fat_rows(self, run: Run) -> None:
        options = ("--max-len", "3", "--trait", "item", "--json")
        found = answer(run("export", "store", "log", "--fat-rows", "fat.parquet", *options))
        assert (found["rows"], found["events"], found["left_out"]) == (2, 6, 0)
        [batch] = lw.FatRows("fat.parquet").batches()
        assert sorted(batch.values["item"].tolist()) == [-4, -3, -2, 2, 3, 4]

    @pytest.mark.parametrize(
        "arguments", [(), ("log",), ("--fat-rows", "f"), ("log", "--events", "e"), ("--events", "e", "--fat-rows", "f")]
    )
    def test_say_what_to_export(self, arguments: tuple[str, ...], run: Run) -> None:
        code, _, err = run("export", "store", *arguments)
        assert code == 1
        assert "say what to export" in err


class TestShadow:
    @pytest.fixture
    def rows(self, run: Run) -> Path:
        """Fat Rows of the two logged requests; user 7 lacks its newest event, and has another word."""
        table = pa.table(
            {"uid": [7, 8], "at": [START // SECOND + 10] * 2, "h": [history(1, 2, 3), history(-1, -2, -3, -4)]}
        )
        pq.write_table(table, "rows.parquet")
        return Path("rows.parquet")

    MAP = (
        "--map",
        "user_id=uid",
        "--map",
        "request_ts=at",
        "--map",
        "event_ts=h.ts",
        "--map",
        "item=h.i",
        "--unit",
        "s",
    )

    def test_to_programs(self, rows: Path, run: Run) -> None:
        found = answer(run("shadow", "store", str(rows), *self.MAP, "--json"))
        assert (found["compared"], found["same"], found["not_compared"]) == (2, 1, ["word"])
        assert [(kind["kind"], kind["events"]) for kind in found["kinds"]] == [("stale", 1)]

    def test_to_people(self, rows: Path, run: Run) -> None:
        code, out, _ = run("shadow", "store", str(rows), *self.MAP, "--map", "word=h.w")
        assert code == 0
        assert "missing there: newer than all that they have" in out
        assert "learned of 6 s before the request" in out
        assert re.search(r"the same +│ 0 \(0.0%\)", out)
        assert re.search(r"type +│ 4 +│ 1 +│ the same value in another representation +│ word: 4", out)

    def test_what_export_writes_is_the_same(self, run: Run) -> None:
        assert run("export", "store", "log", "--fat-rows", "fat.parquet")[0] == 0
        code, out, _ = run("shadow", "store", "fat.parquet")
        assert code == 0
        assert "no differences" in out

    @pytest.mark.parametrize("pair", ["item", "item=", "=h.i", "item=h.x"])
    def test_mistakes(self, pair: str, rows: Path, run: Run) -> None:
        code, _, err = run("shadow", "store", str(rows), *self.MAP, "--map", pair)
        assert (code, err) == (1, f"latewood: schema: --map {pair!r}: NAME=PATH, each name once\n")


class TestExamples:
    def recents(self) -> list[int]:
        """The items that each logged example carries, all of them together."""
        [file] = Path("log").rglob("*.parquet")
        return [item for row in pq.read_table(file)["recent"].to_pylist() for item in row["item"]]

    def test_seal(self, run: Run) -> None:
        assert sorted(self.recents()) == [-4, 4]
        early = answer(run("examples", "seal", "store", "log", "--json"))
        assert (early["sealed"], early["not_covered"]) == (0, 2)
        with lw.Store.open("store", clock=ManualClock(START + 20 * SECOND)) as store:
            store.append({"user_id": [9], "event_ts": [START], "item": [0], "word": [""]})
            store.compact()
        code, out, _ = run("examples", "seal", "store", "log")
        assert code == 0
        assert re.search(r"sealed +│ 2", out)
        assert self.recents() == []
        assert answer(run("verify", "store", "log", "--json"))["compared"] == 8

    def test_rewrite_takes_out_what_a_scrub_cannot_reach(self, run: Run) -> None:
        with lw.Store.open("store", clock=ManualClock(START + 20 * SECOND)) as store:
            store.scrub([8])
        assert sorted(self.recents()) == [-4, 4]
        found = answer(run("examples", "rewrite", "store", "log", "--json"))
        assert (found["examples"], len(found["files"])) == (1, 1)
        assert self.recents() == [4]
        assert b"w-4" not in next(Path("log").rglob("*.parquet")).read_bytes()
        again = answer(run("examples", "rewrite", "store", "log", "--json"))
        assert (again["examples"], again["files"]) == (0, [])
        checked = answer(run("verify", "store", "log", "--json"))
        assert (checked["ok"], checked["sampled"], checked["scrubbed"]) == (True, 2, 1)
        masked = answer(run("materialize", "store", "log", "--mask", "--json"))
        assert (masked["examples"], masked["events"]) == (2, 4)

    @pytest.mark.parametrize("verb", ["seal", "rewrite"])
    def test_mistakes(self, verb: str, run: Run) -> None:
        code, _, err = run("examples", verb, "store", "nothing")
        assert (code, err) == (1, "latewood: schema: no Parquet file of examples at nothing\n")
        assert "--json" in run("examples", verb, "--help")[1]


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("alter store --shards 0", 1, "shards is 0; a store has 1 to"),
        ("alter store --shards 3 --preview", 0, "only a preview:\nshards: 2 → 3\napplied by the next compaction"),
        ("alter store", 0, "nothing changes"),
        ("pin store run9 --release", 0, "there is no pin 'run9'"),
        ("pin store --release", 1, "--release takes the name of a pin, and no --days"),
        ("scrub store", 1, "say what to forget: either --user, once or more, or --where"),
        ("scrub store --where item==99", 0, "nothing to forget: no event meets the condition"),
        ("export store --events out.parquet --max-len 3", 1, "--events writes everything"),
    ],
)
def test_what_is_said_where_little_is_done(line: str, code: int, said: str, run: Run) -> None:
    left, out, err = run(*line.split())
    assert left == code
    assert said in out + err


def history(*items: int) -> list[dict[str, Any]]:
    return [{"ts": START // SECOND + abs(item), "i": item, "w": f"w{item}" if item > 0 else ""} for item in items]
