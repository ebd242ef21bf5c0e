"""A training fed from latewood has the loss of one fed from Fat Rows, at every step and bit for bit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("torch")

from trainings.parity import compare
from trainings.task import Task

STEPS = 200


@pytest.mark.parametrize("model", ["hstu", "sasrec"])
def test_the_losses_are_the_same_to_the_last_bit(small_task: Task, tmp_path: Path, model: str) -> None:
    parity = compare(small_task, tmp_path, model, max_len=48, width=16, layers=1)
    assert len(parity.latewood) == STEPS
    assert parity.different == 0
    assert sum(parity.latewood[-20:]) < sum(parity.latewood[:20])  # it does learn


def test_a_single_missing_event_shows_in_the_loss(small_task: Task, tmp_path: Path) -> None:
    """What the comparison is worth: the Fat Rows lack one event, which the earliest request saw."""
    users = small_task.events["user_id"].to_numpy()
    oldest = np.flatnonzero(users == small_task.requests["user_id"][0].as_py())[0]
    fewer = small_task.events.filter(pa.array(np.arange(len(users)) != oldest))
    parity = compare(replace(small_task, events=fewer), tmp_path, "sasrec", max_len=48, width=16, layers=1)
    assert parity.different > 0
