"""`latewood inspect`: what a store holds, or one user's history."""

from typing import Annotated, Any

import numpy as np
import typer

import latewood as lw
from latewood.cli.arguments import parse_user
from latewood.cli.output import Debug, Json, Mutable, Output, moment

ROWS_SHOWN = 20


def inspect(
    store: Annotated[str, typer.Argument(help="The store.")],
    user: Annotated[str | None, typer.Option(help="Show this user's history instead.")] = None,
    mutable: Mutable = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what a store holds."""
    output = Output(json)
    # What is recent can only be seen with the mutable tier, so one user's history opens the store as a server would.
    with lw.Store.open(store, read_only=user is None, mutable=mutable) as opened:
        if user is not None:
            _show_history(output, opened, user)
        elif json:
            output.result({"schema": opened.schema.to_json()} | describe(opened, raw=True))
        else:
            shown = describe(opened, raw=False)
            shown |= {name: "\n".join(shown[name]) or None for name in ("pins", "pending")}
            output.result(shown, f"store {store}")
            output.code(opened.schema)


def describe(store: "lw.Store", raw: bool) -> dict[str, Any]:
    """What `inspect` shows of a store; `raw` for machines: times in µs."""
    from latewood.immutable import GenerationReader, read_newest

    reader, lengths = read_newest(store, GenerationReader.history_lengths)
    generation, pins = reader.generation, store.catalog.held_pins(store.clock.now())
    p50, p99, longest = (np.quantile(lengths, [0.5, 0.99, 1]) if len(lengths) else np.zeros(3)).astype(int).tolist()
    return {
        "epoch": store.epoch.hex(),
        "generation": generation.id,
        "watermark": moment(generation.watermark, raw),
        "events": generation.event_count,
        "users": generation.user_count,
        "size_bytes": generation.size_bytes,
        "bytes_per_event": round(generation.size_bytes / max(generation.event_count, 1), 2),
        "shards": store.shards,
        "length_p50": p50,
        "length_p99": p99,
        "length_max": longest,
        "retention": str(generation.retention or "keep all"),
        "scrubs": store.scrubs.refresh(),
        "scrubs_applied": generation.scrubs,
        "pins": [f"{pin.name}: generation {pin.generation}, until {moment(pin.expires_ts, raw)}" for pin in pins],
        "pending": store.changes.pending(generation).lines(),
    }


def _show_history(output: Output, store: "lw.Store", user: str) -> None:
    user_id = parse_user(user, store.schema.user_id)
    history = store.history(user_id)
    if output.as_json:
        output.result({"user_id": user_id, "length": history.num_rows, "events": history.to_pylist()})
        return
    if not history.num_rows:
        output.console.print(f"user {user}: no events", highlight=False, markup=False)
        return
    newest = [list(row.values()) for row in history.slice(max(0, history.num_rows - ROWS_SHOWN)).to_pylist()]
    shown = f", the newest {ROWS_SHOWN}" if history.num_rows > ROWS_SHOWN else ""
    output.table(history.column_names, newest, f"user {user}: {history.num_rows:,} events{shown}")
