"""SASRec: a small causal transformer (Kang and McAuley, arXiv 1808.09781), with its layers normalised first."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from trainings.hstu import seen
from trainings.inputs import Inputs


class SASRec(nn.Module):
    """Histories to what comes next. Args: items: rows of the embedding table; max_len: of the longest history."""

    def __init__(self, items: int, max_len: int, width: int = 64, layers: int = 2, heads: int = 2) -> None:
        super().__init__()
        self.items, self.max_len = nn.Embedding(items, width, padding_idx=0), max_len
        self.places = nn.Embedding(
            max_len, width
        )  # counted from the newest event: what is old falls out at the far end
        self.layers = nn.ModuleList([SASRecLayer(width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.items.weight, std=width**-0.5)
        nn.init.normal_(self.places.weight, std=width**-0.5)

    def forward(self, inputs: Inputs) -> Tensor:
        """Shapes: → (n, A, width): to be compared with the items' embeddings."""
        at = torch.arange(inputs.items.shape[1], device=inputs.items.device)
        from_newest = (len(at) - 1 - at).clamp(max=self.max_len - 1)
        sequence = self.items(inputs.items) * math.sqrt(self.items.embedding_dim) + self.places(from_newest)
        # an event sees itself always: a row that sees nothing has no softmax
        mask = seen(inputs, len(at), self.max_len) | torch.eye(len(at), dtype=torch.bool, device=at.device)
        for layer in self.layers:
            sequence = layer(sequence, mask)
        return self.norm(sequence[:, -inputs.targets.shape[1] :])


class SASRecLayer(nn.Module):
    """Attention and a feed-forward step, each added to what comes in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.forward_step = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, sequence: Tensor, mask: Tensor) -> Tensor:
        """Shapes: sequence (n, L, width), mask (n, L, L) → (n, L, width)."""
        n, length, width = sequence.shape
        parts = self.qkv(self.norm_attention(sequence)).chunk(3, dim=-1)
        queries, keys, values = (part.view(n, length, self.heads, -1).transpose(1, 2) for part in parts)
        gathered = scaled_dot_product_attention(queries, keys, values, attn_mask=mask[:, None])
        sequence = sequence + self.out(gathered.transpose(1, 2).reshape(n, length, width))
        return sequence + self.forward_step(self.norm_forward(sequence))
