"""The models, their losses and what they are judged by."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

pytest.importorskip("torch")

import torch
from trainings.inputs import FIRST, Inputs, request_inputs, sequence_inputs
from trainings.task import Task
from trainings.train import Judged, OverSomeItems, Quality, judge, judge_popularity, make_model, over_all_items, train
from trainings.training import Options, projection, run

import latewood as lw
from latewood.vocab import Vocab

LENGTH, CHUNK = 8, 5


def test_a_target_gets_the_answer_of_a_request_in_its_place(small_task: Task) -> None:
    """One layer of HSTU, over chunks and over requests of the same events: law 2, seen through a model."""
    torch.manual_seed(1)
    model = make_model("hstu", len(small_task.vocab), LENGTH, layers=1, width=16)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # so that biases count as well
    requests = small_task.requests.filter(
        pc.less(small_task.requests["request_ts"].cast(pa.int64()), small_task.begins)
    )
    users = requests["user_id"].unique()[:20]
    requests = requests.filter(pc.is_in(requests["user_id"], users))
    examples = lw.sequences(small_task.store, (0, small_task.begins), chunk=CHUNK, min_history=1)
    examples = examples.filter(pc.is_in(examples["user_id"], users))

    batch = lw.Materializer(small_task.store, projection(small_task, LENGTH + CHUNK))(examples)
    inputs = sequence_inputs(batch, small_task.vocab)
    with torch.no_grad():
        answers = model(inputs)[inputs.asked].numpy()
    of_sequences = dict(zip(_targets(small_task, batch), answers, strict=True))

    alone = lw.backfill(small_task.store, requests)
    batch = lw.Materializer(small_task.store, projection(small_task, LENGTH))(alone)
    inputs = request_inputs(batch, small_task.vocab)
    with torch.no_grad():
        answers = model(inputs)[:, 0].numpy()
    assert len(alone) > 100
    names = ("user_id", "request_ts", small_task.item)
    keys = zip(*(batch.features[name].cast(pa.int64()).to_pylist() for name in names), strict=True)
    compared = 0
    for key, answer in zip(keys, answers, strict=True):
        if key in of_sequences:  # not where a basket has the same product twice
            np.testing.assert_allclose(answer, of_sequences[key], rtol=1e-4, atol=1e-4)
            compared += 1
    assert compared > 100


def _targets(task: Task, batch: lw.Batch) -> list[tuple[int, int, int]]:
    """User, time and item of each target that is asked for, in order; one that is there twice is spoilt."""
    known = task.vocab.encode_history(batch) >= FIRST
    chosen = lw.target_mask(batch) & known
    users = np.repeat(batch.features["user_id"].to_numpy(), batch.lengths)
    columns = (users, batch.values["event_ts"], batch.values[task.item])
    keys = list(zip(*(column[chosen].tolist() for column in columns), strict=True))
    once = {key for key in keys if keys.count(key) == 1}
    return [key if key in once else (-1, -1, i) for i, key in enumerate(keys)]


def test_padding_and_company_change_nothing(small_task: Task) -> None:
    batch = lw.Materializer(small_task.store, projection(small_task, 32))(small_task.test.slice(0, 20))
    for name in ("hstu", "sasrec"):
        model = make_model(name, len(small_task.vocab), 32, width=16)
        with torch.no_grad():
            together = model(request_inputs(batch, small_task.vocab))
            for i in range(20):
                alone = model(request_inputs(batch.slice(i, i + 1), small_task.vocab))
                torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-5)


def test_sampled_items_estimate_the_loss_over_all() -> None:
    torch.manual_seed(0)
    embeddings, answers = torch.randn(102, 8), torch.randn(40, 8)
    targets = torch.randint(FIRST, 102, (40,))
    some = OverSomeItems(102, count=20_000)
    ids = torch.arange(FIRST, 102)
    assert math.isclose(float(some._expected(ids).exp().sum()), 20_000, rel_tol=1e-5)
    exact = over_all_items(answers, embeddings, targets)
    torch.testing.assert_close(some(answers, embeddings, targets), exact, rtol=0.05, atol=0.05)


def test_quality_of_known_ranks() -> None:
    judged = Judged(np.array([0, 1, 9, 10]), np.array([1.0, 1.0, 1.0, 1.0]), np.array([2.0, 2.0, 2.0, 2.0]))
    quality = Quality.of(judged, items=21)
    assert quality.recall == 0.75
    assert math.isclose(quality.ndcg, (1 + 1 / math.log2(3) + 1 / math.log2(11)) / 4)
    assert math.isclose(quality.auc, 1 - (0 + 1 + 9 + 10) / 4 / 20)
    assert (quality.normalized_entropy, quality.answers) == (0.5, 4)


def test_popularity_ranks_by_frequency_and_has_a_normalized_entropy_of_one() -> None:
    vocab = Vocab("item", pa.array([7, 8, 9]), np.array([6, 3, 1]))
    judged = judge_popularity(vocab.encode(pa.array([7, 9])), vocab)
    assert judged.rank.tolist() == [0, 2]
    assert Quality.of(judged, 3).normalized_entropy == 1
    np.testing.assert_allclose(judged.nats, -np.log([0.6, 0.1]))


def test_a_constant_is_no_prediction() -> None:
    vocab = Vocab("item", pa.array([7, 8, 9]), np.array([6, 3, 1]))
    model = make_model("hstu", len(vocab), 4, width=4)
    torch.nn.init.zeros_(model.items.weight)
    ids = torch.full((2, 4), FIRST)
    inputs = Inputs(
        ids, torch.zeros_like(ids), torch.tensor([4, 4]), torch.tensor([[2], [4]]), torch.ones(2, 1, dtype=bool)
    )
    assert judge(model, inputs, vocab).rank.tolist() == [2, 2]


@pytest.mark.parametrize("model", ["hstu", "sasrec"])
def test_trained_on_whole_sequences_it_learns(small_task: Task, model: str) -> None:
    options = Options("completejourney", model, 32, 0, 1, batch_size=16, learning_rate=3e-3, sequences=True)
    result = run(small_task, options)
    assert result["answers"] == len(small_task.test)
    assert result["auc"] > 0.7  # of nothing learned, 0.5
    assert 0 <= result["starvation"] < 1


def test_nothing_that_is_trained_on_lies_in_the_test_period(small_task: Task) -> None:
    examples = small_task.sequences(CHUNK)
    batch = lw.Materializer(small_task.store, projection(small_task, None))(examples)
    assert batch.values["event_ts"].max() < small_task.begins
    times = (
        small_task.train["request_ts"].cast(pa.int64()).to_numpy(),
        small_task.test["request_ts"].cast(pa.int64()).to_numpy(),
    )
    assert times[0].max() < small_task.begins <= times[1].min()


def test_a_batch_in_which_nothing_is_asked_teaches_nothing() -> None:
    model = make_model("hstu", 5, 4, width=4)
    ids = torch.full((1, 4), FIRST)
    nothing = Inputs(ids, torch.zeros_like(ids), torch.tensor([4]), torch.tensor([[2]]), torch.zeros(1, 1, dtype=bool))
    assert list(train(model, [nothing])) == [0.0]
