"""Steps dealt to workers: in turns they give what one loader gives, and each can be resumed."""

import pickle
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import latewood as lw
from numbered_examples import numbered_examples

torch = pytest.importorskip("torch")

from latewood.loading.torch import LoaderDataset  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 finds pytest's threads


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[lw.Store, pa.Table]]:
    with numbered_examples(tmp_path_factory.mktemp("workers") / "store") as made:
        yield made


def make_loader(data: tuple[lw.Store, pa.Table], **options: Any) -> lw.Loader:
    return lw.Loader(*data, lw.Projection(traits=["item"]), **{"batch_size": 4, "seed": 5, "prefetch": 0} | options)


def in_turns(parts: list[list[Any]]) -> list[Any]:
    return [part[i] for i in range(max(map(len, parts))) for part in parts if i < len(part)]


def of(loader: lw.Loader) -> list[list[int]]:
    return [batch.features["number"].to_pylist() for batch in loader]


@pytest.mark.parametrize("workers", [1, 2, 3, 20])
@pytest.mark.parametrize("options", [{}, {"world_size": 2, "rank": 1}, {"remainder": "drop"}], ids=str)
def test_taken_in_turns_they_give_the_loaders_batches(
    data: tuple[lw.Store, pa.Table], workers: int, options: dict[str, Any]
) -> None:
    loader = make_loader(data, **options)
    parts = [loader.deal(worker, workers) for worker in range(workers)]
    found = [of(part) for part in parts]
    assert in_turns(found) == of(loader)
    assert sum(map(len, found)) == len(loader)
    assert [len(part) for part in parts] == [len(own) for own in found]
    assert [of(part) for part in parts] == found  # the next epoch, in the same order


@pytest.mark.parametrize("done", range(13))
def test_each_goes_on_where_it_stood(data: tuple[lw.Store, pa.Table], done: int) -> None:
    whole = of(make_loader(data))
    states, given = [], []
    for worker in range(2):
        part = make_loader(data).deal(worker, 2)
        steps = iter(part)
        given += [next(steps).features["number"].to_pylist() for _ in range((done + 1 - worker) // 2)]
        states.append(part.state_dict())
    left = []
    for worker, state in enumerate(states):
        part = make_loader(data).deal(worker, 2)
        part.load_state_dict(state)
        left += of(part)
    assert sorted(given + left) == sorted(whole)


def test_what_is_dealt_begins_where_the_loader_stood(data: tuple[lw.Store, pa.Table]) -> None:
    loader = make_loader(data)
    steps = iter(loader)
    before = [next(steps).features["number"].to_pylist() for _ in range(3)]
    again = make_loader(data)
    again.load_state_dict(loader.state_dict())
    assert before + in_turns([of(again.deal(worker, 2)) for worker in range(2)]) == of(make_loader(data))


def test_what_was_dealt_can_be_dealt_again(data: tuple[lw.Store, pa.Table]) -> None:
    for worker in range(2):
        part = make_loader(data).deal(worker, 2)
        assert in_turns([of(part.deal(inner, 3)) for inner in range(3)]) == of(make_loader(data))[worker::2]


def test_there_is_no_worker_beyond_the_last(data: tuple[lw.Store, pa.Table]) -> None:
    with pytest.raises(lw.SchemaError, match="worker=2"):
        make_loader(data).deal(2, 2)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataloader_gives_the_loaders_batches_in_order(data: tuple[lw.Store, pa.Table], workers: int) -> None:
    dataset = LoaderDataset(make_loader(data), "padded", max_len=3)
    batches = list(torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=workers))
    assert len(dataset) == len(batches) == 12
    assert [batch.features["number"].tolist() for batch in batches] == of(make_loader(data))
    expected = [batch.to_torch("padded", max_len=3).values["item"].tolist() for batch in make_loader(data)]
    assert [batch.values["item"].tolist() for batch in batches] == expected


def test_what_the_loader_transformed_is_given_as_it_is(data: tuple[lw.Store, pa.Table]) -> None:
    assert list(LoaderDataset(make_loader(data, transform=len))) == [4] * 11 + [3]


def test_a_worker_of_a_dataset_is_resumed_by_its_own_state(
    data: tuple[lw.Store, pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    def be(worker: int, workers: int) -> None:
        info = SimpleNamespace(id=worker, num_workers=workers)
        monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda: info)

    be(1, 2)
    dataset = LoaderDataset(make_loader(data))
    steps = iter(dataset)
    first = [next(steps).features["number"].tolist() for _ in range(2)]
    state = dataset.state_dict()
    other = LoaderDataset(make_loader(data))
    other.load_state_dict(state)
    assert first + [batch.features["number"].tolist() for batch in other] == of(make_loader(data))[1::2]
    be(0, 2)
    with pytest.raises(lw.SchemaError, match="the state is of worker 1 of 2, and this is 0 of 2"):
        other.load_state_dict(state)


@pytest.mark.parametrize("begun", [False, True])
def test_a_worker_that_gave_nothing_yet_has_a_state_of_its_own(
    data: tuple[lw.Store, pa.Table], monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    given: list[list[int]] = []
    for worker in range(2):
        info = SimpleNamespace(id=worker, num_workers=2)
        monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda info=info: info)
        dataset, other = LoaderDataset(make_loader(data)), LoaderDataset(make_loader(data))
        steps = iter(dataset) if begun else None
        other.load_state_dict(dataset.state_dict())
        assert other.state_dict() == dataset.state_dict()
        given += [batch.features["number"].tolist() for batch in other]
        del steps
    assert sorted(given) == sorted(of(make_loader(data)))


@pytest.mark.parametrize("how", ["fork", "spawn", "persistent"])
def test_workers_go_on_from_a_state_once(data: tuple[lw.Store, pa.Table], how: str) -> None:
    loader = make_loader(data)
    steps = iter(loader)
    for _ in range(3):
        next(steps)
    again = make_loader(data)
    again.load_state_dict(loader.state_dict())
    dataset = LoaderDataset(again)
    context = {"persistent_workers": True} if how == "persistent" else {"multiprocessing_context": how}
    batches = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2, **context)

    def epoch() -> list[list[int]]:
        return [batch.features["number"].tolist() for batch in batches]

    whole = of(make_loader(data))
    assert [epoch(), epoch()] == [whole[3:], whole]
    if how != "persistent":  # they hear of nothing
        again.load_state_dict(loader.state_dict())
        dataset.set_epoch(0)
        assert [epoch(), epoch()] == [whole[3:], whole]


def test_without_workers_the_state_is_the_loaders(data: tuple[lw.Store, pa.Table]) -> None:
    dataset = LoaderDataset(make_loader(data))
    steps = iter(dataset)
    first = [next(steps).features["number"].tolist() for _ in range(5)]
    other = LoaderDataset(make_loader(data))
    other.load_state_dict(dataset.state_dict())
    assert first + [batch.features["number"].tolist() for batch in other] == of(make_loader(data))
    with pytest.raises(lw.SchemaError, match="layout 'wide'"):
        LoaderDataset(make_loader(data), "wide")


def test_a_loader_goes_to_another_process(data: tuple[lw.Store, pa.Table], tmp_path: Path) -> None:
    """Examples as a table travel along; as files they are opened anew."""
    path = tmp_path / "examples.parquet"
    pq.write_table(data[1], path)
    for examples in (data[1], str(path)):
        loader = make_loader((data[0], examples), world_size=2, rank=1, order="time")
        steps = iter(loader)
        next(steps)
        state = loader.state_dict()
        loader.load_state_dict(state)
        for one in (loader, loader.deal(1, 3)):
            assert of(pickle.loads(pickle.dumps(one))) == of(one)
    spawned = torch.utils.data.DataLoader(
        LoaderDataset(make_loader(data)), batch_size=None, num_workers=1, multiprocessing_context="spawn"
    )
    assert [batch.features["number"].tolist() for batch in spawned] == of(make_loader(data))


def test_a_loader_is_not_made_anew_of_other_examples(data: tuple[lw.Store, pa.Table], tmp_path: Path) -> None:
    pq.write_table(data[1].slice(0, 20), tmp_path / "a.parquet")
    pickled = pickle.dumps(make_loader((data[0], tmp_path / "*.parquet")))
    assert len(pickle.loads(pickled)) == 5
    pq.write_table(data[1].slice(20), tmp_path / "b.parquet")
    with pytest.raises(lw.SchemaError, match="not the examples that the loader had"):
        pickle.loads(pickled)


def test_a_materializer_goes_to_another_process_with_its_pin(tmp_path: Path) -> None:
    schema = lw.Schema(user_id=pa.int64(), traits=pa.schema([("item", pa.int64())]))
    with lw.Store.create(tmp_path / "store", schema) as store:
        store.append(pa.table({"user_id": [1], "event_ts": [5], "item": [1]}))
        store.compact()
        examples = store.capture(pa.table({"user_id": [1], "request_ts": [store.clock.now()]})).columns
        store.pin("run", timedelta(days=1))
        first = store.generation.id
        store.append(pa.table({"user_id": [1], "event_ts": [6], "item": [2]}))
        store.compact()
        for view, generation in (
            (store.at("run"), first),
            (lw.Store.open(tmp_path / "store", read_only=True), first + 1),
        ):
            copy = pickle.loads(pickle.dumps(view))
            assert (copy.generation.id, copy.read_only) == (generation, True)
            materializer = lw.Materializer(view, lw.Projection(traits=["item"]), on_missing="mask")
            assert pickle.loads(pickle.dumps(materializer))(examples).values["item"].tolist() == [1]
        with pytest.raises(lw.ConflictError, match="open for writing: for another process"):
            pickle.dumps(store)
    with pytest.raises(lw.ConflictError, match="closed"):
        pickle.dumps(store)
