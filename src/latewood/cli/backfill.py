"""`latewood backfill`: files of requests → an example log, with a pointer as of each request."""

from typing import Annotated

import typer

from latewood.capture import backfill as make_examples
from latewood.cli.output import Debug, Json, Mutable, Output
from latewood.errors import LatewoodError
from latewood.examples import ExampleLog
from latewood.files import read_files
from latewood.store import Store


def backfill(
    store: Annotated[str, typer.Argument(help="The store.")],
    requests: Annotated[
        list[str], typer.Argument(help="Files with user_id, request_ts and columns of your own; folders; globs.")
    ],
    out: Annotated[str, typer.Option(help="The folder of the example log to add to.")],
    complete: Annotated[bool, typer.Option(help="Declare the store's events complete up to the last request.")] = False,
    allow_empty: Annotated[bool, typer.Option(help="Accept that most histories come out empty.")] = False,
    mutable: Mutable = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Make examples as of each request's time."""
    output = Output(json)
    count = 0
    with Store.open(store, mutable=mutable) as opened, ExampleLog(out) as log, output.progress("backfilling") as bar:
        for rows in read_files(requests):
            try:
                log.append(make_examples(opened, rows.table, complete=complete, allow_empty=allow_empty))
            except LatewoodError as error:
                error.add_note(f"in {rows.path}, counting rows from {rows.first:,}")
                raise
            count += len(rows.table)
            bar.advance(len(rows.table))
    output.result({"examples": count, "log": out}, "backfill")
