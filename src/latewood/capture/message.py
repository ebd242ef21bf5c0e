"""The columns that a capture adds, written as one Arrow message and read back from it without a copy.

A struct of lists is some sixty arrays; made one by one, each costs Arrow a microsecond or two and all of them more than
everything else in a capture. Written into one piece of memory, as Arrow would send them, they are made in one call.
"""

from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.capture import body
from latewood.capture.plan import Plan, plan_of
from latewood.columns import portions
from latewood.mutable import Recent
from latewood.pointer import Pointers
from latewood.schema import Schema
from latewood.vocabulary import Vocabulary

_LIST_MAX = 2**31 - 1  # what the offsets of one Arrow list array can count
_NOTHING_READY = np.zeros((0, 3), np.int64)


def added_columns(pointers: Pointers, recent: Recent, schema: Schema, vocabulary: Vocabulary) -> pa.Table:
    """The columns `uih`, `recent` and `cutoff` of n examples.

    Raises: ScrubbedError: a value was blanked since the events were read.
    """
    plan = plan_of(schema)
    if len(recent.rows) + len(recent.suppressed) <= _LIST_MAX:
        return pa.Table.from_batches([_write(plan, pointers, recent, vocabulary)])
    runs = portions(np.diff(recent.offsets) + np.diff(recent.suppressed_offsets), _LIST_MAX)
    parts = [(slice(start, stop), _part(recent, start, stop)) for start, stop in runs]
    batches = [_write(plan, pointers.take(rows), part, vocabulary) for rows, part in parts]
    return pa.Table.from_batches(batches)


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
    rows, places, count = recent.rows, recent.suppressed, len(pointers)
    columns = recent.view.addresses(plan.wanted)
    words, ready = _decode(plan, recent, vocabulary)
    head = plan.head.copy()
    counts = np.array((count, count + 1, len(rows), len(places)), np.int64)
    body_bytes = body.lay_out(head, plan.nodes_at, plan.buffers_at, plan.buffers, plan.nodes, counts, columns, ready)
    head[plan.rows_at], head[plan.body_at] = count, body_bytes
    message = pa.allocate_buffer(head.nbytes + body_bytes)
    memory = np.frombuffer(message, np.uint8)
    memory[: head.nbytes] = head.view(np.uint8)
    body.fill(
        memory, head.nbytes, plan.nodes_at, plan.buffers_at, plan.buffers, columns, ready,
        rows, recent.offsets, recent.suppressed_offsets, np.frombuffer(pointers.epoch, np.uint64),
        pointers.watermark, pointers.start_ts, pointers.end_ts, pointers.end_ties, pointers.length, pointers.checksum,
        recent.cutoff, places.event_ts, places.ingest_ts, places.ordinal,
    )  # fmt: skip
    del words  # until here, their memory was read
    return pa.ipc.read_record_batch(message, plan.schema)


def _decode(plan: Plan, recent: Recent, vocabulary: Vocabulary) -> tuple[list[pa.Array], NDArray[np.int64]]:
    """The words of the recent events, and by buffer where they lie ready: address, bytes, nulls."""
    if not plan.coded:
        return [], _NOTHING_READY
    ready, arrays = np.zeros((len(plan.buffers), 3), np.int64), list[pa.Array]()
    for trait, first in plan.coded if len(recent.rows) else ():
        column = recent.view.column(trait.id, recent.rows)
        if column is None:
            array = pa.nulls(len(recent.rows), trait.value_type)
        else:
            array = vocabulary.to_arrow(trait, column).dictionary_decode()
        for number, buffer in enumerate(array.buffers(), first):
            if buffer is not None:
                ready[number, body.ADDRESS], ready[number, body.SIZE] = buffer.address, buffer.size
        ready[first, body.NULLS] = array.null_count
        arrays.append(array)
    return arrays, ready
