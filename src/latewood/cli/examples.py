"""`latewood examples`: what is done to logged examples in place: `seal` and `rewrite`."""

from dataclasses import asdict
from typing import Annotated

import typer

import latewood as lw
from latewood.cli.output import NO_INPUT, Debug, Json, Output

examples = typer.Typer(no_args_is_help=True, help="Seal logged examples, or purge them of scrubbed users, in place.")

Store = Annotated[str, typer.Argument(help="The store.")]
Log = Annotated[list[str], typer.Argument(help=f"Files, folders or globs of examples. {NO_INPUT}")]


@examples.command()
def seal(store: Store, log: Log, json: Json = False, debug: Debug = False) -> None:
    """Make examples pointers alone, where a generation holds their recent events by now."""
    output = Output(json)
    with lw.Store.open(store, read_only=True) as opened:
        report = lw.seal(opened, log)
    output.result(asdict(report), "seal")


@examples.command()
def rewrite(store: Store, log: Log, json: Json = False, debug: Debug = False) -> None:
    """Take the recent events of scrubbed users out of examples; the examples stay, and are refused as before."""
    output = Output(json)
    with lw.Store.open(store, read_only=True) as opened:
        report = lw.purge_log(opened, log)
    output.result(asdict(report) if json else {"examples": report.examples, "files": len(report.files)}, "rewrite")
