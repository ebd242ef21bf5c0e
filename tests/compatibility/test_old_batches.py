"""Batches of the mutable tier's log that older versions wrote stay readable: they are kept here, with what is in them.

Up to version 3 every integer stood in its full width and every user's key beside its id. A plain batch was of version 1,
one that supersedes something of version 2, one with lists of version 3.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from latewood.columns import Column, Lists, TraitColumn, compact_lists
from latewood.events import Events, Suppressions
from latewood.mutable.event_batch import EventBatch, Versions, decode_batch, encode_batch
from latewood.users import user_keys

HERE = Path(__file__).parent
NUMBER = 41


def users_of(text: bool) -> pa.Array:
    return pa.array(["größe", "", "u" * 40, "größe"]) if text else pa.array([7, -5, 2**62, 7])


def events_of(users: pa.Array, *, lists: bool = False) -> Events:
    """Of every kind of trait, and with nulls."""
    mask = np.array([False, True, False, False])
    traits: dict[int, TraitColumn] = {
        0: Column(np.array([2**63 - 1, 0, -(2**63), -1], np.int64), mask),
        1: Column(np.array([5, 6, 7, 300], np.int32)),
        3: Column(np.array([1, 2, 255, 0], np.uint8)),
        4: Column(np.array([True, False, True, True])),
        5: Column(np.array([0.5, -0.0, np.inf, 3e-9], np.float32)),
        6: Column(np.array([2**64 - 1, 1, 2, 3], np.uint64)),
    }
    if lists:
        traits[9] = compact_lists(np.array([9, 8, 2**40], np.int64), np.array([2, 0, 0, 1], np.int32), mask)
    times = np.array([-3, 10**15, 10**15 + 1, 9], np.int64), np.array([4, 4, 5, 6], np.int64)
    return Events(users, user_keys(users), *times, np.array([0, 1, 0, 0], np.int32), traits)


def ids_of() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    return np.array([[1, 2**63], [0, 0], [3, 4], [5, 6]], np.uint64), np.array([9, 0, 8, 7], np.uint64)


def versions_of(users: pa.Array) -> Versions:
    places = np.array([1, 2], np.int64), np.array([3, 2**50], np.int64), np.array([0, 70_000], np.int32)
    suppressions = Suppressions(user_keys(users[:2]), *places, np.array([5, 6], np.int64))
    return Versions(users[:2], suppressions, np.array([[0, 0], [2, 3]], np.uint64), np.array([0, 4], np.uint64))


BATCHES = {
    "batch-v1-int64.bin": EventBatch(events_of(users_of(False)), None, None),
    "batch-v1-string.bin": EventBatch(events_of(users_of(True)), *ids_of()),
    "batch-v2-int64.bin": EventBatch(events_of(users_of(False)), *ids_of(), versions_of(users_of(False))),
    "batch-v2-string.bin": EventBatch(events_of(users_of(True)), None, None, versions_of(users_of(True))),
    "batch-v3-int64.bin": EventBatch(events_of(users_of(False), lists=True), None, None),
    "batch-v3-string.bin": EventBatch(events_of(users_of(True), lists=True), *ids_of(), versions_of(users_of(True))),
}


def plainly(batch: EventBatch) -> Any:
    """All that a batch says, and of what type, as Python has it."""
    events, versions = batch.events, batch.versions
    said: list[Any] = [events.user_ids, *events.keys, events.event_ts, events.ingest_ts, events.ordinal]
    said += [batch.ids, batch.content]
    if versions is not None:
        of = versions.suppressions
        said += [versions.user_ids, *of.keys, of.event_ts, of.ingest_ts, of.ordinal, of.at]
        said += [versions.ids, versions.content]
    for trait, column in events.traits.items():
        said += [trait, isinstance(column, Lists), *column]
    return [
        (str(of.dtype), of.tobytes()) if isinstance(of, np.ndarray) else (str(of.type), of.to_pylist())
        if isinstance(of, pa.Array) else of
        for of in said
    ]  # fmt: skip


@pytest.mark.parametrize("name", BATCHES)
def test_a_kept_batch_says_what_it_said(name: str) -> None:
    blob = (HERE / name).read_bytes()
    assert blob[4:6] == int(name[7]).to_bytes(2, "little")
    assert plainly(decode_batch(blob, NUMBER, name)) == plainly(BATCHES[name])


@pytest.mark.parametrize("name", BATCHES)
def test_what_is_written_now_says_the_same(name: str) -> None:
    assert plainly(decode_batch(encode_batch(BATCHES[name], NUMBER), NUMBER, name)) == plainly(BATCHES[name])
