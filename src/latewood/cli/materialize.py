"""`latewood materialize`: examples → sequences, counted or written as Parquet."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import pyarrow.parquet as pq
import typer

import latewood as lw
from latewood.cli.output import Debug, Json, Output

Write = Callable[["lw.Batch"], None]


def materialize(
    store: Annotated[str, typer.Argument(help="The store.")],
    examples: Annotated[list[str], typer.Argument(help="Files, folders or globs of examples.")],
    max_len: Annotated[int | None, typer.Option(help="Keep the newest this many events; all by default.")] = None,
    trait: Annotated[
        list[str] | None, typer.Option(help="A trait wanted; all of them and event_ts by default.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the sequences to this Parquet file.")] = None,
    mask: Annotated[
        bool, typer.Option(help="Leave an example empty where its history is gone, instead of stopping.")
    ] = False,
    batch_size: Annotated[int, typer.Option(help="Examples per batch.")] = 512,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Rebuild the sequences of logged examples."""
    output = Output(json)
    projection = lw.Projection(max_len=max_len, traits=trait or None)
    count = events = longest = 0
    with lw.Store.open(store, read_only=True) as opened:
        loader = lw.Loader(
            opened, examples, projection, batch_size=batch_size, order="user", on_missing="mask" if mask else "raise"
        )
        with output.progress("materializing", total=len(loader)) as bar, _parquet(out) as write:
            if not len(loader):
                write(loader.materializer(loader.source.schema.empty_table()))
            for batch in loader:
                count, events = count + len(batch), events + int(batch.offsets[-1])
                longest = max(longest, int(batch.lengths.max(initial=0)))
                write(batch)
                bar.advance()
    written = None if out is None else str(out)
    output.result({"examples": count, "events": events, "longest": longest, "written": written}, "materialize")


@contextmanager
def _parquet(path: Path | None) -> Iterator[Write]:
    """Writes batches to a file that appears whole when the block ends without an error, or not at all; None: nowhere."""
    if path is None:
        yield lambda batch: None
        return
    part = path.with_name(f".{path.name}.part")
    writer: pq.ParquetWriter | None = None

    def write(batch: "lw.Batch") -> None:
        nonlocal writer
        table = batch.to_arrow()
        writer = writer or pq.ParquetWriter(part, table.schema, compression="zstd", write_page_checksum=True)
        writer.write_table(table)

    try:
        yield write
        if writer is not None:
            writer.close()
            part.replace(path)
    finally:
        if writer is not None:
            writer.close()
        part.unlink(missing_ok=True)
