"""Quality against length: what is measured is not measured again, and the page says what the figures say."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from trainings.lengths import Cell, measure
from trainings.results import Results
from trainings.task import Task, complete_journey

from trainings import document

CELLS = [
    Cell("completejourney", length, seed, 200, 1, batch_size=64, learning_rate=3e-2)
    for seed in (0, 1)
    for length in (4, 16)
]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "trainings" / "lengths.json"
    task = complete_journey(tmp_path_factory.mktemp("task"), days=15, train=1, test=200)
    results = measure({"completejourney": lambda: task}, CELLS, Results(path))
    assert next(iter(results))["key"]["length"] == 4  # and there it is stopped
    assert len(json.loads(path.read_text())["lengths"]) == 1
    rest = list(measure({"completejourney": lambda: task}, CELLS, Results(path)))
    assert [(cell["key"]["length"], cell["key"]["seed"]) for cell in rest] == [(16, 0), (4, 1), (16, 1)]
    return path


def test_a_finished_grid_needs_no_data(path: Path) -> None:
    def make() -> Task:
        raise AssertionError("the task was made")

    assert list(measure({"completejourney": make}, CELLS, Results(path))) == []


def test_other_lengths_have_the_same_steps_and_tests_and_other_results(path: Path) -> None:
    cells = Results(path).of("lengths")
    assert len({cell["steps"] for cell in cells}) == 1
    assert {cell["all"]["answers"] for cell in cells} == {200}
    assert len({cell["all"]["nats"] for cell in cells}) == len(cells)
    assert all(cell["all"]["auc"] > 0.55 for cell in cells)  # of nothing learned, 0.5


def test_the_page_has_a_row_for_each_length_and_a_figure(path: Path) -> None:
    page = path.parents[1] / "trainings.md"
    key = {"data": "completejourney", "model": "hstu", "length": 64, "examples": 128}
    parity = {"compared": 2, "different": 0, "events": 9, "first_loss": 2.0, "last_loss": 1.0}
    Results(path.with_name("parity.json")).put("parity", key, parity)
    document.main([str(page)])
    text = page.read_text()
    recalls = [cell["all"]["recall"] for cell in Results(path).of("lengths") if cell["key"]["length"] == 16]
    assert f"| 16 | 2 | {sum(recalls) / 2:.4f} ± " in text
    assert "4 to 16" in text
    assert "of 2 seeds" in text
    assert "| hstu | completejourney | 64 | 128 | 2 | 9 | 2.0000 to 1.0000 | **0** |" in text
    figure = (page.with_suffix("") / "completejourney.svg").read_text()
    assert figure.count("<circle") == 2
    assert "recall@10" in figure


def test_entries_are_replaced_by_key_and_survive_an_unfinished_write(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results = Results(path)
    results.put("lengths", {"seed": 0}, {"recall": 1})
    results.put("lengths", {"seed": 0}, {"recall": 2})
    path.with_suffix(".unfinished").write_text("{")
    assert Results(path).find("lengths", {"seed": 0}) == {"key": {"seed": 0}, "recall": 2}
    assert Results(path).find("lengths", {"seed": 1}) is None
    assert Results(None).of("lengths") == []
