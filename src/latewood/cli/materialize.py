"""`latewood materialize`: examples → sequences, counted or written as Parquet."""

from typing import Annotated, Any

import pyarrow.parquet as pq
import typer

from latewood.cli.output import Debug, Json, Output
from latewood.loading import Loader
from latewood.projection import Projection
from latewood.store import Store


def materialize(
    store: Annotated[str, typer.Argument(help="The store.")],
    examples: Annotated[list[str], typer.Argument(help="Files, folders or globs of examples.")],
    max_len: Annotated[int | None, typer.Option(help="Keep the newest this many events; all by default.")] = None,
    trait: Annotated[
        list[str] | None, typer.Option(help="A trait wanted; all of them and event_ts by default.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Write the sequences to this Parquet file.")] = None,
    mask: Annotated[
        bool, typer.Option(help="Leave an example empty where its history is gone, instead of stopping.")
    ] = False,
    batch_size: Annotated[int, typer.Option(help="Examples per batch.")] = 512,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Rebuild the sequences of logged examples."""
    output = Output(json)
    projection = Projection(max_len=max_len, traits=trait or None)
    count = events = longest = 0
    writer: Any = None
    with Store.open(store, read_only=True) as opened:
        loader = Loader(
            opened, examples, projection, batch_size=batch_size, order="user", on_missing="mask" if mask else "raise"
        )
        with output.progress("materializing", total=len(loader)) as (progress, task):
            try:
                for batch in loader:
                    lengths = batch.offsets[1:] - batch.offsets[:-1]
                    count, events = count + len(lengths), events + int(batch.offsets[-1])
                    longest = max(longest, int(lengths.max(initial=0)))
                    if out is not None:
                        table = batch.to_arrow()
                        writer = writer or pq.ParquetWriter(
                            out, table.schema, compression="zstd", write_page_checksum=True
                        )
                        writer.write_table(table)
                    progress.advance(task)
            finally:
                if writer is not None:
                    writer.close()
    output.result({"examples": count, "events": events, "longest": longest, "written": out}, "materialize")
