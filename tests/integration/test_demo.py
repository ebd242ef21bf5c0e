"""The demo on the first days of the year, and on a small file with two clocks: it compares, and nothing differs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latewood.cli import main


def demo(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(["demo", *arguments])
    captured = capsys.readouterr()
    return int(left.value.code or 0), captured.out, captured.err


def test_two_days_of_purchases(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = demo(capsys, "--days", "2", "--json")
    assert code == 0, err
    result: dict[str, Any] = json.loads(out)
    assert out.count("\n") == 1
    assert result["different"] == 0
    assert result["compared"] == 3 * result["requests"] > 0
    assert result["late_kept_out"] > 0
    assert result["late_events"] > 0
    assert list(result["tenants"]) == ["long", "mid", "short"]
    for tenant in result["tenants"].values():
        assert tenant["different"] == 0
        assert tenant["compared"] == result["requests"]
        for side in ("fat_row", "latewood"):
            assert {"load_ms_per_batch", "examples_per_s", "primary_read_bytes"} <= tenant[side].keys()
            assert tenant["primary_write_bytes"][side] > 0
        assert {"lookup_log_bytes", "lookup_user_bytes", "paper_per_cent"} <= tenant.keys()
    assert {"fat_row", "latewood", "store", "examples"} <= result["stored_bytes"].keys()


def test_what_people_see(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = demo(capsys, "--days", "1", "--folder", str(tmp_path / "kept"))
    assert code == 0
    assert "none differs" in out
    assert out.startswith("replaying the year, day by day ...\n")  # not a terminal: lines instead of a bar
    assert out.count("comparing with the oracle ...\n") == 1
    for words in ("tenant long", "tenant mid", "tenant short", "primary write", "lookup", "the paper", "Fat Rows"):
        assert words in out
    assert {"store", "examples", "fat_rows.parquet"} <= {path.name for path in (tmp_path / "kept").iterdir()}


@pytest.mark.parametrize("as_json", [False, True])
def test_a_file_with_two_clocks(as_json: bool, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ts = 1_600_000_000 + rng.integers(0, 10**6, 3000)
    late = np.where(rng.random(3000) < 0.3, rng.integers(0, 10**5, 3000), 0)
    columns = {"who": rng.integers(0, 40, 3000), "at": ts, "seen": ts + late, "item": rng.integers(0, 99, 3000)}
    pq.write_table(pa.table(columns), tmp_path / "two.parquet")
    options = ["--events", str(tmp_path / "two.parquet"), "--user", "who", "--time", "at", "--ingest-time", "seen"]
    code, out, err = demo(capsys, *options, *(["--json"] if as_json else []))
    assert code == 0, err
    if as_json:
        result = json.loads(out)
        assert (result["different"], result["compared"]) == (0, 3000)
        assert result["late_kept_out"] > result["requests_with_late"] > 0
    else:
        assert "were kept out" in out
