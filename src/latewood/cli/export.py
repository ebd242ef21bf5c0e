"""`latewood export`: the events of a store, or materialized examples, as Parquet."""

from pathlib import Path
from typing import Annotated

import typer

import latewood as lw
from latewood.cli.output import NO_INPUT, Debug, Json, Mutable, Output, ReadOnly
from latewood.cli.parquet_file import refuse_existing
from latewood.errors import SchemaError


def export(
    store: Annotated[str, typer.Argument(help="The store.")],
    examples: Annotated[
        list[str] | None, typer.Argument(help=f"With --fat-rows: files, folders or globs of examples. {NO_INPUT}")
    ] = None,
    events: Annotated[Path | None, typer.Option(help="Write all events to this file, which ingest reads back.")] = None,
    fat_rows: Annotated[
        Path | None, typer.Option(help="Write the examples to this file, with their histories.")
    ] = None,
    max_len: Annotated[int | None, typer.Option(min=0, help="Of Fat Rows: keep the newest this many events.")] = None,
    trait: Annotated[
        list[str] | None, typer.Option(help="Of Fat Rows: a trait wanted; all of them and event_ts by default.")
    ] = None,
    leave_out: Annotated[
        bool, typer.Option(help="Leave out the examples whose history is gone, and count them.")
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace the file if it exists.")] = False,
    read_only: ReadOnly = False,
    mutable: Mutable = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write everything that was put in, or examples with their histories, as Parquet."""
    output = Output(json)
    if (events is None) == (fat_rows is None) or (fat_rows is None) != (not examples):
        raise SchemaError("say what to export: --events FILE, or --fat-rows FILE and the examples")
    if events is not None and (max_len is not None or trait or leave_out):
        raise SchemaError("--max-len, --trait and --leave-out are for --fat-rows: --events writes everything")
    refuse_existing(events or fat_rows, overwrite)
    with lw.Store.open(store, read_only=read_only, mutable=mutable) as opened, output.progress("exporting") as bar:
        if events is not None:
            count = lw.export_events(opened, events, overwrite=overwrite, progress=bar.update)
            result = {"events": count, "size_bytes": events.stat().st_size, "written": str(events)}
        else:
            assert fat_rows is not None
            projection = lw.Projection(max_len=max_len, traits=trait or None)
            done = lw.export_fat_rows(
                opened, examples, projection, fat_rows, overwrite=overwrite, progress=bar.update,
                on_missing="leave out" if leave_out else "raise",
            )  # fmt: skip
            result = done.to_json() | {"written": str(fat_rows)}
    output.result(result, "export")
