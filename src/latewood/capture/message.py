"""The columns that a capture adds, written as one Arrow message and read back from it without a copy.

A struct of lists is some sixty arrays; made one by one, each costs Arrow a microsecond or two and all of them more than
everything else in a capture. Written into one piece of memory, as Arrow would send them, they are made in one call.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.capture import body
from latewood.capture.plan import Plan, plan_of
from latewood.columns import column_to_arrow, plain_array, portions
from latewood.mutable import Recent
from latewood.pointer import Pointers
from latewood.schema import Schema
from latewood.vocabulary import Vocabulary

_LIST_MAX = 2**31 - 1  # what the offsets of one Arrow list array can count
_NOTHING_READY = np.zeros((0, 4), np.int64)


def add_columns(
    features: pa.Table, pointers: Pointers, recent: Recent, schema: Schema, vocabulary: Vocabulary
) -> pa.Table:
    """The features of n examples and their columns `uih`, `recent` and `cutoff`.

    Raises: ScrubbedError: a value was blanked since the events were read.
    """
    plan = plan_of(schema)
    added = pa.Table.from_batches([_write(plan, *part, vocabulary) for part in _portions(pointers, recent)])
    for number, field in enumerate(plan.fields):
        features = features.append_column(field, added.column(number))
    return features


def _portions(pointers: Pointers, recent: Recent) -> Iterator[tuple[Pointers, Recent]]:
    """Examples as many at a time as one list array can hold: all of them, but for a batch beyond measure."""
    if len(recent.rows) + len(recent.suppressed) <= _LIST_MAX:
        yield pointers, recent
        return
    for start, stop in portions(np.diff(recent.offsets) + np.diff(recent.suppressed_offsets), _LIST_MAX):
        yield pointers.take(slice(start, stop)), _part(recent, start, stop)


def _part(recent: Recent, start: int, stop: int) -> Recent:
    """The recent events of requests [start, stop)."""
    offsets, places = recent.offsets[start : stop + 1], recent.suppressed_offsets[start : stop + 1]
    return replace(
        recent,
        cutoff=recent.cutoff[start:stop],
        offsets=offsets - offsets[0],
        rows=recent.rows[offsets[0] : offsets[-1]],
        suppressed_offsets=places - places[0],
        suppressed=recent.suppressed.take(np.arange(places[0], places[-1])),
    )


def _write(plan: Plan, pointers: Pointers, recent: Recent, vocabulary: Vocabulary) -> pa.RecordBatch:
    rows, places = recent.rows, recent.suppressed
    arrays, ready = _lay_out(plan, recent, vocabulary)
    room = plan.room(len(pointers), len(rows), len(places))
    message = pa.allocate_buffer(room + (int(ready[:, body.SIZE].sum()) if arrays else 0))
    size = body.write(
        np.frombuffer(message, np.uint8), plan.head, plan.where, plan.nodes, plan.buffers,
        recent.view.addresses(plan.wanted), ready, rows, recent.offsets, recent.suppressed_offsets,
        np.frombuffer(pointers.epoch, np.uint64),
        pointers.watermark, pointers.start_ts, pointers.end_ts, pointers.end_ties, pointers.length, pointers.checksum,
        recent.cutoff, places.event_ts, places.ingest_ts, places.ordinal,
    )  # fmt: skip
    del arrays  # until here, their memory was read
    if size > message.size:
        raise RuntimeError(f"a message of {size} bytes was thought to need {message.size}")
    return pa.ipc.read_record_batch(message, plan.schema)


def _lay_out(plan: Plan, recent: Recent, vocabulary: Vocabulary) -> tuple[list[pa.Array], NDArray[np.int64]]:
    """The words and lists of the recent events, and by buffer where they lie ready: address, bytes, nulls, elements."""
    if not plan.ready:
        return [], _NOTHING_READY
    ready, arrays = np.zeros((len(plan.buffers), 4), np.int64), list[pa.Array]()
    for trait, first in plan.ready:
        if not len(recent.rows) and not trait.is_list:
            continue  # lists of none have an offset all the same: Arrow reads it where it counts their bytes
        column = recent.view.column(trait.id, recent.rows)
        if column is None:
            array = pa.nulls(len(recent.rows), trait.value_type)
        elif trait.coded:
            array = plain_array(vocabulary.to_arrow(trait, column))
        else:
            array = column_to_arrow(column, trait.value_type)
        for number, buffer in enumerate(array.buffers(), first):
            if buffer is not None:
                ready[number, body.ADDRESS], ready[number, body.SIZE] = buffer.address, buffer.size
        ready[first, body.NULLS] = array.null_count
        if trait.is_list:
            items = first + (2 if trait.list_size is None else 1)
            ready[items, body.NULLS], ready[items, body.ELEMENTS] = array.values.null_count, len(array.values)
        arrays.append(array)
    return arrays, ready
