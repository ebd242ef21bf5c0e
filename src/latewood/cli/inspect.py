"""`latewood inspect`: what a store holds, or one user's history."""

from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import typer
from rich.table import Table

from latewood.cli.output import Debug, Json, Output
from latewood.clock import show_ts
from latewood.errors import SchemaError
from latewood.store import Store

ROWS_SHOWN = 20


def inspect(
    store: Annotated[str, typer.Argument(help="The store.")],
    user: Annotated[str | None, typer.Option(help="Show this user's history instead.")] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what a store holds."""
    output = Output(json)
    # What is recent can only be seen with the mutable tier, so one user's history opens the store as a server would.
    with Store.open(store, read_only=user is None) as opened:
        if user is None:
            output.result(describe(opened, json), f"store {store}")
        else:
            _show_history(output, opened, user)


def describe(store: Store, raw: bool) -> dict[str, Any]:
    """What `inspect` shows of a store; `raw` for machines: times in µs, the schema as a document."""
    generation = store.generation
    lengths = store.reader().history_lengths()
    p50, p99, longest = (np.quantile(lengths, [0.5, 0.99, 1]) if len(lengths) else np.zeros(3)).astype(int).tolist()
    return {
        "epoch": store.epoch.hex(),
        "schema": store.schema.to_json() if raw else store.schema.to_code(),
        "generation": generation.id,
        "watermark": generation.watermark if raw else show_ts(generation.watermark),
        "events": generation.event_count,
        "users": generation.user_count,
        "size_bytes": generation.size_bytes,
        "bytes_per_event": round(generation.size_bytes / max(generation.event_count, 1), 2),
        "shards": store.shards,
        "length_p50": p50,
        "length_p99": p99,
        "length_max": longest,
    }


def _show_history(output: Output, store: Store, user: str) -> None:
    try:
        user_id = int(user) if pa.types.is_integer(store.schema.user_id) else user
    except ValueError:
        raise SchemaError(f"--user {user!r}: the store's user ids are integers") from None
    history = store.history(user_id)
    if output.as_json:
        rows = [
            {name: value if value is None else str(value) for name, value in row.items()} for row in history.to_pylist()
        ]
        output.result({"user_id": user, "length": history.num_rows, "events": rows})
        return
    table = Table(*history.column_names, title=f"user {user}: {history.num_rows:,} events, the newest {ROWS_SHOWN}")
    for row in history.slice(max(0, history.num_rows - ROWS_SHOWN)).to_pylist():
        table.add_row(*(str(value) for value in row.values()))
    output.console.print(table)
