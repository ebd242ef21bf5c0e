"""`latewood backfill`: files of requests → an example log, with a pointer as of each request."""

import warnings
from typing import Annotated

import typer

import latewood as lw
from latewood.cli.output import NO_INPUT, Debug, Json, Mutable, Output, where
from latewood.files import read_files


def backfill(
    store: Annotated[str, typer.Argument(help="The store.")],
    requests: Annotated[
        list[str],
        typer.Argument(help=f"Files with user_id, request_ts and columns of your own; folders; globs. {NO_INPUT}"),
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
    if before := _count(out):  # the same command once more would train on every example twice
        warnings.warn(f"{out} has {before:,} examples already; these are added to them", UserWarning, stacklevel=1)
    with (
        lw.Store.open(store, mutable=mutable) as opened,
        lw.ExampleLog(out) as log,
        output.progress("backfilling") as bar,
    ):
        for rows in read_files(requests):
            try:
                log.append(lw.backfill(opened, rows.table, complete=complete, allow_empty=allow_empty))
            except lw.LatewoodError as error:
                error.add_note(where(rows, error))
                raise
            count += len(rows.table)
            bar.advance(len(rows.table))
    output.result({"examples": count, "log": out, "log_examples": _count(out)}, "backfill")


def _count(log: str) -> int:
    """How many examples the log has now: more than were made where it had some before, by mistake or not."""
    from latewood.examples.files import find_files

    try:
        return sum(file.open().metadata.num_rows for file in find_files(log))
    except FileNotFoundError:  # no requests, and so no file
        return 0
