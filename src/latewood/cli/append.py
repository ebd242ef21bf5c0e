"""`latewood append`: append files of events to the mutable tier."""

from typing import Annotated, Literal

import typer

from latewood.cli.output import Debug, Json, Output
from latewood.files import read_tables
from latewood.store import Store


def append(
    store: Annotated[str, typer.Argument(help="The store.")],
    files: Annotated[list[str], typer.Argument(help="Files with user_id, event_ts and every trait.")],
    late: Annotated[
        Literal["raise", "stamp"], typer.Option(help="What to do with an ingest_ts that has passed.")
    ] = "raise",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Append events; each batch is durable when it is counted."""
    output = Output(json)
    count = duplicates = skipped = 0
    with Store.open(store) as opened, output.progress("appending") as (progress, task):
        for table in read_tables(files):
            receipt = opened.append(table, late=late)
            count, duplicates, skipped = (
                count + receipt.count,
                duplicates + receipt.duplicates,
                skipped + receipt.skipped,
            )
            progress.advance(task, table.num_rows)
    output.result({"appended": count, "duplicates": duplicates, "skipped": skipped}, "append")
