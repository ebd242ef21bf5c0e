"""`latewood materialize`: examples → sequences, counted, shown, or written as Parquet."""

from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import typer

import latewood as lw
from latewood.cli.output import NO_INPUT, Debug, Json, Output
from latewood.cli.parquet_file import parquet_file, refuse_existing
from latewood.cli.where import parse_stream

NEWEST_SHOWN = 5  # events per sequence


def materialize(
    store: Annotated[str, typer.Argument(help="The store.")],
    examples: Annotated[list[str], typer.Argument(help=f"Files, folders or globs of examples. {NO_INPUT}")],
    max_len: Annotated[int | None, typer.Option(help="Keep the newest this many events; all by default.")] = None,
    trait: Annotated[
        list[str] | None, typer.Option(help="A trait wanted; all of them and event_ts by default.")
    ] = None,
    stream: Annotated[
        list[str] | None,
        typer.Option(
            help="Of each history only the newest events of a kind, as NAME=COUNT:CONDITION; may be repeated."
        ),
    ] = None,
    scan: Annotated[
        int | None, typer.Option(help="With streams: look back over this many events; all by default.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the sequences to this Parquet file.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the file if it exists.")] = False,
    show: Annotated[int, typer.Option(min=0, help="Show the first so many sequences, their newest events.")] = 0,
    mask: Annotated[
        bool, typer.Option(help="Leave an example empty where its history is gone, instead of stopping.")
    ] = False,
    batch_size: Annotated[int, typer.Option(help="Examples per batch.")] = 512,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Rebuild the sequences of logged examples."""
    output = Output(json)
    refuse_existing(out, overwrite)
    streams = [parse_stream(text) for text in stream or ()]
    projection = lw.Projection(max_len=max_len, traits=trait or None, streams=streams, scan=scan)
    count = events = longest = 0
    first: list[pa.Table] = []
    with lw.Store.open(store, read_only=True) as opened:
        loader = lw.Loader(
            opened, examples, projection, batch_size=batch_size, order="user", on_missing="mask" if mask else "raise"
        )
        with output.progress("materializing", total=len(loader)) as bar, parquet_file(out) as write:
            if not len(loader) and out is not None:
                write(loader.materializer(loader.source.schema.empty_table()).to_arrow())
            for batch in loader:
                if count < show:
                    first.append(batch.slice(0, min(show - count, len(batch))).to_arrow())
                if out is not None:
                    write(batch.to_arrow())
                count, events = count + len(batch), events + int(batch.offsets[-1])
                longest = max(longest, int(batch.lengths.max(initial=0)))
                bar.advance()
    if first:
        output.table(*_shown(pa.concat_tables(first)), f"the newest {NEWEST_SHOWN} events of the first sequences")
    written = None if out is None else str(out)
    output.result({"examples": count, "events": events, "longest": longest, "written": written}, "materialize")


def _shown(examples: pa.Table) -> tuple[list[str], list[list[Any]]]:
    """The head and the rows of a table for people: an event a row, whose example stands beside the first of its events."""
    names = [field.name for field in examples.schema.field("history").type]
    rows: list[list[Any]] = []
    for example in examples.to_pylist():
        history = example["history"]
        length = len(history[names[0]])
        events = list(zip(*(history[name][-NEWEST_SHOWN:] for name in names), strict=True))
        request = [example["user_id"], example["request_ts"], length]
        rows.append([*request, *(events[0] if events else [""] * len(names))])
        rows += [["", "", "", *event] for event in events[1:]]
    return ["user_id", "request_ts", "length", *names], rows
