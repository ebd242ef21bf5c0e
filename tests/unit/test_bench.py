"""The benchmarks run, small: both suites compare every example with the raw arrays, and every figure has two sides."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # bench lies beside src, and is not installed

from bench import __main__ as bench
from bench.digests import digest, require_equal
from bench.histories import TRAITS, draw_distinct, draw_histories, draw_requests
from bench.report import Floor, Line
from bench.timing import Amount, Speed, interleave

TINY = {"longest": 2_000, "items": 10_000, "authors": 1_000}


@pytest.fixture(autouse=True)
def _one_processor_only_here() -> object:
    import pyarrow as pa

    before = pa.cpu_count(), pa.io_thread_count()
    yield
    pa.set_cpu_count(before[0])
    pa.set_io_thread_count(before[1])


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


def test_what_is_under_its_floor_is_said() -> None:
    speed = Speed(Amount(1, 1, 1), 1.0, 1.0, 1.0)
    assert Line(256, 3, "Loader", speed, 1.49, 1.0, Floor("Loader", "Fat Rows", 1.5)).misses
    assert not Line(256, 3, "Loader", speed, 1.5, 1.0, Floor("Loader", "Fat Rows", 1.5)).misses
    assert not Line(256, 3, "Fat Rows", speed, 1.0, 1.0).misses


def test_all_suites_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "results.json"
    tiny = ["--tiny", "--users", "40", "--passes", "1", "--batches", "2", "--lengths", "256", "--no-floors"]
    assert bench.main(["loader", "scan", *tiny, "--json", str(target)]) == 0
    loader, scan = json.loads(target.read_text())
    assert loader["compared"] == 1_024
    assert scan["compared"] == 80
    assert {(line["traits"], line["contender"]) for line in loader["lines"]} >= {(3, "Loader"), (11, "Fat Rows")}
    assert {line["contender"] for line in scan["lines"]} == {"Materializer", "slices", "memcpy"}
    assert [line["floor"] for line in loader["lines"] if line["contender"] == "Loader"] == [1.5, 1.5]
    ours, fat = loader["storage"]
    assert 0 < ours["bytes_per_example"] < fat["bytes_per_example"]
    for report in (loader, scan):
        assert report["machine"]["versions"]["pyarrow"]
        assert all(line["events_per_s"] > 0 for line in report["lines"])
    printed = capsys.readouterr().out
    assert "Fat Rows" in printed
    assert "memcpy" in printed


def test_a_missed_floor_is_an_error_in_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(bench.loader.FLOORS, 256, 1e9)
    arguments = ["--tiny", "--users", "40", "--passes", "1", "--batches", "1", "--lengths", "256"]
    assert bench.main(arguments) == 1
    assert "under the floor of 1e+09x" in capsys.readouterr().out


def test_an_unknown_suite_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        bench.main(["speed"])
    assert "there is no suite 'speed'; there are: loader, scan" in capsys.readouterr().err
