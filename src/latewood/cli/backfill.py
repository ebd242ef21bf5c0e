"""`latewood backfill`: files of requests → an example log, with a pointer as of each request."""

from typing import Annotated

import typer

from latewood.capture import backfill as make_examples
from latewood.cli.output import Debug, Json, Output
from latewood.examples import ExampleLog
from latewood.files import read_tables
from latewood.store import Store


def backfill(
    store: Annotated[str, typer.Argument(help="The store.")],
    requests: Annotated[list[str], typer.Argument(help="Files with user_id, request_ts and columns of your own.")],
    out: Annotated[str, typer.Option(help="The folder of the example log to add to.")],
    complete: Annotated[bool, typer.Option(help="Declare the store's events complete up to the last request.")] = False,
    allow_empty: Annotated[bool, typer.Option(help="Accept that most histories come out empty.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Make examples as of each request's time."""
    output = Output(json)
    count = 0
    with Store.open(store) as opened, ExampleLog(out) as log, output.progress("backfilling") as (progress, task):
        for table in read_tables(requests):
            log.append(make_examples(opened, table, complete=complete, allow_empty=allow_empty))
            count += table.num_rows
            progress.advance(task, table.num_rows)
    output.result({"examples": count, "log": out}, "backfill")
