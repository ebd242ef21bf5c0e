"""What verbs have in common: options such as `--json` and `--debug`, and how a result or an error is shown."""

import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from latewood.clock import EARLIEST_TS, show_ts
from latewood.errors import LatewoodError
from latewood.files import FileRows
from latewood.progress import Bar, progress_bar
from latewood.schema import Schema

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the trace of an error.")]
Mutable = Annotated[
    str | None, typer.Option(help="The local folder of recent events, for a store that is not a local folder itself.")
]
ReadOnly = Annotated[bool, typer.Option(help="Look into generations only, as a trainer does.")]
NO_INPUT = "Standard input is not read."  # in the help of arguments that are files


class Output:
    """Where a verb's words go: tables to standard output, or with `--json` the result alone."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(stderr=as_json)

    def result(self, values: Mapping[str, Any], title: str = "") -> None:
        """Show a result: as one JSON object, or as a table of two columns."""
        if self.as_json:
            print_json(values)
            return
        table = Table(title=Text(title), title_justify="left", show_header=False)
        for name, value in values.items():
            table.add_row(name.replace("_", " "), cell(value))
        self.console.print(table)

    def table(self, names: Sequence[str], rows: Sequence[Sequence[Any]], title: str) -> None:
        """Show rows of data to people; with `--json`, beside the result."""
        table = Table(*map(escape, names), title=Text(title), title_justify="left")
        for row in rows:
            table.add_row(*(Text("-" if value is None else str(value)) for value in row))
        self.console.print(table)

    def code(self, schema: Schema) -> None:
        """Show a schema as code to paste."""
        self.console.print(schema.to_code(), highlight=False, markup=False, soft_wrap=True)

    def progress(self, what: str, total: int | None = None, announce: bool = False) -> AbstractContextManager[Bar]:
        """A progress bar, for what takes longer than a moment; on standard error where it would mix with JSON.

        Args: announce: for what takes minutes: where there is no terminal for a bar, a line at the start of each phase.
        """
        return progress_bar(self.console, what, total, announce=announce)


def cell(value: Any) -> Text:
    """A value in a table, as it is: no markup is looked for in data."""
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    return Text(f"{value:,}" if isinstance(value, int) else "-" if value is None else str(value))


def moment(ts: int, raw: bool) -> int | str | None:
    """A watermark as machines or people read it; people read nothing where there is none yet."""
    return ts if raw else None if ts == EARLIEST_TS else show_ts(ts)


def where(rows: FileRows, error: BaseException) -> str:
    """In which file an error arose; and, if it names a row, from where that row is counted."""
    counted = f", counting rows from {rows.first:,}" if re.search(r"\brow \d", str(error)) else ""
    return f"in {rows.path}{counted}"


def print_json(values: Mapping[str, Any]) -> None:
    """Print the one JSON object of a verb; at once, so that a closed pipe shows here and not when Python leaves."""
    print(json.dumps(_plain(values), allow_nan=False), flush=True)


def _plain(value: Any) -> Any:
    """A value as JSON has it: times as text, and so are the floats for which JSON has no word."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, datetime):
        return (value if value.tzinfo is None else value.astimezone(UTC)).isoformat().replace("+00:00", "Z")
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def describe(error: BaseException) -> tuple[str, str]:
    """An error as its kind and one line: the message, and in brackets what was noted on the way up."""
    if isinstance(error, LatewoodError):
        kind = error.kind
    else:
        kind = "os" if isinstance(error, OSError) else f"internal: {type(error).__name__}"
    notes = [f"({' '.join(note.split())})" for note in getattr(error, "__notes__", [])]
    return kind, " ".join([*str(error).split("\n"), *notes])


@contextmanager
def plain_warnings(console: Console) -> Iterator[None]:
    """Warnings as one line each, without the place in the code."""

    def show(message: Warning | str, *_: Any) -> None:
        console.print(f"latewood: warning: {message}", highlight=False, markup=False, soft_wrap=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        yield
