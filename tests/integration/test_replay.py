"""A log of commits, replayed live through both clocks: every example equals the oracle, ever after, sealed or not."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import latewood as lw
from latewood.cli import main
from latewood.demo import LiveReplay

DAY_S = 86_400
START_S = 1_600_000_000


def commits(rng: np.random.Generator, count: int, days: int) -> pa.Table:
    """Files touched by commits, as a history of git gives them.

    Both clocks are whole seconds. An author writes a commit (`ts`) that touches many files at once, and it is known when
    it is committed (`ingest_ts`): at once, hours or months later, several of them at one moment where a branch is
    rebased, and now and then before it was written, by a clock that is wrong.
    """
    authored = START_S + np.sort(rng.integers(0, days * DAY_S, count))
    delay = np.where(rng.random(count) < 0.6, 0, np.exp(rng.uniform(0, np.log(days * DAY_S), count))).astype(np.int64)
    delay[rng.random(count) < 0.02] = -5
    committed = authored + delay
    rebased = rng.random(count) < 0.2
    committed[rebased] = committed[rebased] // DAY_S * DAY_S + DAY_S  # and these fall on midnight
    files = np.minimum(1 + rng.geometric(0.3, count) * (1 + 9 * (rng.random(count) < 0.05)), 60)
    of = np.repeat(np.arange(count), files)
    author = (rng.random(count) ** 3 * 12).astype(np.int64)  # a few write most
    actions, repos = np.array(["A", "M", "D"]), np.array(["one/one", "two/two"])
    table = pa.table(
        {
            "user_id": author[of],
            "event_ts": authored[of] * 1_000_000,
            "ingest_ts": committed[of] * 1_000_000,
            "item_id": pa.array(rng.integers(0, 500, len(of)), pa.int32()),
            "repo": pa.array(repos[author[of] % 2]).dictionary_encode(),
            "action": pa.array(rng.choice(actions, len(of))).dictionary_encode(),
            "files_in_commit": files[of],
        }
    )
    return table.take(pa.array(np.argsort(committed[of], kind="stable")))


@pytest.mark.parametrize("max_len", [None, 30])
def test_every_example_equals_the_oracle_ever_after(tmp_path: Path, max_len: int | None) -> None:
    events = commits(np.random.default_rng(0), 500, days=12)
    seen: list[int] = []
    projection = lw.Projection(max_len=max_len)
    replay = LiveReplay(events, tmp_path, grain=1_000_000, requests=300, sample=None, projection=projection)
    figures = replay.run(seen.append)
    assert figures["different"] == 0
    assert sum(seen) == figures["events"] == len(events)
    assert figures["compactions"] >= 12
    assert figures["compared"] > 10 * figures["requests"]
    assert figures["late_kept_out"] > 0
    assert figures["sealed"] > figures["requests"] / 2
    with lw.Store.open(tmp_path / "live", read_only=True) as store:
        assert store.generation.event_count == len(events)


def test_the_demo_replays_a_file_live(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = commits(np.random.default_rng(1), 60, days=4)
    seconds = {name: pa.array(events[name].to_numpy() // 1_000_000) for name in ("event_ts", "ingest_ts")}
    for name, column in seconds.items():
        events = events.set_column(events.column_names.index(name), name, column)
    pq.write_table(events, tmp_path / "commits.parquet")
    with pytest.raises(SystemExit) as left:
        main(["demo", "--live", "--events", str(tmp_path / "commits.parquet"), "--time", "event_ts", "--json"])
    assert not left.value.code
    figures = json.loads(capsys.readouterr().out)
    assert figures["different"] == 0
    assert (figures["events"], figures["requests"]) == (len(events), len(events))
    assert figures["compared"] > 2 * len(events)
