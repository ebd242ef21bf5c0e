"""`latewood pin`: keep the data of the current generation for a run, or let go of it."""

from typing import Annotated

import typer

import latewood as lw
from latewood.cli.arguments import parse_days
from latewood.cli.output import Debug, Json, Output, moment
from latewood.errors import SchemaError


def pin(
    store: Annotated[str, typer.Argument(help="The store.")],
    name: Annotated[str | None, typer.Argument(help="The pin's name; without one, the pins there are.")] = None,
    days: Annotated[float | None, typer.Option(help="How long to keep it.")] = None,
    release: Annotated[bool, typer.Option("--release", help="Let go of the pin instead.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Keep the data of the current generation, for a run that reads it with store.at(NAME)."""
    output = Output(json)
    with lw.Store.open(store, read_only=True) as opened:
        if release:
            if name is None or days is not None:
                raise SchemaError("--release takes the name of a pin, and no --days")
            if opened.catalog.pins.read(name) is None:
                output.console.print(f"there is no pin {name!r}", highlight=False, markup=False, soft_wrap=True)
            opened.unpin(name)
        elif name is not None:
            if days is None or days <= 0:
                raise SchemaError("--days says how long to keep it, a positive number")
            opened.pin(name, parse_days(days, "--days"))
        pins = opened.catalog.held_pins(opened.clock.now())
    rows = [(one.name, one.generation, moment(one.expires_ts, raw=json), one.moved) for one in pins]
    names = ("name", "generation", "expires_ts", "moved")
    if json:
        output.result({"pins": [dict(zip(names, row, strict=True)) for row in rows]})
    else:
        output.table(names, rows, "pins")
