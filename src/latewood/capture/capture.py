"""Capture: the serving read. What the model is fed and what is logged come from one read (docs/protocol.md R10)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from latewood.batch import Batch
from latewood.capture.examples import make_examples
from latewood.capture.requests import read_requests
from latewood.capture.store import CaptureStore
from latewood.clock import warn_of_unit
from latewood.errors import ConflictError
from latewood.projection import Projection

Materialize = Callable[[pa.Table, Projection], Batch]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Capture:
    """What the store knew when some requests came.

    `columns` is what to log: the requests' own columns, `uih` (the pointer), `recent` and `cutoff`.
    """

    columns: pa.Table
    _materialize: Materialize

    def __len__(self) -> int:
        return len(self.columns)

    def __repr__(self) -> str:
        return f"<Capture of {len(self)} requests>"

    def history(self, projection: Projection) -> Batch:
        """What the model is fed, made from the very columns that are logged, by the code that trainers run."""
        return self._materialize(self.columns, projection)


def capture(store: CaptureStore, requests: Any, materialize: Materialize) -> Capture:
    """Read the requests' histories as they are now.

    The cutoff is the closed time of the mutable tier, not the wall clock: what is ingested later lies at or past it.

    Args: requests: user_id, request_ts and any columns of your own; see `read_requests`.
    Warns: UserWarning: all times lie in early 1970, as they do in a wrong unit.
    Raises: SchemaError: the requests do not fit. ConflictError: a bulk load is under way, or no mutable tier is open.
    """
    if store.tier is None:
        raise ConflictError("capture reads recent events, and this store was opened without its mutable tier")
    checked = read_requests(requests, store.schema)
    warn_of_unit("request_ts", checked.end_ts, store.clock)
    store.tier.mark_captured()  # before the first read: from here on no import can change what we see (R7)
    return Capture(make_examples(store, checked, None)[1], materialize)
