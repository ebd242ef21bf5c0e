"""`latewood compact`: move what is recent into a new generation."""

from typing import Annotated

import typer

import latewood as lw
from latewood.cli.output import Debug, Json, Mutable, Output, moment


def compact(
    store: Annotated[str, typer.Argument(help="The store.")],
    keep: Annotated[int, typer.Option(min=1, help="How many generations keep their files.")] = 2,
    workers: Annotated[int, typer.Option(min=0, help="Threads that build shards; 0: one per processor.")] = 0,
    mutable: Mutable = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Build and publish a new generation."""
    output = Output(json)
    with lw.Store.open(store, mutable=mutable) as opened, output.progress("compacting") as bar:
        before = opened.generation.id
        generation = opened.compact(keep=keep, workers=workers, progress=bar.update)
    output.result(
        {
            "generation": generation.id,
            "new": generation.id != before,
            "watermark": moment(generation.watermark, raw=json),
            "events": generation.event_count,
            "users": generation.user_count,
            "size_bytes": generation.size_bytes,
        },
        "compact",
    )
