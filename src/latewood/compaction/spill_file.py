"""Spill file: events on disk for a while, column after column, read back by ranges of rows.

Each column of a run lies there whole, as it was in memory: nothing is encoded, since nobody else reads it and it is gone
with the process. So a run of any number of rows is written by a few large writes, and a range of its rows is read straight
into the arrays that are handed out. The file has no name: a crash leaves nothing behind.
"""

import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.columns import Column, Lists, TraitColumn, compact_lists, concat_columns
from latewood.events import NEVER, Events
from latewood.schema import Schema
from latewood.stripes import gather_lists
from latewood.users import UserKeys, user_keys

Parts = Sequence[NDArray[Any] | None]  # a column of several runs of events, None where a run lacks it
_OFFSETS = np.dtype(np.int32)  # of the bytes of text, as Arrow has them
_APART = ("user_id", "text", "items ", "offsets ")  # arrays that have no element per event, or one more


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an array lies in the file."""

    offset: int
    dtype: np.dtype[Any]


SpilledRun = dict[str, _Place]
"""Where a run of events lies, by column. Of text ids the column "user_id" is the offsets in "text", of a list trait the
column "offsets" those in its "items"."""


class SpillFile:
    """A nameless file to which runs of events are appended. Reading is safe from several threads.

    Args:
        schema: of the events.
        directory: where it is; None is the system's place for temporary files.
        threads: how many columns are put in order and written at the same time.
    """

    def __init__(self, schema: Schema, directory: str | None = None, threads: int = 1) -> None:
        self._schema, self._threads = schema, threads
        self._file = tempfile.TemporaryFile(dir=directory, prefix="latewood-spill-", buffering=0)  # noqa: SIM115
        self._lock = threading.Lock()
        self.size_bytes = 0

    def close(self) -> None:
        """Give its room back."""
        self._file.close()

    def append(self, parts: Sequence[Events], order: NDArray[np.int64]) -> SpilledRun:
        """Write events, laid end to end and put in an order: column by column, so that few are in memory twice.

        Args: parts: each with every trait of the schema.
        """
        run = self._append_ids(pa.concat_arrays([part.user_ids for part in parts]), order)
        run |= self._append_lists(parts, order)
        columns = [_columns(part) for part in parts]
        counts = [len(part) for part in parts]

        def write(name: str) -> tuple[str, _Place | None]:
            whole = _joined([column[name] for column in columns], counts, NEVER if name == "superseded_at" else 0)
            return name, None if whole is None else self._append(whole.take(order))

        return run | {name: place for name, place in self._map(write, columns[0]) if place is not None}

    def read(self, run: SpilledRun, start: int, stop: int) -> Events:
        """Some rows of a run, in arrays of their own."""
        user_ids = self._read_ids(run, start, stop)
        columns = {name: self._read(run[name], start, stop) for name in run if not name.startswith(_APART)}
        traits: dict[int, TraitColumn] = {}
        for trait in self._schema:
            mask = columns.get(f"mask {trait.id}")
            mask = mask if mask is not None and mask.any() else None
            if trait.is_list:
                traits[trait.id] = compact_lists(*self._read_lists(run, trait.id, start, stop), mask)
            else:
                traits[trait.id] = Column(columns[f"values {trait.id}"], mask)
        keys = UserKeys(columns["hash"], columns["check"]) if "hash" in columns else user_keys(user_ids)
        places = columns["event_ts"], columns["ingest_ts"], columns["ordinal"]
        return Events(user_ids, keys, *places, traits, columns.get("superseded_at"))

    def _map(self, write: Callable[[str], Any], names: Iterable[str]) -> list[Any]:
        if self._threads <= 1:
            return [write(name) for name in names]
        with ThreadPoolExecutor(self._threads, "latewood-spill") as pool:
            return list(pool.map(write, names))

    def _append_ids(self, user_ids: pa.Array, order: NDArray[np.int64]) -> SpilledRun:
        if pa.types.is_integer(user_ids.type):
            return {"user_id": self._append(user_ids.to_numpy().take(order))}
        user_ids = user_ids.take(pa.array(order))
        _, offsets, text = user_ids.buffers()
        places = np.frombuffer(offsets, _OFFSETS, len(user_ids) + 1, user_ids.offset * _OFFSETS.itemsize)
        letters = np.frombuffer(text, np.uint8) if text is not None else np.zeros(0, np.uint8)
        return {"user_id": self._append(places), "text": self._append(letters[: places[-1]])}

    def _read_ids(self, run: SpilledRun, start: int, stop: int) -> pa.Array:
        if "text" not in run:
            return pa.array(self._read(run["user_id"], start, stop))
        offsets = self._read(run["user_id"], start, stop + 1)
        text = self._read(run["text"], int(offsets[0]), int(offsets[-1]))
        buffers = [None, pa.py_buffer(offsets - offsets[0]), pa.py_buffer(text)]
        return pa.Array.from_buffers(self._schema.user_id, stop - start, buffers)

    def _append_lists(self, parts: Sequence[Events], order: NDArray[np.int64]) -> SpilledRun:
        """The items of list traits, in the order of the events, and where each event's begin."""
        run: SpilledRun = {}
        for trait in self._schema:
            if trait.is_list:
                lists = concat_columns([part.traits[trait.id] for part in parts]).take(order)
                assert isinstance(lists, Lists)
                run[f"items {trait.id}"] = self._append(gather_lists(lists).items)
                run[f"offsets {trait.id}"] = self._append(lists.offsets)
        return run

    def _read_lists(self, run: SpilledRun, trait: int, start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """The items of some rows, and how many each row has."""
        offsets = self._read(run[f"offsets {trait}"], start, stop + 1)
        return self._read(run[f"items {trait}"], int(offsets[0]), int(offsets[-1])), np.diff(offsets)

    def _append(self, array: NDArray[Any]) -> _Place:
        with self._lock:
            place = _Place(self.size_bytes, array.dtype)
            self.size_bytes += array.nbytes
        rest, offset = array.view(np.uint8).data, place.offset
        while len(rest):  # a write may take less than it was given
            count = os.pwrite(self._file.fileno(), rest, offset)
            rest, offset = rest[count:], offset + count
        return place

    def _read(self, place: _Place, start: int, stop: int) -> NDArray[Any]:
        array = np.empty(stop - start, place.dtype)
        rest, offset = array.view(np.uint8).data, place.offset + start * place.dtype.itemsize
        while len(rest):  # and a read may give less than it was asked for
            count = os.preadv(self._file.fileno(), [rest], offset)
            if not count:
                raise OSError(f"the spill file ends at byte {offset}, {len(rest)} too early")
            rest, offset = rest[count:], offset + count
        return array


def _columns(events: Events) -> dict[str, NDArray[Any] | None]:
    """All columns but the user ids and the items of lists, None where events do not have one.

    Keys of integers are sooner computed than read.
    """
    columns: dict[str, NDArray[Any] | None] = {
        "event_ts": events.event_ts,
        "ingest_ts": events.ingest_ts,
        "ordinal": events.ordinal,
    }
    if not pa.types.is_integer(events.user_ids.type):
        columns |= {"hash": events.keys.hash, "check": events.keys.check}
    for trait, column in events.traits.items():
        columns[f"mask {trait}"] = column.mask
        if isinstance(column, Column):
            columns[f"values {trait}"] = column.values
    return columns | {"superseded_at": events.superseded_at}


def _joined(parts: Parts, counts: Sequence[int], other: int) -> NDArray[Any] | None:
    """A column of all parts, end to end, with `other` for those that lack it; None if all do."""
    dtypes = [part.dtype for part in parts if part is not None]
    if not dtypes:
        return None
    return np.concatenate(
        [np.full(count, other, dtypes[0]) if part is None else part for part, count in zip(parts, counts, strict=True)]
    )
