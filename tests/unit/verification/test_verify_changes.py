"""Verifying a store that was corrected, scrubbed, cut by retention and altered while examples were logged."""

from datetime import timedelta

import pyarrow as pa
import pytest

import latewood as lw
from changing_store import Life


def verified(life: Life, max_len: int | None = None) -> lw.VerifyReport:
    report = lw.VerifyReport(0)
    for table in life.examples:  # schemas may differ: one log each
        found = lw.verify(life.store, table, sample=None, max_len=max_len)
        assert found.ok, found.differences
        report = lw.VerifyReport(
            0,
            sampled=report.sampled + found.sampled,
            compared=report.compared + found.compared,
            expired=report.expired + found.expired,
            scrubbed=report.scrubbed + found.scrubbed,
        )
    whole = lw.verify(life.store)
    assert whole.ok, whole.differences
    return report


@pytest.mark.parametrize("seed", range(6))
def test_after_corrections_and_deletions(seed: int) -> None:
    life = Life(seed)
    life.live(60, "append", "supersede", "supersede", "capture", "capture", "compact")
    report = verified(life)
    assert report.compared > 300
    assert report.expired == report.scrubbed == 0


@pytest.mark.parametrize("seed", range(1, 7))
def test_after_scrubs(seed: int) -> None:
    life = Life(seed)
    life.live(60, "append", "append", "supersede", "capture", "capture", "compact", "scrub")
    report = verified(life)
    assert report.scrubbed > 0


@pytest.mark.parametrize("retention", [lw.Retention(max_events=25), lw.Retention(max_age=timedelta(seconds=90))])
@pytest.mark.parametrize("seed", range(3))
def test_after_retention(seed: int, retention: lw.Retention) -> None:
    life = Life(seed, retention)
    life.live(90, "append", "append", "supersede", "capture", "compact")
    whole, short = verified(life), verified(life, max_len=5)
    assert whole.expired > short.expired > 0
    assert short.compared > 0


def test_after_a_change_of_the_schema() -> None:
    life = Life(3)
    life.live(20, "append", "append", "capture", "compact")
    life.store.alter(drop=["word"], add=pa.schema([("more", pa.float32())]), rename={"item": "thing"}, shards=3)
    life.compact()
    assert [trait.name for trait in life.store.schema] == ["thing", "more"]
    assert verified(life).compared > 0
