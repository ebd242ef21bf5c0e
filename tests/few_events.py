"""A few events, and ways to load them: what the tests of ingest share."""

import itertools
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

import latewood as lw
from latewood.ingestion import IngestReport, ingest_with_report

DAY_S = 86_400
FIRST_S = 1_700_000_000
EVENTS = pa.table(
    {
        "uid": [1, 2, 1, 3, 1],
        "ts": [FIRST_S + 3, FIRST_S, FIRST_S + 1, FIRST_S + 2, FIRST_S + 1],
        "known": [FIRST_S + 3, FIRST_S + 2 * DAY_S, FIRST_S + 7200, FIRST_S + 2, FIRST_S + 1],
        "item": [10, 20, 30, 40, 50],
        "action": ["view", "like", None, "view", "buy ✓"],
    }
)
AS_USUAL: dict[str, Any] = {
    "user": "uid",
    "time": "ts",
    "unit": "s",
    "ingest_time": "known",
    "quiet": True,
    "shards": 2,
}
KEPT = ["item", "action"]
_numbers = itertools.count()


def place() -> str:
    return f"memory://ingest-{next(_numbers)}"


def load(events: Any, path: str | Path | None = None, **changed: Any) -> lw.Store:
    return lw.ingest(events, path or place(), **(AS_USUAL | changed))


def items(store: lw.Store, user: int | str, **options: Any) -> list[int]:
    return store.history(user, **options)["item"].to_pylist()


def report(events: Any, path: str | None = None, **changed: Any) -> IngestReport:
    options = {name: value for name, value in (AS_USUAL | changed).items() if name != "quiet"}
    return ingest_with_report(events, path or place(), console=Console(quiet=True), **options)[1]


def schema_of(user_id: pa.DataType | None = None, **traits: pa.DataType) -> lw.Schema:
    return lw.Schema(user_id=user_id or pa.int64(), traits=pa.schema(list(traits.items())))


GROUPED = lw.Schema(
    user_id=pa.int64(),
    groups={
        "core": pa.schema([pa.field("item", pa.int64(), nullable=False)]),
        "rest": pa.schema([("action", pa.dictionary(pa.int32(), pa.string()))]),
    },
)


def with_value(name: str, row: int, value: Any) -> pa.Table:
    column = EVENTS[name].to_pylist()
    column[row] = value
    return EVENTS.set_column(EVENTS.column_names.index(name), name, pa.array(column))
