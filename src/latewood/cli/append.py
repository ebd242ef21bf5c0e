"""`latewood append`: append files of events to the mutable tier."""

from typing import Annotated, Literal

import typer

import latewood as lw
from latewood.cli.output import NO_INPUT, Debug, Json, Mutable, Output, where
from latewood.files import read_files


def append(
    store: Annotated[str, typer.Argument(help="The store.")],
    files: Annotated[
        list[str], typer.Argument(help=f"Files with user_id, event_ts and every trait; folders; globs. {NO_INPUT}")
    ],
    late: Annotated[
        Literal["raise", "stamp"], typer.Option(help="What to do with an ingest_ts that has passed.")
    ] = "raise",
    mutable: Mutable = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Append events; each batch of rows is durable when it is counted."""
    output = Output(json)
    count = duplicates = skipped = 0
    with lw.Store.open(store, mutable=mutable) as opened, output.progress("appending") as bar:
        for rows in read_files(files):
            try:
                receipt = opened.append(rows.table, late=late)
            except lw.LatewoodError as error:
                error.add_note(f"{where(rows, error)}; {count:,} events before are appended")
                raise
            count, duplicates = count + receipt.count, duplicates + receipt.duplicates
            skipped += receipt.skipped
            bar.advance(len(rows.table))
    output.result({"appended": count, "duplicates": duplicates, "skipped": skipped}, "append")
