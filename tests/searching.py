"""Searching a shard of one user for conditions, stripe by stripe, as `find` does."""

from typing import Any

import numpy as np
import pyarrow as pa

from latewood.kernels import kernel
from latewood.materialize.compile import compile_conditions
from latewood.materialize.decode import WantedColumn
from latewood.stripes import Shard
from latewood.stripes.addresses import address_of
from latewood.stripes.search import NOTE_STRIPES, search_stripe, stream_mask
from latewood.stripes.stripe import table_at
from made_shards import tables_of


@kernel
def search_user(tables: Any, words: Any, stripes: Any, streams: Any, desk: Any, out: Any) -> Any:
    """The masks of all stripes of the first user of the first shard, word by word."""
    for stripe in range(stripes):
        search, at = address_of(words), address_of(desk)
        found = search_stripe(table_at(tables, 0), np.uint64(0), np.uint64(stripe), search, True, at)
        if found:
            return found
        for stream in range(streams):
            mask = (stream_mask(search, np.uint64(stream), at) - at) >> np.uint64(3)
            out[stream, stripe] = desk[mask : mask + np.uint64(4)]
    return np.uint64(0)


def wanted_of(shard: Shard) -> dict[str, WantedColumn]:
    """Its columns by name, as conditions look at them."""
    return {
        column.name: WantedColumn(column.name, column.id, place, column.dtype, True)
        for place, column in enumerate(shard.columns)
        if column.role != "items"
    }


def found_by(shard: Shard, conditions: list[Any], words: dict[str, pa.Array] | None = None) -> tuple[Any, int]:
    """Which rows of the only user meet each condition, and how many stripes were decoded for it."""
    wanted = wanted_of(shard)
    wanted["new"] = WantedColumn("new", 99, None, np.dtype(np.int32), True)
    search = compile_conditions(conditions, wanted, words or {})
    stripes, desk = int(shard.first_stripe[1]), search.desk()
    out = np.zeros((len(conditions), stripes, 4), np.uint64)
    status = search_user(tables_of(shard).rows, search.words, stripes, len(conditions), desk, out)
    if status:
        return int(status), 0
    bits = np.unpackbits(out.view(np.uint8), axis=2, bitorder="little").reshape(len(conditions), -1)
    return bits[:, : int(shard.first_event[1])].astype(np.bool_), int(desk[NOTE_STRIPES])
