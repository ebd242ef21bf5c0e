"""Training loops of frameworks around the loader: each gets every example once, and goes on where it stopped.

What is not installed is left out: torchdata is among the developer's packages; Lightning and accelerate bring much else.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import latewood as lw
from numbered_examples import REQUESTS, numbered_examples

torch = pytest.importorskip("torch")

from latewood.loading.device import DeviceLoader  # noqa: E402
from latewood.loading.torch import LoaderDataset  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),  # Python 3.12 finds pytest's threads
    pytest.mark.filterwarnings("default:::(lightning|accelerate|torch|torchdata)"),  # their own, which change
]
BATCH = 4
STEPS = -(-REQUESTS // BATCH)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[lw.Store, pa.Table]]:
    with numbered_examples(tmp_path_factory.mktemp("frameworks") / "store") as made:
        yield made


def make_loader(data: tuple[lw.Store, pa.Table], **options: Any) -> lw.Loader:
    return lw.Loader(*data, lw.Projection(traits=["item"]), **{"batch_size": BATCH, "seed": 5} | options)


def numbers(batch: Any) -> list[int]:
    return batch.features["number"].tolist()


def epochs(data: tuple[lw.Store, pa.Table], count: int) -> list[list[list[int]]]:
    """What a loop of one's own would see."""
    loader, found = make_loader(data), []
    for epoch in range(count):
        loader.set_epoch(epoch)
        found.append([batch.features["number"].to_pylist() for batch in loader])
    return found


class TestStatefulDataLoader:
    """torchdata's, whose state is asked of every worker."""

    @pytest.fixture
    def make(self, data: tuple[lw.Store, pa.Table]) -> Any:
        module = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")

        def make(workers: int, **options: Any) -> Any:
            dataset = LoaderDataset(make_loader(data, prefetch=2))
            return module.StatefulDataLoader(dataset, batch_size=None, num_workers=workers, **options)

        return make

    @pytest.mark.parametrize("workers", [0, 2])
    def test_epochs_are_the_loaders(self, make: Any, data: tuple[lw.Store, pa.Table], workers: int) -> None:
        batches = make(workers)
        found = []
        for epoch in range(2):
            batches.dataset.set_epoch(epoch)
            found.append([numbers(batch) for batch in batches])
        assert found == epochs(data, 2)

    @pytest.mark.parametrize(("workers", "done"), [(0, 0), (0, 1), (0, 5), (0, 12), (2, 1), (2, 4), (2, 7), (2, 11)])
    def test_a_state_goes_on_exactly(self, make: Any, data: tuple[lw.Store, pa.Table], workers: int, done: int) -> None:
        whole = epochs(data, 1)[0]
        batches = make(workers)
        steps = iter(batches)
        assert [numbers(next(steps)) for _ in range(done)] == whole[:done]
        state = batches.state_dict()
        again = make(workers)
        again.load_state_dict(state)
        assert [numbers(batch) for batch in again] == whole[done:]
        assert [numbers(batch) for batch in again] == whole  # the next epoch, in the same order until another is set


class TestLightning:
    """The loader itself is what a Trainer iterates, tells epochs, and saves."""

    @pytest.fixture
    def lightning(self) -> Any:
        return pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")

    def fit(self, lightning: Any, loader: Any, folder: Path, ckpt: Path | None = None, **options: Any) -> Any:
        class Model(lightning.LightningModule):  # type: ignore[name-defined,misc]
            def __init__(self) -> None:
                super().__init__()
                self.weight = torch.nn.Parameter(torch.zeros(()))
                self.seen: list[tuple[int, list[int]]] = []

            def training_step(self, batch: Any, index: int) -> Any:
                self.seen.append((self.trainer.current_epoch, numbers(batch)))
                return (self.weight - batch.values["item"].float().mean()) ** 2

            def configure_optimizers(self) -> Any:
                return torch.optim.SGD(self.parameters(), lr=0.01)

        model = Model()
        trainer = lightning.Trainer(
            accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=folder, **{"enable_checkpointing": False} | options,
        )  # fmt: skip
        trainer.fit(model, loader, ckpt_path=ckpt)
        return trainer, model

    @pytest.mark.parametrize("device", [False, True])
    def test_epochs_are_the_loaders(
        self, lightning: Any, data: tuple[lw.Store, pa.Table], tmp_path: Path, device: bool
    ) -> None:
        loader: Any = make_loader(data, transform=None if device else lambda batch: batch.to_torch())
        loader = DeviceLoader(loader, "cpu") if device else loader
        _, model = self.fit(lightning, loader, tmp_path, max_epochs=3)
        assert model.seen == [(i, batch) for i, epoch in enumerate(epochs(data, 3)) for batch in epoch]

    @pytest.mark.parametrize("done", [1, 5, STEPS, STEPS + 3])
    def test_a_checkpoint_goes_on_exactly(
        self, lightning: Any, data: tuple[lw.Store, pa.Table], tmp_path: Path, done: int
    ) -> None:
        def make() -> Any:
            return DeviceLoader(make_loader(data), "cpu")

        class Save(lightning.Callback):  # type: ignore[name-defined,misc]
            def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
                if trainer.global_step == done:
                    trainer.save_checkpoint(tmp_path / "stopped.ckpt")

        _, first = self.fit(lightning, make(), tmp_path, max_epochs=2, callbacks=[Save()])
        _, rest = self.fit(lightning, make(), tmp_path, tmp_path / "stopped.ckpt", max_epochs=2)
        whole = [(i, batch) for i, epoch in enumerate(epochs(data, 2)) for batch in epoch]
        assert first.seen == whole
        assert rest.seen == whole[done:]


class TestAccelerate:
    """Its processes are the loader's ranks; what it has to know of the loader is how to save it."""

    @pytest.fixture
    def accelerate(self) -> Any:
        return pytest.importorskip("accelerate", reason="accelerate is not installed")

    def test_a_checkpoint_goes_on_exactly(
        self, accelerate: Any, data: tuple[lw.Store, pa.Table], tmp_path: Path
    ) -> None:
        def make() -> tuple[Any, Any]:
            accelerator = accelerate.Accelerator(cpu=True)
            ranks = {"rank": accelerator.process_index, "world_size": accelerator.num_processes}
            batches = DeviceLoader(make_loader(data, **ranks), accelerator.device)
            accelerator.register_for_checkpointing(batches)
            return accelerator, batches

        accelerator, batches = make()
        whole, seen = epochs(data, 1)[0], []
        for batch in batches:
            seen.append(numbers(batch))
            if len(seen) == 5:
                break
        accelerator.save_state(str(tmp_path / "state"))
        accelerator, again = make()
        accelerator.load_state(str(tmp_path / "state"))
        assert seen + [numbers(batch) for batch in again] == whole

    def test_a_prepared_dataloader_gives_epochs_of_their_own_order(
        self, accelerate: Any, data: tuple[lw.Store, pa.Table]
    ) -> None:
        """In one process only: of several each would take a part of what is its part already."""
        configuration = accelerate.utils.DataLoaderConfiguration(dispatch_batches=False)
        accelerator = accelerate.Accelerator(cpu=True, dataloader_config=configuration)
        dataset = LoaderDataset(make_loader(data))
        batches = accelerator.prepare(torch.utils.data.DataLoader(dataset, batch_size=None))
        assert [[numbers(batch) for batch in batches] for _ in range(2)] == epochs(data, 2)
