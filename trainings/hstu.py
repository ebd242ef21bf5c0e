"""HSTU: pointwise aggregated attention with a relative bias of positions and times (Zhai et al., arXiv 2402.17152)."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from trainings.inputs import Inputs

TIME_BUCKETS = 64


class HSTU(nn.Module):
    """Histories to what comes next. Args: items: rows of the embedding table; max_len: of the longest history."""

    def __init__(self, items: int, max_len: int, width: int = 64, layers: int = 2, heads: int = 2) -> None:
        super().__init__()
        self.items = nn.Embedding(items, width, padding_idx=0)
        self.layers = nn.ModuleList([HSTULayer(max_len, width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.items.weight, std=width**-0.5)

    def forward(self, inputs: Inputs) -> Tensor:
        """Shapes: → (n, width): to be compared with the items' embeddings."""
        sequence = self.items(inputs.items) * math.sqrt(self.items.embedding_dim)
        mask, buckets = causal_mask(inputs), time_buckets(inputs.seconds_ago)
        for layer in self.layers:
            sequence = sequence + layer(sequence, mask, buckets)
        return newest(self.norm(sequence), inputs.lengths)


class HSTULayer(nn.Module):
    """One layer: every event gathers from those before it, without a softmax, so that how many there are counts."""

    def __init__(self, max_len: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.max_len = heads, max_len
        self.norm_in, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.uvqk, self.out = nn.Linear(width, 4 * width), nn.Linear(width, width)
        self.position_bias = nn.Parameter(torch.zeros(max_len))  # by how many places apart
        self.time_bias = nn.Parameter(torch.zeros(TIME_BUCKETS))

    def forward(self, sequence: Tensor, mask: Tensor, buckets: Tensor) -> Tensor:
        """Shapes: sequence (n, L, width), mask and buckets (n, L, L) → (n, L, width)."""
        n, length, width = sequence.shape
        gate, *vqk = silu(self.uvqk(self.norm_in(sequence))).chunk(4, dim=-1)
        values, queries, keys = (part.view(n, length, self.heads, -1).transpose(1, 2) for part in vqk)
        places = torch.arange(length, device=sequence.device)
        apart = (places[:, None] - places).clamp(min=0)
        bias = self.position_bias[apart] + self.time_bias[buckets]
        scores = silu(queries @ keys.transpose(2, 3) + bias[:, None]) / self.max_len
        gathered = (scores * mask[:, None]) @ values
        gathered = gathered.transpose(1, 2).reshape(n, length, width)
        return self.out(self.norm_out(gathered) * gate)


def causal_mask(inputs: Inputs) -> Tensor:
    """Which events see which: those that are not after them. Shapes: → (n, L, L) bool, [:, i, j]: i sees j."""
    places = torch.arange(inputs.items.shape[1], device=inputs.items.device)
    return (places[:, None] >= places) & (places < inputs.lengths[:, None, None])


def time_buckets(seconds_ago: Tensor) -> Tensor:
    """How long before one event another happened, on a logarithmic scale. Shapes: (n, L) → (n, L, L) int64."""
    apart = (seconds_ago[:, None, :] - seconds_ago[:, :, None]).clamp(min=1)
    return (2 * torch.log2(apart)).long().clamp(max=TIME_BUCKETS - 1)


def newest(sequence: Tensor, lengths: Tensor) -> Tensor:
    """What a model says at the newest event; of no events, at the padding. Shapes: (n, L, width) → (n, width)."""
    rows = torch.arange(len(lengths), device=sequence.device)
    return sequence[rows, (lengths - 1).clamp(min=0)]
