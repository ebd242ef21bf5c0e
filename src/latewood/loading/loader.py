"""The loader: what a trainer iterates. See the package for the stages it joins."""

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from latewood.batch import Batch, count_of
from latewood.columns import times_from_arrow
from latewood.errors import SchemaError
from latewood.examples import open_examples
from latewood.loading.making import BatchMaker, Delivery
from latewood.loading.order import order_of
from latewood.loading.prefetch import Prefetch
from latewood.loading.state import LoaderState
from latewood.loading.stats import COPY, LoaderStats, Meter
from latewood.loading.steps import Share, SizedSteps, Steps, at_least_one, whole
from latewood.loading.tokens import TokenSteps, tokens_of
from latewood.materialize import Materializer, MaterializeStore, Verify, require_store, schema_for
from latewood.projection import Projection
from latewood.schema import EVENT_TS

BATCH_SIZE = 512
WINDOW = 16_384  # 32 batches of 512: a few MB of examples
AHEAD_BYTES = 32 << 20


@dataclass(slots=True)
class _Place:
    """How far an iterator got: the state of a run is that of the newest one."""

    epoch: int
    position: int


class Loader:
    """Batches of one tenant's histories, in a seeded order, made ahead of the trainer.

    It is iterated directly (`for batch in loader`) and stands in the place of a `torch.utils.data.DataLoader`, rather
    than being passed to one: it batches, shuffles and prefetches by itself, and has no `__getitem__`.
    Iterating gives the current epoch from its start, or, once after `load_state_dict`, from where the state was
    saved. The order does not change from epoch to epoch unless `set_epoch` is called.

    Args:
        store: trainers open it with `read_only=True`.
        examples: whatever `latewood.examples.open_examples` takes: paths, globs, directories, datasets, tables.
        projection: what to see of every history.
        batch_size: examples per batch and rank, 512 unless `batch_tokens` is given; the last batch may be shorter.
        batch_tokens: instead, as many examples as have at most so many events, per batch and rank; with `batch_size`, at
            most so many of either. A history that is longer is a batch of its own, and one that is empty counts as one
            event. How long histories are is read from the log, once; the parts of ranks are as even as can be.
        order: "shuffle", "user" (the log's own) or "time".
        rank, world_size: this trainer's part. All ranks make equally many steps.
        prefetch: batches made ahead, in a thread; 0 for none. Large ones are made ahead only as far as they fit 32 MiB, at
            least one: a trainer that is slower than the loader holds two of them in memory, and not all.
        on_missing: "raise", or "mask": an example whose history cannot be had keeps its place, empty, with weight 0.
        verify: check blocks of the store once (True), never (False), or whenever they are decoded ("always"), as
            `Materializer` does.
        remainder: "pad" fills the last step up with examples of weight 0; "drop" leaves an incomplete step out.
        window: so many examples are mixed with each other by "shuffle", and read at a time. Where that is less work, what
            they share is decoded once, however they are mixed, as far as it and five batches fit 512 MiB: a smaller window
            needs less memory, a larger one makes batches more independent.
        transform: applied to every batch, in the thread; what it returns is what the loader gives.
        shared: give `SharedBatch`es, in which what several examples see is there once: for many examples per user.
    Raises: SchemaError: an argument that makes no sense, no examples, or ones that lack a column. ConflictError: the
        store is closed.
    """

    def __init__(
        self,
        store: MaterializeStore,
        examples: Any,
        projection: Projection,
        *,
        batch_size: int | None = None,
        batch_tokens: int | None = None,
        seed: int = 0,
        order: str = "shuffle",
        rank: int = 0,
        world_size: int = 1,
        prefetch: int = 4,
        on_missing: Literal["raise", "mask"] = "raise",
        verify: Verify = True,
        remainder: str = "pad",
        window: int = WINDOW,
        transform: Callable[[Any], Any] | None = None,
        shared: bool = False,
    ) -> None:
        seed, window, prefetch = whole("seed", seed), whole("window", window), whole("prefetch", prefetch)
        if window < 1 or prefetch < 0:
            raise SchemaError(f"window={window} must be at least 1 and prefetch={prefetch} at least 0")
        require_store(store, projection)
        store.reader()  # a store that is closed, or cannot be read, is an error now rather than in the first batch
        if batch_size is not None:
            batch_size = at_least_one("batch_size", batch_size)
        if batch_tokens is not None:
            batch_tokens = at_least_one("batch_tokens", batch_tokens)
        self._share, self._batch_size, self._batch_tokens = Share(rank, world_size, remainder), batch_size, batch_tokens
        self._prefetch, self._window, self._transform, self._shared = prefetch, window, transform, shared
        if shared and projection.kinds:
            raise SchemaError("shared=True: a shared batch has no streams, whose events do not lie side by side")
        schema = schema_for(store, projection)
        wanted = {schema[name].label for name in projection.needs(schema) if name != EVENT_TS}
        unread = {trait.label for trait in schema if trait.label not in wanted}
        self.source = open_examples(examples, without=[f"recent.{label}" for label in unread])
        self.source.require(["user_id", "uih", "recent", "cutoff"])
        self._order = order_of(order, self.source.offsets, self._request_times, seed, window)
        self._settings = LoaderState(0, 0, seed, order, window, len(self.source), "")
        self.materializer = Materializer(store, projection, on_missing=on_missing, verify=verify, unread=unread)
        self._made_of = store, examples, projection, {"on_missing": on_missing, "verify": verify}
        self._tokens = np.empty(0, np.int64)  # of each example
        if batch_tokens is not None:
            self._tokens = tokens_of(self.source.event_counts(), projection, batch_tokens)
        self._newest_steps: tuple[int, Steps] | None = None  # the newest epoch that was asked for, and its steps
        self._skipped = 0  # steps of an epoch that come before this loader's first
        self._place, self._resume, self._meter = _Place(0, 0), False, Meter()
        self.restored = 0  # how many states it was given
        self._changes = 0  # how often it was told where to begin

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens store and examples anew, and begins where this one would go on if it began now.

        It refuses, with a SchemaError, if the examples are others by then, as a folder's are once a file has come.
        """
        settings = {name: getattr(self._settings, name) for name in ("seed", "order", "window")}
        of = self._share
        settings |= {name: getattr(of, name) for name in ("rank", "world_size", "remainder")}
        settings |= {"batch_size": self._batch_size, "batch_tokens": self._batch_tokens}
        settings |= {"prefetch": self._prefetch, "transform": self._transform, "shared": self._shared}
        place = self.source.fingerprint, of.stride, self._skipped, self._place, self._resume, self.restored
        return _remake, (*self._made_of[:3], self._made_of[3] | settings, place)

    def __len__(self) -> int:
        """Steps of the current epoch, the same on every rank. With `batch_tokens` and "shuffle", epochs differ a little."""
        epoch = self._place.epoch
        return self._steps(epoch).count(self._first(epoch))

    def __repr__(self) -> str:
        size = f"{count_of(len(self.source), 'example')} in {count_of(len(self), 'batch')}"
        share = f", rank {self._share.rank} of {self._share.world_size}" if self._share.world_size > 1 else ""
        return f"<Loader of {size}, {self._settings.order}, epoch {self._place.epoch}{share}>"

    def __iter__(self) -> Iterator[Batch]:
        return self.iterate()

    def iterate(self, delivery: Delivery | None = None) -> Iterator[Any]:
        """As iterating it; what it gives takes another way to the trainer, as to a device (`loading.device`)."""
        return self._iterate(self._begin(), self._changes, delivery)

    def _begin(self) -> _Place:
        if not self._resume:
            self._place = _Place(self._place.epoch, self._first(self._place.epoch))
        self._resume = False
        return self._place

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that is iterated next, also by an iterator that has not begun.

        The epoch of a restored state keeps its position.
        """
        if whole("epoch", epoch) != self._place.epoch:
            self._changes += 1
            self._place, self._resume = _Place(int(epoch), self._first(int(epoch))), False

    def state_dict(self) -> dict[str, Any]:
        """Where the newest iterator stands: after the batch that it gave last. Made ahead does not count."""
        return self._state().to_json()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the state was saved, on any number of ranks and with any batch size.

        Raises: SchemaError: the state is of other examples, or of a loader with another order.
        """
        restored = LoaderState.from_json(state)
        restored.refuse_other(self._state())
        self._place, self._resume = _Place(restored.epoch, restored.position), True
        self.restored, self._changes = self.restored + 1, self._changes + 1

    def restart(self) -> None:
        """Begin the current epoch from its start, whatever state was given."""
        self._resume = False

    @property
    def sampler(self) -> "Loader":
        """Itself: whom Lightning tells of a new epoch."""
        return self

    def deal(self, worker: int, workers: int) -> "Loader":
        """A loader of every `workers`-th step from where this one would go on: one of several that work side by side.

        Taken in turns, worker 0 first, they give the batches in this loader's order. Each has a state of its own, which
        means something to the same one of as many. Raises: SchemaError: no such worker.
        """
        worker, workers = whole("worker", worker), whole("workers", workers)
        if not 0 <= worker < workers:
            raise SchemaError(f"worker={worker} must be at least 0 and below workers={workers}")
        dealt, before = copy(self), worker * self._share.stride
        dealt._share, dealt._meter = replace(self._share, stride=self._share.stride * workers), Meter()
        dealt._newest_steps, dealt._skipped = None, self._skipped + before
        begins = self._place.position if self._resume else self._first(self._place.epoch)
        dealt._place = _Place(self._place.epoch, self._steps(self._place.epoch).skip(begins, before))
        dealt._resume = True
        return dealt

    def steps_left(self) -> int:
        """Steps that the newest iterator has still to give; before there is one, or after a state, those of the next."""
        return self._steps(self._place.epoch).count(self._place.position)

    def stats(self) -> LoaderStats:
        """How long the newest iterator was waited for so far, and what it spent its time on."""
        return self._meter.stats()

    def _state(self) -> LoaderState:
        place, fingerprint = self._place, self.source.fingerprint
        return replace(self._settings, epoch=place.epoch, position=place.position, fingerprint=fingerprint)

    def _steps(self, epoch: int) -> Steps:
        if self._newest_steps is None or self._newest_steps[0] != epoch:
            steps: Steps
            if self._batch_tokens is None:
                steps = SizedSteps(self._share, self._batch_size or BATCH_SIZE, len(self.source))
            else:
                steps = TokenSteps(self._share, self._order(epoch), self._tokens, self._batch_tokens, self._batch_size)
            self._newest_steps = epoch, steps
        return self._newest_steps[1]

    def _first(self, epoch: int) -> int:
        """Where this loader begins an epoch."""
        return self._steps(epoch).skip(0, self._skipped)

    def _iterate(self, place: _Place, changes: int, delivery: Delivery | None) -> Iterator[Any]:
        if changes != self._changes:  # told since: Lightning makes an iterator, and then says of which epoch
            place = self._begin()
        meter = self._meter = Meter()
        maker = BatchMaker(
            self.source, self._order(place.epoch), self._steps(place.epoch), self.materializer, self._window,
            self._transform, meter, f"epoch {place.epoch} of {self.source.name}", shared=self._shared, delivery=delivery,
        )  # fmt: skip
        made = maker.batches(place.position)
        batches = Prefetch(made, self._prefetch, lambda batch: batch.size_bytes, AHEAD_BYTES, meter.idle)
        try:
            for batch in meter.wait_for_each(batches):
                place.position = batch.position
                meter.count(batch.examples, batch.events, batch.users)
                yield batch.item if delivery is None else delivery.receive(batch.item)
                del batch  # not held while the trainer's next step waits: its buffers can be used again
        finally:
            batches.close()
            if delivery is not None:
                meter.add(COPY, delivery.copied_s())

    def _request_times(self) -> Any:
        return times_from_arrow(self.source.column("request_ts"), "request_ts")


def _remake(
    store: MaterializeStore, examples: Any, projection: Projection, settings: dict[str, Any], place: tuple[Any, ...]
) -> Loader:
    loader = Loader(store, examples, projection, **settings)
    fingerprint, stride, loader._skipped, loader._place, loader._resume, loader.restored = place
    if loader.source.fingerprint != fingerprint:  # else each process would deal steps of other examples
        raise SchemaError(f"{loader.source.name}: not the examples that the loader had; name its files, not a folder")
    loader._share, loader._newest_steps = replace(loader._share, stride=stride), None
    return loader
