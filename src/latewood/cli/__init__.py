"""The command line: one file per verb, each a thin shell around the Python API.

Every verb takes `--json` (one JSON object on standard output, everything else on standard error) and `--debug` (the trace
of an error). The exit code is 0 only on success; an error is one line on standard error that says what and where, and with
`--json` also the object: `{"error": {"kind": ..., "message": ...}}`.

What is heavy is imported when a verb runs (`lw.Store` and its like load themselves when first used): help comes at once.
"""

import os
import sys
import traceback
from typing import Annotated, Any

import typer
from rich.console import Console

from latewood import __version__
from latewood.cli.alter import alter
from latewood.cli.anchors import anchors
from latewood.cli.append import append
from latewood.cli.backfill import backfill
from latewood.cli.bench import bench
from latewood.cli.compact import compact
from latewood.cli.demo import demo
from latewood.cli.examples import examples
from latewood.cli.export import export
from latewood.cli.ingest import ingest
from latewood.cli.init import init
from latewood.cli.inspect import inspect
from latewood.cli.materialize import materialize
from latewood.cli.output import describe, plain_warnings, print_json
from latewood.cli.pin import pin
from latewood.cli.rollback import rollback
from latewood.cli.scrub import scrub
from latewood.cli.shadow import shadow
from latewood.cli.verify import verify
from latewood.cli.warmup import warmup
from latewood.cli.why import why

app = typer.Typer(
    name="latewood",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(asked: bool) -> None:
    if asked:
        print(f"latewood {__version__}")
        raise typer.Exit


@app.callback()
def latewood(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Store every history once, log a pointer, rebuild the exact sequence while training."""


for verb in (
    init,
    ingest,
    append,
    compact,
    anchors,
    backfill,
    materialize,
    inspect,
    why,
    verify,
    alter,
    scrub,
    pin,
    rollback,
    export,
    shadow,
    bench,
    warmup,
    demo,
):
    app.command()(verb)
app.add_typer(examples, name="examples")


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit: 0 on success, 1 on an error, 2 on wrong usage. Raises: SystemExit."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        with plain_warnings(Console(stderr=True)):
            app(given)  # leaves with SystemExit, of 0 or of 2 for wrong usage
    except Exception as error:
        if "--debug" in given:
            traceback.print_exc()
        kind, message = describe(error)
        if kind.startswith("internal") and "--debug" not in given:
            message += "; --debug shows the trace"
        print(f"latewood: {kind}: {message}", file=sys.stderr)
        if "--json" in given:
            _print_if_read({"error": {"kind": kind, "message": message}})
        raise SystemExit(1) from None


def _print_if_read(values: dict[str, Any]) -> None:
    """Print a JSON object, unless whoever it was for is gone."""
    try:
        print_json(values)
    except BrokenPipeError:  # and Python would complain again when it leaves
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
