"""Materialized examples as a file of Fat Rows: a way back, and the baseline to compare with."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from latewood.errors import ConflictError, SchemaError
from latewood.examples import FatRowWriter
from latewood.loading import Loader
from latewood.projection import Projection
from latewood.store import Store

_BATCH_SIZE = 256


@dataclass(frozen=True, slots=True)
class FatRowsExport:
    """What was written."""

    rows: int
    events: int  # in all histories together
    left_out: int  # examples whose events are gone
    size_bytes: int

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form."""
        return asdict(self)


def export_fat_rows(
    store: Store,
    examples: Any,
    projection: Projection,
    path: str | Path,
    *,
    on_missing: Literal["raise", "leave out"] = "raise",
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> FatRowsExport:
    """Materialize examples, in their order, and write them as Fat Rows, which `lw.FatRows` reads.

    Args:
        examples: a table, or files; see `Loader`.
        on_missing: what to do with an example whose events are gone: "raise", or "leave out": it gets no row, because a
            row with less history than its request saw would be a lie.
        progress: called with (examples done, examples in all).
    Raises: ConflictError: the file exists. SchemaError: no examples, or unknown traits. ExpiredError, ScrubbedError,
        PointerError, CorruptionError: as materializing them.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise ConflictError(f"{path} exists; overwrite=True replaces it")
    if on_missing not in ("raise", "leave out"):
        raise SchemaError(f'on_missing is "raise" or "leave out", not {on_missing!r}')
    mask: Literal["raise", "mask"] = "raise" if on_missing == "raise" else "mask"
    loader = Loader(store, examples, projection, batch_size=_BATCH_SIZE, order="user", on_missing=mask)
    # what may be null is not known before the last row: whatever the store lets be
    nullable = [name for name in projection.names(store.schema) if name in store.schema and store.schema[name].nullable]
    rows = events = 0
    with FatRowWriter(path, nullable=nullable) as writer:
        writer.write(loader.materializer(loader.source.schema.empty_table()))
        for table in _tables(loader, progress):
            writer.write(table)
            rows += len(table)
            events += _events(table)
    return FatRowsExport(rows, events, len(loader.source) - rows, path.stat().st_size)


def _tables(loader: Loader, progress: Callable[[int, int], None] | None) -> Iterator[pa.Table]:
    done = 0
    for batch in loader:
        table = batch.to_arrow()
        if not batch.weights.all():
            table = table.take(pa.array(np.flatnonzero(batch.weights)))
        yield table
        done += len(batch)
        if progress is not None:
            progress(done, len(loader.source))


def _events(table: pa.Table) -> int:
    """The events of all histories."""
    chunks = table["history"].chunks
    return sum(len(chunk.flatten()[0].flatten()) for chunk in chunks if chunk.type.num_fields)
