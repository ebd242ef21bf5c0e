"""From batches to what the models take. One path, whoever made the batch: a `Loader`, or a reader of Fat Rows."""

from dataclasses import dataclass, replace

import pyarrow as pa
import torch

from latewood.batch import Batch
from latewood.vocab import Vocab

MICROSECONDS = 1_000_000  # per second


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """n histories, L events wide, oldest first, padding on the right. Units: seconds before the request."""

    items: torch.Tensor  # (n, L) int64: ids of the vocabulary, 0 where there is no event
    seconds_ago: torch.Tensor  # (n, L) float32
    lengths: torch.Tensor  # (n,) int64
    targets: torch.Tensor  # (n,) int64: the item that came next
    weights: torch.Tensor  # (n,) float32: 0 for an example that only fills a batch up


def make_inputs(batch: Batch, item: str, vocab: Vocab, max_len: int) -> Inputs:
    """Pad a batch that has `event_ts` and the trait `item`, whose features have `item` too."""
    ids = {"item": vocab.encode_history(batch), "event_ts": batch.values["event_ts"]}
    padded = replace(batch, values=ids, masks={}).to_torch("padded", max_len=max_len)
    request_ts = torch.from_numpy(batch.features["request_ts"].cast(pa.int64()).to_numpy().copy())
    ago = (request_ts[:, None] - padded.values["event_ts"]).clamp(min=0) / MICROSECONDS
    seconds_ago = torch.where(padded.present, ago, 0).float()
    targets = torch.from_numpy(vocab.encode(batch.features[item]))
    return Inputs(padded.values["item"], seconds_ago, padded.lengths, targets, padded.weights)
