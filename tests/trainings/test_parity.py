"""A training fed from latewood has the loss of one fed from Fat Rows, at every step and bit for bit."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parents[2]))  # trainings lies beside src, and is not installed

from trainings.parity import compare  # noqa: E402
from trainings.task import Task, complete_journey  # noqa: E402

STEPS = 200


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Other tests run beside these."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return complete_journey(tmp_path_factory.mktemp("task"), days=40, train=STEPS * 64, test=100)


@pytest.mark.parametrize("model", ["hstu", "sasrec"])
def test_the_losses_are_the_same_to_the_last_bit(task: Task, tmp_path: Path, model: str) -> None:
    parity = compare(task, tmp_path, model, max_len=48, steps=STEPS, width=16, layers=1)
    assert len(parity.latewood) == STEPS
    assert parity.different == 0
    assert sum(parity.latewood[-20:]) < sum(parity.latewood[:20])  # it does learn


def test_a_single_missing_event_shows_in_the_loss(task: Task, tmp_path: Path) -> None:
    """What the comparison is worth: the Fat Rows lack one event, which the earliest request saw."""
    users = task.events["user_id"].to_numpy()
    oldest = np.flatnonzero(users == task.requests["user_id"][0].as_py())[0]
    fewer = task.events.filter(pa.array(np.arange(len(users)) != oldest))
    parity = compare(replace(task, events=fewer), tmp_path, "sasrec", max_len=48, steps=STEPS, width=16, layers=1)
    assert parity.different > 0
