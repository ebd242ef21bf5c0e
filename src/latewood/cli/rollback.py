"""`latewood rollback`: build the next generation anew from an older one."""

from typing import Annotated

import typer

import latewood as lw
from latewood.cli.output import Debug, Json, Mutable, Output, moment


def rollback(
    store: Annotated[str, typer.Argument(help="The store.")],
    generation: Annotated[int, typer.Argument(help="The last good generation; its files must still be there.")],
    mutable: Mutable = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Replace bad generations by one that is built from an older one and the mutable tier."""
    output = Output(json)
    with lw.Store.open(store, mutable=mutable) as opened:
        built = opened.rollback(generation)
    watermark = moment(built.watermark, raw=json)
    output.result({"generation": built.id, "watermark": watermark, "events": built.event_count}, "rollback")
