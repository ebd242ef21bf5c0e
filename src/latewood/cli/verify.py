"""`latewood verify`: is a store what it says it is, and do examples materialize to what they must?"""

from typing import Annotated

import typer

import latewood as lw
from latewood.cli.output import Debug, Json, Mutable, Output, ReadOnly


def verify(
    store: Annotated[str, typer.Argument(help="The store.")],
    examples: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders or globs of examples to derive anew; else the store itself."),
    ] = None,
    sample: Annotated[int, typer.Option(min=0, help="How many of the examples; 0 for all.")] = 1000,
    seed: Annotated[int, typer.Option(help="Chooses them.")] = 0,
    max_len: Annotated[int | None, typer.Option(min=0, help="The model's, where retention takes events.")] = None,
    read_only: ReadOnly = False,
    mutable: Mutable = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Check a store in full, or a sample of its examples. The exit code is 1 if anything is wrong."""
    output = Output(json)
    with lw.Store.open(store, read_only=read_only, mutable=mutable) as opened, output.progress("verifying") as bar:
        report = lw.verify(
            opened, examples or None, sample=sample or None, seed=seed, max_len=max_len, progress=bar.update
        )
    document = report.to_json()
    if json:
        output.result(document)
    else:
        shown = {name: value for name, value in document.items() if name != "differences" and value != 0}
        output.result({"ok": report.ok} | shown, f"verify {store}")
        if report.differences:
            rows = [(difference.what, difference.where, difference.message) for difference in report.differences]
            output.table(
                ["what", "where", "what is wrong"],
                rows,
                "what is wrong" if len(rows) == report.difference_count else f"the first {len(rows)} that are wrong",
            )
    if not report.ok:
        raise typer.Exit(1)
