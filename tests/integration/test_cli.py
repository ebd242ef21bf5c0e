"""Every verb, end to end: what it says on success, on a mistake and on failure, to people and to programs."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import latewood as lw
from few_events import EVENTS, FIRST_S
from latewood.cli import main
from latewood.cli.ingest import parse_delay
from latewood.cli.init import TYPES
from latewood.cli.where import parse_stream, parse_where

VERBS = (
    "init",
    "ingest",
    "append",
    "compact",
    "anchors",
    "backfill",
    "materialize",
    "inspect",
    "why",
    "verify",
    "alter",
    "scrub",
    "pin",
    "rollback",
    "export",
    "shadow",
    "warmup",
    "bench",
    "demo",
)


class Said(NamedTuple):
    """What a command said, and how it left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on standard output."""
        assert self.out.count("\n") == 1
        document: dict[str, Any] = json.loads(self.out)
        return document


Run = Callable[..., Said]


@pytest.fixture
def run(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs commands in a folder with two files: events.parquet, and requests.parquet a day later."""
    monkeypatch.chdir(tmp_path)
    pq.write_table(EVENTS, "events.parquet")
    seconds = [FIRST_S + 100, FIRST_S + 3 * 86_400, FIRST_S]
    requests = {"user_id": [1, 1, 2], "request_ts": [s * 10**6 for s in seconds], "label": [1, 0, 1]}
    pq.write_table(pa.table(requests), "requests.parquet")

    def command(*arguments: str) -> Said:
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main(list(arguments))
        code = left.value.code
        return Said(code if isinstance(code, int) else 0, *capfd.readouterr())

    return command


INGEST = (
    "ingest",
    "events.parquet",
    "--store",
    "store",
    "--user",
    "uid",
    "--time",
    "ts",
    "--unit",
    "s",
    "--shards",
    "2",
)
TWO_CLOCKS = (*INGEST, "--ingest-time", "known")
BACKFILL = ("backfill", "store", "requests.parquet", "--out", "log", "--complete")


def test_from_files_to_sequences(run: Run) -> None:
    loaded = run(*TWO_CLOCKS)
    assert loaded.code == 0
    assert "traits=pa.schema([" in loaded.out
    assert "loaded 5 events" in loaded.out
    assert run(*BACKFILL).code == 0
    made = run("materialize", "store", "log", "--out", "sequences.parquet", "--trait", "item", "--trait", "action")
    assert made.code == 0
    rows = {
        (row["user_id"], row["request_ts"] // 10**6 - FIRST_S): row["history"]
        for row in pq.read_table("sequences.parquet").to_pylist()
    }
    assert rows == {
        (1, 100): {"item": [50, 10], "action": ["buy ✓", "view"]},  # item 30 was learned of two hours later
        (1, 3 * 86_400): {"item": [50, 30, 10], "action": ["buy ✓", None, "view"]},
        (2, 0): {"item": [], "action": []},
    }


def test_the_same_in_json(run: Run) -> None:
    loaded = run(*TWO_CLOCKS, "--json")
    assert loaded.json == lw.ingestion.IngestReport(  # type: ignore[attr-defined]
        events=5, first_ts=FIRST_S * 10**6, last_ts=(FIRST_S + 3) * 10**6, late_hour_share=0.4, late_day_share=0.2,
        early_share=0,
        users=3, length_p50=1, length_p90=2, length_p99=2, length_max=3, size_bytes=loaded.json["size_bytes"], generation=1,
    ).to_json()  # fmt: skip
    assert "schema = lw.Schema(" in loaded.err
    assert run(*BACKFILL, "--json").json == {"examples": 3, "log": "log", "log_examples": 3}
    made = run("materialize", "store", "log", "--max-len", "2", "--json")
    assert made == (0, made.out, "")
    assert made.json == {"examples": 3, "events": 4, "longest": 2, "written": None}


def test_a_live_store(run: Run) -> None:
    traits = ("--trait", "item:int64", "--trait", "side/action:dictionary", "--trait", "side/score:float32")
    made = run("init", "store", *traits, "--shards", "2", "--json").json
    assert made["schema"]["traits"][1] == {
        "id": 1, "name": "action", "type": {"dictionary": "string"}, "nullable": True, "group": "side"
    }  # fmt: skip
    events = {"user_id": [1, 1], "event_ts": [5, 4], "item": [1, 2], "action": ["[b]", None]}
    score = pa.array([float("nan"), 0.5], pa.float32())
    pq.write_table(pa.table(events | {"score": score}), "live.parquet")
    assert run("append", "store", "live.parquet", "--json").json == {"appended": 2, "duplicates": 0, "skipped": 0}
    recent = run("inspect", "store", "--user", "1", "--json").json
    compacted = run("compact", "store", "--json").json
    assert (compacted["generation"], compacted["new"], compacted["events"], compacted["users"]) == (1, True, 2, 1)
    assert run("compact", "store", "--json").json == compacted | {"new": False}
    assert run("inspect", "store", "--user", "1", "--json").json == recent
    assert recent == {"user_id": 1, "length": 2, "events": [
        {"event_ts": "1970-01-01T00:00:00.000004Z", "item": 2, "action": None, "score": 0.5},
        {"event_ts": "1970-01-01T00:00:00.000005Z", "item": 1, "action": "[b]", "score": "nan"},
    ]}  # fmt: skip
    shown = run("inspect", "store", "--json").json
    assert (shown["schema"], shown["epoch"]) == (made["schema"], made["epoch"])
    assert (shown["events"], shown["users"], shown["length_max"], shown["shards"]) == (2, 1, 2, 2)


def test_people_get_tables(run: Run) -> None:
    assert "store" in run("init", "store", "--trait", "item:int64").out
    pq.write_table(pa.table({"user_id": [1], "event_ts": [5], "item": [7]}), "live.parquet")
    assert re.search(r"appended\s+│ 1 ", run("append", "store", "live.parquet").out)
    assert re.search(r"new\s+│ yes ", run("compact", "store").out)
    shown = run("inspect", "store")
    assert re.search(r"events\s+│ 1 ", shown.out)
    assert 'traits=pa.schema([("item", pa.int64())])' in shown.out
    assert "user 1: 1 events" in run("inspect", "store", "--user", "1").out
    assert run("inspect", "store", "--user", "2").out == "user 2: no events\n"


def test_inspect_tells_what_is_asked_for_and_held(run: Run) -> None:
    run("init", "store", "--trait", "item:int64")
    run("pin", "store", "nightly", "--days", "2")
    run("alter", "store", "--add", "shop:string", "--shards", "3", "--max-events", "5")
    run("scrub", "store", "--user", "7", "--no-compact")
    shown = run("inspect", "store", "--json").json
    assert shown["retention"] == "keep all"
    assert (shown["scrubs"], shown["scrubs_applied"]) == (1, 0)
    assert shown["pins"][0].startswith("nightly: generation 0, until ")
    changes = [
        "+ shop: string, null in earlier events",
        "shards: 16 → 3",
        "retention: keep all → keep the newest 5 of every user",
    ]
    assert shown["pending"] == changes
    assert "shop: string" in run("inspect", "store").out
    run("compact", "store")
    shown = run("inspect", "store", "--json").json
    assert (shown["pending"], shown["retention"]) == ([], "keep the newest 5 of every user")
    assert (shown["scrubs"], shown["scrubs_applied"]) == (1, 1)


def test_an_empty_store_has_no_watermark_to_show(run: Run) -> None:
    run("init", "store", "--trait", "item:int64")
    for verb in ("inspect", "compact"):
        assert re.search(r"watermark\s+│ - ", run(verb, "store").out)
        assert run(verb, "store", "--json").json["watermark"] < 0


def test_the_version(run: Run) -> None:
    assert run("--version") == (0, f"latewood {lw.__version__}\n", "")


def test_anchors_as_a_file_of_requests(run: Run) -> None:
    run(*TWO_CLOCKS)
    made = run("anchors", "store", "--where", "action == 'view' & item < 20", "--out", "anchors.parquet", "--json")
    assert made.json == {"requests": 1, "written": "anchors.parquet"}
    with lw.Store.open("store", read_only=True) as store:
        wanted = lw.anchors(store, (lw.col("action") == "view") & (lw.col("item") < 20))
    assert pq.read_table("anchors.parquet").equals(wanted)
    assert run("backfill", "store", "anchors.parquet", "--out", "log", "--json").json["examples"] == 1
    refused = run("anchors", "store", "--out", "anchors.parquet")
    assert refused.err == "latewood: conflict: anchors.parquet exists; --overwrite replaces it\n"
    every = run("anchors", "store", "--min-history", "0", "--out", "anchors.parquet", "--overwrite", "--json")
    assert every.json["requests"] == 5


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("like==true", lw.col("like") == True),  # noqa: E712 - a condition, not a comparison
        (" price >= -1.5e3 ", lw.col("price") >= -1500.0),
        ("'two words' != \"it's & so\"", lw.col("two words") != "it's & so"),
        ("a < 1 & b > 2&c <= 3", (lw.col("a") < 1) & (lw.col("b") > 2) & (lw.col("c") <= 3)),
    ],
)
def test_conditions_in_words(text: str, meant: Any) -> None:
    assert repr(parse_where(text)) == repr(meant)
    assert repr(parse_stream(f"a stream=12:{text}")) == repr(("a stream", lw.last(12, meant)))


@pytest.mark.parametrize(
    "text", ["", "like", "like = 1", "a == 1 &", "a == 1 | b == 2", "a == yes", "a == null", "f(x) == 1"]
)
def test_what_is_no_condition(text: str) -> None:
    with pytest.raises(lw.SchemaError, match="--where"):
        parse_where(text)


def test_a_log_that_grew_twice_is_seen(run: Run) -> None:
    run(*TWO_CLOCKS)
    run(*BACKFILL)
    assert run(*BACKFILL, "--json").json == {"examples": 3, "log": "log", "log_examples": 6}
    assert re.search(r"log examples\s+│ 9 ", run(*BACKFILL).out)


def test_sequences_can_be_looked_at(run: Run) -> None:
    run(*TWO_CLOCKS)
    run(*BACKFILL)
    command = ("materialize", "store", "log", "--trait", "item")
    sequence = re.compile(r" 3 +│ 50 +│\n.* 30 +│\n.* 10 +│\n")
    assert not sequence.search(run(*command).out)
    assert sequence.search(run(*command, "--show", "3").out)
    as_json = run(*command, "--show", "3", "--json")
    assert as_json.json["examples"] == 3
    assert sequence.search(as_json.err)


@pytest.mark.parametrize(
    ("scan", "histories"),
    [
        ((), [([50, 10], [1, 2]), ([30, 10], [1, 2]), ([], [])]),
        (("--scan", "1"), [([10], [2]), ([10], [2]), ([], [])]),
    ],
)
def test_streams_are_materialized(run: Run, scan: tuple[str, ...], histories: list[Any]) -> None:
    run(*TWO_CLOCKS)
    run(*BACKFILL)
    streams = ("--stream", "large=1:item >= 20", "--stream", "newest=1", *scan)
    made = run("materialize", "store", "log", "--trait", "item", "--out", "kept.parquet", *streams, "--json")
    assert made.json["events"] == sum(len(items) for items, _ in histories)
    rows = {
        (row["user_id"], row["request_ts"] // 10**6 - FIRST_S): row["history"]
        for row in pq.read_table("kept.parquet").to_pylist()
    }
    found = [rows[key] for key in ((1, 100), (1, 3 * 86_400), (2, 0))]
    assert [(row["item"], row["stream"]) for row in found] == histories


@pytest.mark.parametrize("text", ["likes", "likes=", "likes=-1", "=5", "likes=5:like", "likes=5;like == true"])
def test_what_is_no_stream(text: str) -> None:
    with pytest.raises(lw.SchemaError, match="--stream"):
        parse_stream(text)


def test_sequences_are_not_written_over_by_mistake(run: Run) -> None:
    run(*TWO_CLOCKS)
    run(*BACKFILL)
    Path("sequences.parquet").write_text("precious")
    refused = run("materialize", "store", "log", "--out", "sequences.parquet")
    assert refused.err == "latewood: conflict: sequences.parquet exists; --overwrite replaces it\n"
    assert Path("sequences.parquet").read_text() == "precious"
    assert run("materialize", "store", "log", "--out", "sequences.parquet", "--overwrite").code == 0
    assert len(pq.read_table("sequences.parquet")) == 3


def test_data_is_not_taken_for_markup(run: Run) -> None:
    run("init", "[/x]", "--trait", "word:string", "--user", "string")
    events = {"user_id": ["[/u]"], "event_ts": [5], "word": ["[/red]"]}
    pq.write_table(pa.table(events), "live.parquet")
    assert run("append", "[/x]", "live.parquet").code == 0
    shown = run("inspect", "[/x]", "--user", "[/u]")
    assert shown.code == 0
    assert "[/red]" in shown.out
    assert "[/x]" in run("inspect", "[/x]").out


def test_recent_events_may_lie_elsewhere(run: Run, tmp_path: Path) -> None:
    assert run("init", "store", "--trait", "item:int64", "--mutable", "recent").code == 0
    pq.write_table(pa.table({"user_id": [1], "event_ts": [5], "item": [7]}), "live.parquet")
    assert run("append", "store", "live.parquet", "--mutable", "recent").code == 0
    assert run("inspect", "store", "--user", "1", "--mutable", "recent", "--json").json["length"] == 1
    assert run("compact", "store", "--mutable", "recent", "--json").json["events"] == 1
    assert not (tmp_path / "store" / "mutable").exists()


def test_a_delay_instead_of_a_column(run: Run) -> None:
    assert run(*INGEST, "--delay", "2h", "--trait", "item", "--json").json["late_hour_share"] == 1
    assert run("inspect", "store", "--json").json["schema"]["traits"][0]["name"] == "item"


@pytest.mark.parametrize(
    ("text", "seconds"), [("0s", 0), ("250ms", 0.25), ("1.5h", 5400), ("2d", 172_800), ("5m", 300), ("7us", 7e-6)]
)
def test_delays(text: str, seconds: float) -> None:
    assert parse_delay(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "5", "h", "-1h", "1 h", "1w", "1e3s"])
def test_what_is_no_delay(text: str) -> None:
    with pytest.raises(lw.SchemaError, match="a number and a unit"):
        parse_delay(text)


@pytest.mark.parametrize("name", TYPES)
def test_every_type_that_init_offers(name: str, run: Run) -> None:
    assert run("init", "store", "--trait", f"x:{name}", "--json").code == 0
    with lw.Store.open("store", read_only=True) as store:
        assert store.schema["x"].type == TYPES[name]


def test_lists_of_any_length_and_of_one_size(run: Run) -> None:
    lists = ("--trait", "a:string[]", "--trait", "b:float32[16]", "--trait", "c:dictionary[]")
    assert run("init", "store", *lists, "--json").code == 0
    with lw.Store.open("store", read_only=True) as store:
        words = pa.dictionary(pa.int32(), pa.string())
        assert [trait.type for trait in store.schema] == [
            pa.list_(pa.string()),
            pa.list_(pa.float32(), 16),
            pa.list_(words),
        ]
    for wrong in ("int[]", "int8[][]", "int8[0]", "int8[x]", "int8[99999999999]", "[]"):
        assert run("init", "other", "--trait", f"x:{wrong}").code != 0


FAILURES: list[tuple[tuple[str, ...], str]] = [
    (("inspect", "nothing"), "latewood: store_not_found: nothing is not a store: it has no store.json\n"),
    (("compact", "nothing"), "latewood: store_not_found: nothing is not a store: it has no store.json\n"),
    (("append", "nothing", "events.parquet"), "latewood: store_not_found: nothing is not a store: it has no store.json\n"),
    (("backfill", "nothing", "requests.parquet", "--out", "log"), "latewood: store_not_found: "),
    (("materialize", "nothing", "log"), "latewood: store_not_found: "),
    (("init", "store", "--trait", "item"), "latewood: schema: trait 'item': expected NAME:TYPE"),
    (("init", "store", "--trait", "item:int"), "latewood: schema: unknown type 'int'; there are: int8, "),
    (("init", "store", "--trait", "recent:int8"), "latewood: schema: reserved column names cannot be traits: recent\n"),
    (("ingest", "none.parquet", *TWO_CLOCKS[2:]), "latewood: schema: none.parquet: no such file\n"),
    (INGEST, "latewood: schema: say when events were learned of: either --ingest-time COLUMN or --delay DURATION"),
    ((*TWO_CLOCKS, "--delay", "0s"), "latewood: schema: --ingest-time and --delay both say when events were learned of"),
    ((*INGEST, "--delay", "soon"), "latewood: schema: --delay 'soon': a number and a unit of us, ms, s, m, h, d\n"),
    ((*INGEST, "--delay", "99999999999d"), "latewood: schema: --delay '99999999999d' is beyond all years\n"),
    (("alter", "nothing", "--max-age-days", "inf"), "latewood: schema: --max-age-days inf: no number of days"),
    (("alter", "nothing", "--max-age-days", "nan"), "latewood: schema: --max-age-days nan: no number of days"),
    (("demo", "--folder", "."), "latewood: error: . exists; the demo wants a new folder\n"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "line"), FAILURES)
def test_a_failure_is_one_line(command: tuple[str, ...], line: str, run: Run, tmp_path: Path) -> None:
    said = run(*command)
    assert said.code == 1
    assert said.err.startswith(line)
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.parquet", "requests.parquet"]
    as_json = run(*command, "--json")
    assert (as_json.code, as_json.err) == (1, said.err)
    kind, message = as_json.json["error"]["kind"], as_json.json["error"]["message"]
    assert said.err == f"latewood: {kind}: {message}\n"


def test_debug_shows_the_trace_before_the_line(run: Run) -> None:
    said = run("inspect", "nothing", "--debug")
    assert said.code == 1
    assert said.err.startswith("Traceback")
    assert said.err.endswith("\nlatewood: store_not_found: nothing is not a store: it has no store.json\n")


@pytest.mark.parametrize(
    "arguments", [(), ("burn",), ("inspect",), ("inspect", "a", "b"), ("compact", "store", "--keep", "0")]
)
def test_wrong_usage_is_2(arguments: tuple[str, ...], run: Run) -> None:
    assert run(*arguments).code == 2


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_helps(verb: str, run: Run) -> None:
    said = run(verb, "--help")
    assert said.code == 0
    assert "--json" in said.out
    assert "--debug" in said.out


def test_a_second_init_is_a_conflict(run: Run) -> None:
    assert run("init", "store", "--trait", "item:int64").code == 0
    said = run("init", "store", "--trait", "item:int64")
    assert (said.code, said.err.split(":")[1]) == (1, " conflict")


def test_an_error_says_which_file_and_what_has_been_done(run: Run) -> None:
    run("init", "store", "--trait", "item:int64")
    pq.write_table(pa.table({"user_id": [1], "event_ts": [FIRST_S * 10**6], "item": [7]}), "a.parquet")
    pq.write_table(pa.table({"user_id": [1, None], "event_ts": [5, 6], "item": [7, 8]}), "b.parquet")
    said = run("append", "store", "a.parquet", "b.parquet")
    assert said.code == 1
    assert said.err == (
        "latewood: schema: column 'user_id' has a null in row 1 "
        "(in b.parquet, counting rows from 0; 1 events before are appended)\n"
    )
    assert run("inspect", "store", "--user", "1", "--json").json["length"] == 1


def test_a_refused_ingest_leaves_nothing(run: Run, tmp_path: Path) -> None:
    pq.write_table(EVENTS.set_column(0, "uid", pa.array([1, None, 3, 4, 5])), "events.parquet")
    said = run(*TWO_CLOCKS)
    assert said.err == "latewood: schema: events.parquet, row 1: column 'uid' has a null\n"
    assert not (tmp_path / "store").exists()


def test_late_events_are_refused_or_stamped(run: Run) -> None:
    run(*TWO_CLOCKS, "--trait", "item")
    late = {"user_id": [1], "event_ts": [5], "item": [7], "ingest_ts": [6]}
    pq.write_table(pa.table(late), "late.parquet")
    assert "conflict: row 0: ingest time 1970" in run("append", "store", "late.parquet").err
    assert run("append", "store", "late.parquet", "--late", "stamp", "--json").json["appended"] == 1


def test_a_backfill_past_what_is_known_needs_a_word(run: Run, tmp_path: Path) -> None:
    run(*TWO_CLOCKS)
    said = run(*BACKFILL[:-1])
    assert said.code == 1
    assert "pass complete=True (in requests.parquet" in said.err
    assert not (tmp_path / "log").exists()


def test_the_same_backfill_once_more_is_doubted(run: Run) -> None:
    run(*TWO_CLOCKS)
    first, second = run(*BACKFILL, "--json"), run(*BACKFILL, "--json")
    assert "already" not in first.err
    count = first.json["log_examples"]
    assert f"log has {count} examples already; these are added to them" in second.err
    assert second.json["log_examples"] == 2 * count


def test_a_warning_is_one_line(run: Run) -> None:
    run(*TWO_CLOCKS)
    finer = pa.table({"user_id": [1], "request_ts": [(FIRST_S + 3 * 86_400) * 10**6 + 1]})
    pq.write_table(finer, "requests.parquet")
    said = run(*BACKFILL, "--json")
    assert said.json["examples"] == 1
    assert said.err.startswith("latewood: warning: request times are finer than event times")
    assert said.err.count("\n") == 1


def test_sequences_are_written_whole_or_not_at_all(run: Run, tmp_path: Path) -> None:
    run(*TWO_CLOCKS)
    run(*BACKFILL)
    run("ingest", "events.parquet", "--store", "other", *TWO_CLOCKS[4:])
    said = run("materialize", "other", "log", "--out", "sequences.parquet")
    assert said.code == 1
    assert said.err.startswith("latewood: pointer: row 0: the pointer is of epoch ")
    assert "(in the batch at positions 0 to 3 of epoch 0" in said.err
    assert not list(tmp_path.glob("*sequences*"))
    assert not list(tmp_path.glob(".*sequences*"))


def test_no_examples_are_an_empty_file(run: Run) -> None:
    run(*TWO_CLOCKS)
    run(*BACKFILL)
    examples = pq.read_table(next(Path("log").rglob("*.parquet"))).slice(0, 0)
    pq.write_table(examples, "none.parquet")
    assert run("materialize", "store", "none.parquet", "--out", "sequences.parquet", "--json").json["examples"] == 0
    written = pq.read_table("sequences.parquet")
    assert (len(written), written.column_names) == (0, ["user_id", "request_ts", "label", "history"])


def test_a_warmup_says_how_long_it_took(run: Run) -> None:
    assert run("warmup", "--json").json["seconds"] > 0


def test_as_a_program_of_its_own(run: Run, tmp_path: Path) -> None:
    def program(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "latewood", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    made = program("init", "store", "--trait", "item:int64", "--json")
    assert (made.returncode, made.stderr) == (0, "")
    assert json.loads(made.stdout)["shards"] == 16
    failed = program("inspect", "nothing")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == "latewood: store_not_found: nothing is not a store: it has no store.json\n"
    assert program("burn").returncode == 2


@pytest.mark.parametrize("store", ["store", "nothing"])
def test_nothing_is_said_to_a_closed_pipe(store: str, run: Run, tmp_path: Path) -> None:
    run("init", "store", "--trait", "item:int64")
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "latewood", "inspect", store, "--json"]
    try:
        left = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path)
    finally:
        os.close(writer)
    assert left.returncode == 1
    assert left.stderr.count("\n") == (store == "nothing")


def test_help_loads_nothing_heavy() -> None:
    code = "import sys, latewood.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numba", "lmdb", "obstore", "pandas", "torch", "pyarrow.dataset"} & set(loaded)
