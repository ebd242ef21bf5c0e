"""`latewood anchors`: events → requests for what precedes each of them, as a file for `latewood backfill`."""

from pathlib import Path
from typing import Annotated

import typer

import latewood as lw
from latewood.cli.output import Debug, Json, Mutable, Output
from latewood.cli.parquet_file import parquet_file, refuse_existing
from latewood.cli.where import parse_where


def anchors(
    store: Annotated[str, typer.Argument(help="The store.")],
    out: Annotated[Path, typer.Option(help="Write the requests to this Parquet file.")],
    where: Annotated[
        str | None,
        typer.Option(
            help="Which events: comparisons joined by &, such as \"like == true & kind != 'ad'\"; all if left out."
        ),
    ] = None,
    min_history: Annotated[int, typer.Option(help="Leave out events that see fewer than this many before them.")] = 1,
    overwrite: Annotated[bool, typer.Option(help="Replace the file if it exists.")] = False,
    mutable: Mutable = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Turn events into requests for what precedes each of them."""
    output = Output(json)
    refuse_existing(out, overwrite)
    condition = None if where is None else parse_where(where)
    with lw.Store.open(store, mutable=mutable) as opened, output.progress("looking for anchors"):
        requests = lw.anchors(opened, condition, min_history)
    with parquet_file(out) as write:
        write(requests)
    output.result({"requests": len(requests), "written": str(out)}, "anchors")
