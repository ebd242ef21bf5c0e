"""What all tests of trainings share: one thread, since other tests run beside them, and a small task of real purchases."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # trainings lies beside src, and is not installed


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small_task(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Forty days, and 200 batches of 64 requests."""
    pytest.importorskip("torch")
    from trainings.task import complete_journey

    return complete_journey(tmp_path_factory.mktemp("task"), days=40, train=200 * 64, test=500)
