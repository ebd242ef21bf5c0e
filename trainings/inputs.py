"""From batches to what the models take. One path, whoever made the batch: a `Loader`, or a reader of Fat Rows.

A model says at an event what comes after it. Of a request that is asked at its newest event alone; of a whole sequence
(`lw.sequences`) at every event that a target follows. Padding is on the left, so that either way the last places of every
row are asked.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch

import latewood as lw
from latewood.batch import Batch
from latewood.vocab import UNKNOWN, Vocab

MICROSECONDS = 1_000_000  # per second
FIRST = UNKNOWN + 1  # the first id that is an item


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """n histories, L events wide, oldest first, padding on the left. At the last A places, what comes next is asked."""

    items: torch.Tensor  # (n, L) int64: ids of the vocabulary, 0 where there is no event
    seconds_ago: torch.Tensor  # (n, L) int64: before the request
    lengths: torch.Tensor  # (n,) int64
    targets: torch.Tensor  # (n, A) int64: the items that came next
    asked: torch.Tensor  # (n, A) bool: False where the answer does not count, as of examples that only fill a batch up


def request_inputs(batch: Batch, vocab: Vocab) -> Inputs:
    """Of requests, whose features have the item that came next: one answer each."""
    rows, seconds_ago, lengths = _padded(batch, {"item": vocab.encode_history(batch)})
    targets = torch.from_numpy(vocab.encode(batch.features[vocab.name]))
    asked = (targets >= FIRST) & (torch.from_numpy(batch.weights) > 0)
    return Inputs(rows["item"], seconds_ago, lengths, targets[:, None], asked[:, None])


def sequence_inputs(batch: Batch, vocab: Vocab) -> Inputs:
    """Of whole sequences: each target is asked for at the event before it, and the last one is no input at all."""
    columns = {"item": vocab.encode_history(batch), "target": lw.target_mask(batch).astype(np.int64)}
    rows, seconds_ago, lengths = _padded(batch, columns)
    asked = (rows["target"] > 0) & (rows["item"] >= FIRST)
    first = max(1, int(asked.any(dim=0).long().argmax()))  # nothing precedes the very first event
    before = slice(None, -1)
    return Inputs(
        rows["item"][:, before],
        seconds_ago[:, before],
        (lengths - 1).clamp(min=0),
        rows["item"][:, first:],
        asked[:, first:],
    )


def _padded(batch: Batch, columns: dict[str, np.ndarray]) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Some columns, one row per example, with the events' ages in seconds, and how many events there are."""
    wide = max(2, int(batch.lengths.max(initial=0)))  # never so narrow that there is no place to ask at
    columns = {**columns, "event_ts": batch.values["event_ts"]}
    padded = replace(batch, values=columns, masks={}).to_torch("padded", side="left", max_len=wide)
    request_ts = torch.from_numpy(batch.features["request_ts"].cast(pa.int64()).to_numpy().copy())
    ago = (request_ts[:, None] - padded.values["event_ts"]).clamp(min=0) // MICROSECONDS
    return padded.values, torch.where(padded.present, ago, 0), padded.lengths
