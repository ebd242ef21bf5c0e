"""Training steps and what they are judged by."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from latewood.vocab import UNKNOWN
from trainings.hstu import HSTU
from trainings.inputs import Inputs
from trainings.sasrec import SASRec

MODELS: dict[str, type[nn.Module]] = {"hstu": HSTU, "sasrec": SASRec}
TOP = 10
FIRST = UNKNOWN + 1  # the first id that is an item


def make_model(name: str, items: int, max_len: int, seed: int = 0, **sizes: int) -> nn.Module:
    """A model with weights drawn by the seed."""
    torch.manual_seed(seed)
    return MODELS[name](items, max_len, **sizes)


def train(model: nn.Module, batches: Iterable[Inputs], learning_rate: float = 1e-3) -> Iterator[float]:
    """One optimiser's run over some batches. Yields: the loss of each step: nats per example, over all items."""
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    for inputs in batches:
        _, nats = score(model, inputs)
        loss = (nats * inputs.weights).sum() / inputs.weights.sum().clamp(min=1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        yield loss.item()


def score(model: nn.Module, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Shapes: → (n, items): how well each item fits, the first two ids left out, which are none; (n,): cross entropy."""
    scores = model(inputs) @ model.items.weight[FIRST:].T
    return scores, cross_entropy(scores, inputs.targets - FIRST, reduction="none")


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over examples. `recall`: the next item is among the best TOP; `ndcg`: how high; `nats`: cross entropy."""

    recall: float
    ndcg: float
    nats: float
    examples: int


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[Inputs]) -> Quality:
    """Rank all items for each example. Those that score alike rank above the right one: a constant is no prediction."""
    recall = ndcg = nats = count = 0.0
    for inputs in batches:
        scores, each = score(model, inputs)
        rank = (scores >= scores.gather(1, inputs.targets[:, None] - FIRST)).sum(dim=1) - 1
        top = (rank < TOP) * inputs.weights
        recall += float(top.sum())
        ndcg += float((top / torch.log2(rank + 2.0)).sum())
        nats += float((each * inputs.weights).sum())
        count += float(inputs.weights.sum())
    return Quality(recall / count, ndcg / count, nats / count, int(count))
