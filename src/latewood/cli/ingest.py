"""`latewood ingest`: bulk-load files of old interactions, creating the store if there is none."""

import re
from datetime import timedelta
from typing import Annotated

import typer

from latewood.cli.output import NO_INPUT, Debug, Json, Mutable, Output
from latewood.errors import SchemaError

_DELAY = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d)")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def ingest(
    files: Annotated[list[str], typer.Argument(help=f"Parquet, CSV or Arrow files, folders or globs. {NO_INPUT}")],
    store: Annotated[str, typer.Option(help="The store to load into; created if there is none.")],
    user: Annotated[str, typer.Option(help="The column of the user id.")],
    time: Annotated[str, typer.Option(help="The column of when the event happened.")],
    ingest_time: Annotated[str | None, typer.Option(help="The column of when the event was learned of.")] = None,
    delay: Annotated[str | None, typer.Option(help="Instead: the assumed delay, such as 0s, 5m or 1h.")] = None,
    superseded_time: Annotated[
        str | None,
        typer.Option(help="The column of when an event was corrected or deleted, as `latewood export` writes it."),
    ] = None,
    unit: Annotated[str | None, typer.Option(help="Of integer time columns: s, ms or us.")] = None,
    trait: Annotated[list[str] | None, typer.Option(help="A column to keep; all of them by default.")] = None,
    shards: Annotated[int, typer.Option(help="Files per generation, for a new store.")] = 16,
    memory_mib: Annotated[int, typer.Option(min=1, help="About how much memory sorting may take.")] = 1024,
    mutable: Mutable = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Load old interactions into a store."""
    if ingest_time is not None and delay is not None:
        raise SchemaError("--ingest-time and --delay both say when events were learned of: give one, not both")
    if ingest_time is None and delay is None:
        raise SchemaError(
            "say when events were learned of: either --ingest-time COLUMN or --delay DURATION (0s for none)"
        )
    from latewood.ingestion import ingest_with_report

    output = Output(json)
    made, report = ingest_with_report(
        files,
        store,
        user=user,
        time=time,
        ingest_time=ingest_time if ingest_time is not None else parse_delay(delay or ""),
        unit=unit,
        superseded_time=superseded_time,
        traits=trait or None,
        shards=shards,
        mutable=mutable,
        memory_bytes=memory_mib << 20,
        console=output.console,
    )
    made.close()
    if json:
        output.result(report.to_json())


def parse_delay(text: str) -> timedelta:
    """A duration such as 0s, 250ms, 5m, 1.5h or 2d. Raises: SchemaError: not one."""
    match = _DELAY.fullmatch(text)
    if not match:
        raise SchemaError(f"--delay {text!r}: a number and a unit of {', '.join(_SECONDS)}")
    try:
        return timedelta(seconds=float(match[1]) * _SECONDS[match[2]])
    except OverflowError:
        raise SchemaError(f"--delay {text!r} is beyond all years") from None
