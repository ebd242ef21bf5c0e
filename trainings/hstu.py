"""HSTU: pointwise aggregated attention with a relative bias of positions and times (Zhai et al., arXiv 2402.17152).

An event sees itself and the `max_len - 1` events before it. So a model of one layer says the same of a history whether it
is given as a request, cut to `max_len` events, or as a part of a longer sequence.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from trainings.inputs import Inputs

TIME_BUCKETS = 64


class HSTU(nn.Module):
    """Histories to what comes next. Args: items: rows of the embedding table; max_len: how many events one sees."""

    def __init__(self, items: int, max_len: int, width: int = 64, layers: int = 2, heads: int = 2) -> None:
        super().__init__()
        self.items, self.max_len = nn.Embedding(items, width, padding_idx=0), max_len
        self.layers = nn.ModuleList([HSTULayer(max_len, width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.items.weight, std=width**-0.5)

    def forward(self, inputs: Inputs) -> Tensor:
        """Shapes: → (n, A, width): to be compared with the items' embeddings."""
        sequence = self.items(inputs.items) * math.sqrt(self.items.embedding_dim)
        asked, rows = inputs.targets.shape[1], sequence.shape[1]
        needed = asked if len(self.layers) == 1 else rows  # only of the last layer are the last places enough
        mask, buckets = seen(inputs, needed, self.max_len), time_buckets(inputs.seconds_ago, needed)
        for layer in self.layers[:-1]:
            sequence = sequence + layer(sequence, mask, buckets)
        last = self.layers[-1](sequence, mask[:, -asked:], buckets[:, -asked:])
        return self.norm(sequence[:, -asked:] + last)


class HSTULayer(nn.Module):
    """One layer: every event gathers from those before it, without a softmax, so that how many there are counts."""

    def __init__(self, max_len: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.max_len = heads, max_len
        self.norm_in, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.uq, self.vk, self.out = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.position_bias = nn.Parameter(torch.zeros(max_len))  # by how many places apart
        self.time_bias = nn.Parameter(torch.zeros(TIME_BUCKETS))

    def forward(self, sequence: Tensor, mask: Tensor, buckets: Tensor) -> Tensor:
        """Shapes: sequence (n, L, width), mask and buckets (n, A, L) → (n, A, width), at the last A places."""
        (n, length, width), asked = sequence.shape, mask.shape[1]
        normed = self.norm_in(sequence)
        gate, queries = silu(self.uq(normed[:, -asked:])).chunk(2, dim=-1)
        values, keys = silu(self.vk(normed)).chunk(2, dim=-1)
        queries, values, keys = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (queries, values, keys)
        )
        bias = self.position_bias[places_apart(asked, length, self.max_len)] + self.time_bias[buckets]
        scores = silu(queries @ keys.transpose(2, 3) + bias[:, None]) / self.max_len
        gathered = (scores * mask[:, None]) @ values
        gathered = gathered.transpose(1, 2).reshape(n, asked, width)
        return self.out(self.norm_out(gathered) * gate)


def places_apart(asked: int, length: int, max_len: int) -> Tensor:
    """How many places before each of the last `asked` events every event is. Shapes: → (asked, length), in [0, max_len)."""
    places = torch.arange(length)
    return (places[length - asked :, None] - places).clamp(0, max_len - 1)


def seen(inputs: Inputs, asked: int, max_len: int) -> Tensor:
    """Which events each of the last `asked` sees. Shapes: → (n, asked, L) bool, [:, i, j]: i sees j."""
    length = inputs.items.shape[1]
    places = torch.arange(length)
    apart = places[length - asked :, None] - places
    return (apart >= 0) & (apart < max_len) & (places >= length - inputs.lengths[:, None, None])


def time_buckets(seconds_ago: Tensor, asked: int) -> Tensor:
    """How long before each of the last `asked` events others were, on a logarithmic scale. Shapes: → (n, asked, L)."""
    apart = (seconds_ago[:, None, :] - seconds_ago[:, -asked:, None]).clamp(min=1)
    return (2 * torch.log2(apart.float())).long().clamp(max=TIME_BUCKETS - 1)
