"""The benchmarks run, small: every suite compares what it times, and every ratio has both sides. No speed is asserted."""

import fcntl
import json
import os
import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # bench lies beside src, and is not installed

from bench import __main__ as bench
from bench import document, peers
from bench.digests import digest, require_equal
from bench.dirty import look, soil
from bench.histories import SEED, TRAITS, draw_distinct, draw_histories, draw_requests, draw_shared
from bench.report import Bound, Line, Report, Results, absent, at_least, at_most, compare
from bench.session import TINY, Session
from bench.suites import SUITES, loader
from bench.timing import Amount, interleave

from latewood.cli import main as cli

SMALL = ["--tiny", "--passes", "1", "--batches", "2", "--lengths", "256", "--no-floors"]


def test_histories_follow_the_recipe() -> None:
    histories = draw_histories(1_000, **TINY)
    assert {name: column.dtype.type for name, column in histories.columns.items()} == TRAITS
    assert all(len(column) == histories.event_count for column in histories.columns.values())
    lengths, times = histories.lengths, histories.columns["event_ts"]
    assert 550 < np.median(lengths) < 850
    assert (lengths == 2_000).sum() >= 6
    assert lengths.min() >= 10
    within = np.ones(len(times) - 1, np.bool_)
    within[histories.offsets[1:-1] - 1] = False
    assert (np.diff(times)[within] > 0).all()
    assert not (times % 1_000).any()
    assert 0.015 < histories.columns["like"].mean() < 0.025


def test_the_same_seed_draws_the_same_data_and_another_does_not() -> None:
    one, same, other = (draw_histories(20, seed=seed, **TINY) for seed in (1, 1, 2))
    assert all((column == same.columns[name]).all() for name, column in one.columns.items())
    assert one.event_count != other.event_count
    requests, again = draw_requests(one, 50), draw_requests(same, 50)
    assert (requests.user == again.user).all()
    assert (requests.visible == again.visible).all()


def test_requests_see_what_came_before_them() -> None:
    histories = draw_histories(50, **TINY)
    requests = draw_requests(histories, 200)
    start, stop = requests.rows(histories, 100)
    times = histories.columns["event_ts"]
    assert (stop - start <= 100).all()
    assert (times[stop - 1] < requests.times(histories)).all()
    inside = stop < histories.offsets[requests.user + 1]
    assert (times[stop[inside]] >= requests.times(histories)[inside]).all()
    assert (requests.visible > histories.lengths[requests.user] // 2).all()
    distinct = draw_distinct(histories, 20, 3)
    assert all(len(set(distinct.user[i : i + 20])) == 20 for i in (0, 20, 40))


def test_shared_requests_lie_close_and_by_user() -> None:
    histories = draw_histories(50, **TINY)
    requests = draw_shared(histories, 8, 4)
    assert len(requests) == 32
    assert (np.diff(requests.user) >= 0).all()
    assert set(np.unique(requests.user, return_counts=True)[1]) == {4}
    assert (requests.visible >= 1).all()
    assert np.ptp(requests.visible[:4]) <= 3 * 8


def test_dirty_histories_hold_late_and_tied_events_in_the_total_order() -> None:
    clean = draw_histories(50, **TINY)
    dirty = soil(clean)
    event_ts, ingest_ts = dirty.histories.columns["event_ts"], dirty.ingest_ts
    owner = np.repeat(np.arange(clean.user_count), clean.lengths)
    assert (np.lexsort((ingest_ts, event_ts, owner)) == np.arange(clean.event_count)).all()
    assert 0.04 < (ingest_ts > event_ts).mean() < 0.06
    within = owner[1:] == owner[:-1]
    assert 0.04 < (np.diff(event_ts)[within] == 0).mean() < 0.06


def test_a_dirty_request_sees_what_was_known_before_it() -> None:
    clean = draw_histories(50, **TINY)
    dirty, requests = soil(clean), draw_requests(clean, 100)
    times = requests.times(clean)
    seen = look(dirty, requests.user, times)
    event_ts, ingest_ts = dirty.histories.columns["event_ts"], dirty.ingest_ts
    for i, rows in enumerate(seen.rows):
        owned = np.arange(*clean.offsets[requests.user[i] : requests.user[i] + 2])
        known = owned[(event_ts[owned] < times[i]) & (ingest_ts[owned] < times[i])]
        assert (rows == known).all()
        assert len(seen.recent[i]) >= min(16, len(rows))
        assert (ingest_ts[seen.recent[i]] >= seen.recent_since[i]).all()


def test_a_difference_is_found_and_named() -> None:
    offsets, traits = np.array([0, 2, 4]), ("a", "b")
    columns = {"a": np.arange(4), "b": np.arange(4.0)}
    left = digest(offsets, columns, traits)
    require_equal(left, digest(offsets, columns, traits), traits, "the same")
    columns["b"] = np.array([0.0, 1.0, 2.0, np.nextafter(3.0, 4.0)])
    with pytest.raises(RuntimeError, match="ours: example 1, trait 'b' and 0 more differ"):
        require_equal(left, digest(offsets, columns, traits), traits, "ours")
    assert (digest(offsets, {"a": np.arange(4), "b": np.arange(4)}, traits)[:, 1] != left[:, 1]).all()


def test_passes_interleave() -> None:
    ran: list[str] = []

    def contender(name: str) -> object:
        return lambda: ran.append(name) or Amount(1, 2, 3)

    result = interleave({"a": contender("a"), "b": contender("b")}, 2)  # type: ignore[dict-item]
    assert ran == ["a", "b"] * 3
    assert result.speeds["a"].amount == Amount(1, 2, 3)


def test_a_bound_holds_or_is_missed_in_words() -> None:
    reached = Line("256 events", "Loader", 1.49, "M events/s", 1.49, "Fat Rows", at_least(1.5), at_least(1.4))
    assert reached.misses(reached.target)
    assert not reached.misses(reached.floor)
    assert reached.complaint(at_least(1.5), "target") == (
        "Loader, 256 events: 1.49x Fat Rows misses the target of ≥ 1.5x"
    )
    assert not Line("256 events", "Loader", 1.5, "M events/s", 1.5, "Fat Rows").misses(at_least(1.5))
    stored = Line("stored", "latewood", 17.1, "bytes/event", 1.0, "latewood", Bound(17, at_most=True, of_figure=True))
    assert stored.misses(stored.target)
    assert not stored.misses(at_most(1.25))
    absent_line = absent("256 events", "Lance", "not installed")
    assert not absent_line.misses(at_least(2))


def test_a_ratio_is_to_the_peer_in_the_same_unit() -> None:
    ours, theirs = compare("cell", {"a": 3.0, "b": 2.0}, "ms", "b", targets={"a": at_most(1.25)})
    assert (ours.ratio, theirs.ratio) == (1.5, 1.0)
    assert ours.misses(ours.target)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Every suite, run once, by whichever test process is first: it takes half a minute."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    target = tmp_path_factory.getbasetemp().parent / f"bench-{run}.json"
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            assert bench.main(["all", "--tiny", "--no-floors", "--json", str(target)]) == 0
    return {report["suite"]: report for report in json.loads(target.read_text())["reports"]}


def test_all_runs_every_suite_on_a_named_machine(reports: dict[str, dict[str, Any]]) -> None:
    assert list(reports) == list(SUITES)
    for report in reports.values():
        assert report["machine"]["versions"]["pyarrow"]
        assert report["seed"] == SEED
        assert report["clock"]


@pytest.mark.parametrize("suite", SUITES)
def test_every_line_has_both_sides(reports: dict[str, dict[str, Any]], suite: str) -> None:
    lines = reports[suite]["lines"]
    assert lines
    for line in lines:
        if line["figure"] is None:
            assert line["note"]
            continue
        assert line["figure"] > 0
        assert line["unit"]
        if line["ratio"] is not None:
            assert line["peer"] in {other["contender"] for other in lines if other["cell"] == line["cell"]}


@pytest.mark.parametrize("suite", SUITES)
def test_outputs_are_compared(reports: dict[str, dict[str, Any]], suite: str) -> None:
    assert reports[suite]["compared"] > 0


@pytest.mark.parametrize("suite", SUITES)
def test_a_missed_target_is_reported(reports: dict[str, dict[str, Any]], suite: str) -> None:
    missed = [line for line in reports[suite]["lines"] if line["target_met"] is False]
    assert len(reports[suite]["missed"]) == len(missed)


@pytest.mark.parametrize(
    ("suite", "contenders"),
    [
        ("loader", {"Loader", "Fat Rows", "Fat Rows, user order", "torch DataLoader, Fat Rows", "Lance lists"}),
        ("scan", {"Materializer", "slices", "memcpy", "late, tied, 16 recent", "16 per user, shared"}),
        ("training", {"shuffled", "Loader, to_torch, prefetch 0", "torch DataLoader, 2 workers"}),
        ("lists", {"Materializer", "slices", "Fat Rows, bare", "Parquet zstd", "plain arrays"}),
        ("checks", {"Materializer, less checksums of pointers", "first read, verified", "read again, always verified"}),
        ("startup", {"import latewood", "import pyarrow", "import numba", "kernels, until a first batch"}),
        ("paper", {"latewood", "Fat Rows", "the paper"}),
        ("build", {"backfill, log, Loader", "DuckDB, Parquet, read", "Polars, Parquet, read"}),
        ("append", {"Store.append", "LMDB, one value per batch"}),
        ("capture", {"Store.capture, one request", "LMDB get"}),
        ("compact", {"Store.compact, all", "Store.compact, 1 % new", "Polars sort, Parquet zstd", "Parquet zstd"}),
    ],
)
def test_every_contender_has_a_line(reports: dict[str, dict[str, Any]], suite: str, contenders: set[str]) -> None:
    """Also one that is not installed, which says so."""
    assert contenders <= {line["contender"] for line in reports[suite]["lines"]}


def test_the_page_has_every_suite_and_its_plots(reports: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    document.write(list(reports.values()), page)
    text = page.read_text()
    for name, about in SUITES.items():
        assert f"\n## {name}: {about}\n" in text
    linked = re.findall(r"\]\((benchmarks/\w+\.svg)\)", text)
    assert {"benchmarks/targets.svg", "benchmarks/loader.svg", "benchmarks/scale.svg"} <= set(linked)
    for path in linked:
        assert ElementTree.parse(tmp_path / path).getroot().tag.endswith("svg")
    assert "mean nothing" in text


def test_the_verb_runs_the_suites(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli(["bench", "append", "--tiny", "--json"])
    said = capsys.readouterr()
    assert said.out.count("\n") == 1
    assert [report["suite"] for report in json.loads(said.out)["reports"]] == ["append"]
    with pytest.raises(SystemExit, match="2"):
        cli(["bench", "speed"])
    assert "there is no suite 'speed'" in capsys.readouterr().err


def test_a_peer_that_is_not_installed_is_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peers, "find", lambda module: None)
    target = tmp_path / "results.json"
    assert bench.main(["loader", "build", *SMALL, "--json", str(target)]) == 0
    for report in json.loads(target.read_text())["reports"]:
        notes = [line["note"] for line in report["lines"] if line["figure"] is None]
        assert notes
        assert all(note.startswith("not installed: pip install ") for note in notes)


def test_without_a_suite_only_the_quick_part_of_loader_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "results.json"
    assert bench.main([*SMALL, "--json", str(target)]) == 0
    (report,) = json.loads(target.read_text())["reports"]
    assert report["suite"] == "loader"
    assert {line["contender"] for line in report["lines"]} == {
        *("Loader", "Loader, prefetch 2", "Fat Rows", "Fat Rows, bare")
    }
    assert [line["floor"] for line in report["lines"] if line["floor"]] == ["≥ 1.5x"] * 2
    assert "Fat Rows" in capsys.readouterr().out


def test_a_missed_floor_is_an_error_in_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(loader.FLOORS, 256, 1e9)
    assert bench.main([argument for argument in SMALL if argument != "--no-floors"]) == 1
    assert "misses the floor of ≥ 1e+09x" in capsys.readouterr().out


def test_a_difference_ends_its_suite(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(loader, "collect", lambda *_: np.zeros((1_024, len(TRAITS)), np.uint64))
    assert bench.main(SMALL) == 1
    assert re.search(r"suite loader failed: .* example 0, trait 'event_ts' .* differ", capsys.readouterr().out)


class OtherSuite:
    """Stands in for a suite: counts its runs, and fails while it is told to."""

    def __init__(self) -> None:
        self.fails, self.runs = True, 0

    def run(self, session: Session, folder: Path) -> Results:
        self.runs += 1
        if self.fails:
            raise OSError("no space left")
        return Results([Line("cell", "us", 1.0, "ms", 0.5, "us", at_least(1))])


def test_a_suite_that_fails_loses_no_other_and_is_run_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, second, target = OtherSuite(), OtherSuite(), tmp_path / "results.json"
    suites = {"append": first, "scale": second}
    monkeypatch.setattr(bench, "load", suites.__getitem__)
    second.fails = False
    arguments = ["append", "scale", "--tiny", "--json", str(target)]
    assert bench.main(arguments) == 1
    found = json.loads(target.read_text())
    assert [report["suite"] for report in found["reports"]] == ["scale"]
    assert found["failures"] == [{"suite": "append", "error": "OSError: no space left"}]
    first.fails = False
    assert bench.main([*arguments, "--only-missing"]) == 0
    found = json.loads(target.read_text())
    assert [report["suite"] for report in found["reports"]] == ["append", "scale"]
    assert found["failures"] == []
    assert (first.runs, second.runs) == (2, 1)


def test_what_was_found_before_a_run_is_cut_off_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, target = OtherSuite(), tmp_path / "results.json"
    first.fails = False

    def load(name: str) -> OtherSuite:
        if name == "scale":
            raise KeyboardInterrupt
        return first

    monkeypatch.setattr(bench, "load", load)
    with pytest.raises(KeyboardInterrupt):
        bench.main(["append", "scale", "--tiny", "--json", str(target)])
    assert [report["suite"] for report in json.loads(target.read_text())["reports"]] == ["append"]


def test_results_of_other_settings_are_not_gone_on_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite, target = OtherSuite(), tmp_path / "results.json"
    suite.fails = False
    monkeypatch.setattr(bench, "load", lambda _: suite)
    arguments = ["append", "--tiny", "--json", str(target), "--only-missing"]
    assert bench.main(arguments) == 0
    with pytest.raises(SystemExit, match="2"):
        bench.main([*arguments, "--users", "7"])
    assert "append with users 48 and not 7" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        bench.main(["append", "--only-missing"])


def _report() -> dict[str, Any]:
    """A report of one line, as in the JSON, beside its peer."""
    ours = Line("256 events", "ours", 3.0, "ms", 1.5, "theirs", at_most(1.25))
    theirs = Line("256 events", "theirs", 2.0, "ms", 1.0, "theirs")
    about = {"seed": 1, "users": 2, "passes": 3, "tiny": False}
    here = {"processor": "one", "cores": 2, "memory_gib": 4, "system": "Linux", "filesystem": "ext4", "commit": "abc"}
    return Report(
        "scan", "about", here | {"versions": {"latewood": "1", "numpy": "2"}}, about, Results([ours, theirs])
    ).to_json()


def test_the_page_says_both_sides_of_every_target_and_why_it_is_missed(tmp_path: Path) -> None:
    page, reasons = tmp_path / "benchmarks.md", tmp_path / "benchmarks-reasons.toml"
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"reports": [_report()], "failures": [{"suite": "scale", "error": "OSError: full"}]}))
    assert document.main([str(results), str(page)]) == 0
    assert "no reason is known yet" in page.read_text()
    reasons.write_text('"scan / * / ours" = "the disk is slow."\n')
    assert document.main([str(results), str(page)]) == 0
    text = page.read_text()
    assert "| scan | 256 events | ours: 3 ms | theirs: 2 ms | 1.5x | ≤ 1.25x | **no** |" in text
    assert "- scan, 256 events (1.5x of ≤ 1.25x): the disk is slow." in text
    assert "latewood 1 at commit abc; numpy 2" in text
    assert "Suite scale failed: OSError: full" in text
    assert "Not all of it: there are no results of loader" in text


def test_a_reason_that_belongs_to_nothing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, results = tmp_path / "benchmarks.md", tmp_path / "results.json"
    results.write_text(json.dumps({"reports": [_report()]}))
    page.with_name("benchmarks-reasons.toml").write_text('"scan / 4,096 events / ours" = "old"\n')
    assert document.main([str(results), str(page)]) == 0
    assert "'scan / 4,096 events / ours'" in capsys.readouterr().err
    page.with_name("benchmarks-reasons.toml").write_text('"scan" = 3\n')
    with pytest.raises(TypeError, match="'scan' is no text"):
        document.main([str(results), str(page)])


def test_results_of_two_machines_are_told_apart(tmp_path: Path) -> None:
    one, other = _report(), _report()
    other["suite"], other["machine"] = "append", other["machine"] | {"processor": "another"}
    document.write([one, other], tmp_path / "benchmarks.md")
    text = (tmp_path / "benchmarks.md").read_text()
    assert "scan:\n\n- Machine: one" in text
    assert "append:\n\n- Machine: another" in text


def test_an_unknown_suite_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        bench.main(["speed"])
    assert "there is no suite 'speed'; there are: loader, scan, training" in capsys.readouterr().err
