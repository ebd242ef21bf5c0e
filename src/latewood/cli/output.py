"""What every verb has in common: the options `--json` and `--debug`, and how a result is shown."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the trace of an error.")]


class Output:
    """Where a verb's words go: tables to standard output, or with `--json` the result alone."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(stderr=as_json)

    def result(self, values: Mapping[str, Any], title: str = "") -> None:
        """Show a result: as one JSON object, or as a table of two columns."""
        if self.as_json:
            print(json.dumps(values, default=str))
            return
        table = Table(title=title, title_justify="left", show_header=False)
        for name, value in values.items():
            table.add_row(name.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
        self.console.print(table)

    @contextmanager
    def progress(self, what: str, total: int | None = None) -> Iterator[tuple[Progress, Any]]:
        """A progress bar that is gone when the block ends; on standard error where it would mix with JSON."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True) as progress:
            yield progress, progress.add_task(what, total=total)
