"""Training steps, and what they are judged by."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from latewood.vocab import Vocab
from trainings.hstu import HSTU
from trainings.inputs import FIRST, Inputs
from trainings.sasrec import SASRec

MODELS: dict[str, type[nn.Module]] = {"hstu": HSTU, "sasrec": SASRec}
TOP = 10


def make_model(name: str, items: int, max_len: int, seed: int = 0, **sizes: int) -> nn.Module:
    """A model with weights drawn by the seed."""
    torch.manual_seed(seed)
    return MODELS[name](items, max_len, **sizes)


class Loss(Protocol):
    """What a step makes smaller. Shapes: (t, width) answers, (items, width) embeddings, (t,) targets → (t,) nats."""

    def __call__(self, answers: Tensor, embeddings: Tensor, targets: Tensor) -> Tensor: ...


def over_all_items(answers: Tensor, embeddings: Tensor, targets: Tensor) -> Tensor:
    """The cross entropy over all items; the first two ids, which are none, are left out."""
    return cross_entropy(answers @ embeddings[FIRST:].T, targets - FIRST, reduction="none")


class OverSomeItems:
    """The same over a few items drawn anew at each step, as sampled softmax has it: for answers by the thousand.

    An item is drawn by about its frequency, which its id tells, since ids count by falling frequency. Each drawn one counts
    for as many as its like are drawn too seldom, so that the sum over them estimates the sum over all.
    """

    def __init__(self, items: int, count: int = 1024, seed: int = 0) -> None:
        self.drawable, self.count = items - FIRST, count
        self._random = torch.Generator().manual_seed(seed)

    def __call__(self, answers: Tensor, embeddings: Tensor, targets: Tensor) -> Tensor:
        places = torch.rand(self.count, generator=self._random) * math.log(self.drawable + 1)
        drawn = (places.exp().long() - 1).clamp(max=self.drawable - 1) + FIRST
        right = (answers * embeddings[targets]).sum(dim=1)
        wrong = answers @ embeddings[drawn].T - self._expected(drawn)
        wrong = wrong.masked_fill(targets[:, None] == drawn, -math.inf)
        scores = torch.cat([right[:, None], wrong], dim=1)
        return cross_entropy(scores, torch.zeros_like(targets), reduction="none")

    def _expected(self, ids: Tensor) -> Tensor:
        """The logarithm of how often each id is drawn in a step."""
        place = (ids - FIRST).float()
        return torch.log(self.count * torch.log1p(1 / (place + 1)) / math.log(self.drawable + 1))


def train(
    model: nn.Module,
    batches: Iterable[Inputs],
    loss: Loss = over_all_items,
    learning_rate: float = 1e-3,
    steps: int | None = None,
) -> Iterator[float]:
    """One optimiser's run over some batches. Args: steps: the rate falls to 0 over so many; None: it stays.

    Yields: the loss of each step: nats per answer.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)
    for step, inputs in enumerate(batches):
        if steps is not None:
            optimizer.param_groups[0]["lr"] = learning_rate * max(0.0, 1 - step / steps)
        nats = loss(model(inputs)[inputs.asked], model.items.weight, inputs.targets[inputs.asked])
        mean = nats.sum() / max(len(nats), 1)
        optimizer.zero_grad(set_to_none=True)
        mean.backward()
        optimizer.step()
        yield mean.item()


@dataclass(frozen=True, slots=True)
class Judged:
    """Answers held against what came next. Shapes: (t,) each."""

    rank: NDArray[np.int64]  # how many items score at least as well as the right one: a constant is no prediction
    nats: NDArray[np.float64]  # cross entropy over all items
    base_nats: NDArray[np.float64]  # of a prediction that knows no history, only how frequent each item is

    def of(self, chosen: NDArray[np.bool_]) -> "Judged":
        """Some of them."""
        return Judged(self.rank[chosen], self.nats[chosen], self.base_nats[chosen])

    @classmethod
    def concatenate(cls, parts: Sequence["Judged"]) -> "Judged":
        """All of some parts."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__))


@torch.no_grad()
def judge(model: nn.Module, inputs: Inputs, vocab: Vocab) -> Judged:
    """Rank all items for each answer that counts."""
    targets = inputs.targets[inputs.asked]
    scores = model(inputs)[inputs.asked] @ model.items.weight[FIRST:].T
    right = scores.gather(1, targets[:, None] - FIRST)
    rank = (scores >= right).sum(dim=1) - 1
    nats = torch.logsumexp(scores, dim=1) - right[:, 0]
    return Judged(rank.numpy(), nats.double().numpy(), _nats_of_shares(vocab, targets))


def judge_popularity(targets: NDArray[np.int64], vocab: Vocab) -> Judged:
    """What is to be beaten: every history gets the most frequent items. Args: targets: ids, (t,)."""
    nats = _nats_of_shares(vocab, torch.from_numpy(targets))
    return Judged(targets - FIRST, nats, nats)


def _nats_of_shares(vocab: Vocab, targets: Tensor) -> NDArray[np.float64]:
    shares = vocab.counts / vocab.counts.sum()
    nats: NDArray[np.float64] = -np.log(shares)[targets.numpy() - FIRST]
    return nats


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over answers.

    recall: the next item is among the best TOP. ndcg: how high. auc: the share of other items that score below it.
    normalized_entropy: cross entropy, over that of knowing only how frequent each item is; 1 is no better than that.
    """

    recall: float
    ndcg: float
    auc: float
    normalized_entropy: float
    nats: float
    answers: int

    @classmethod
    def of(cls, judged: Judged, items: int) -> "Quality":
        """Args: items: how many there are."""
        rank, top = judged.rank, judged.rank < TOP
        return cls(
            float(top.mean()),
            float((top / np.log2(rank + 2.0)).mean()),
            float(1 - rank.mean() / (items - 1)),
            float(judged.nats.mean() / judged.base_nats.mean()),
            float(judged.nats.mean()),
            len(rank),
        )
