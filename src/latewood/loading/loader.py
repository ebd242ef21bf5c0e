"""The loader: what a trainer iterates. See the package for the stages it joins."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.batch import Batch, count_of
from latewood.columns import times_from_arrow
from latewood.errors import LatewoodError, SchemaError
from latewood.examples import open_examples
from latewood.loading.feed import feed
from latewood.loading.order import order_of
from latewood.loading.prefetch import Prefetch
from latewood.loading.state import LoaderState
from latewood.loading.steps import Share, Step, whole
from latewood.materialize import Materializer, MaterializeStore, Resolved, schema_for
from latewood.projection import Projection
from latewood.schema import EVENT_TS

WINDOW = 16_384  # 32 batches of 512: a few MB of examples
# Steps of short histories are materialized together up to this many events, for what a batch costs whatever its size
# is then a third of its time; more would leave the processor's caches.
EVENTS_AT_ONCE = 1 << 19
AHEAD_BYTES = 32 << 20


@dataclass(slots=True)
class _Place:
    """How far an iterator got: the state of a run is that of the newest one."""

    epoch: int
    position: int


class _Made(NamedTuple):
    """A batch, or what was made of it, the position after it, and what it takes in memory."""

    position: int
    item: Any
    size_bytes: int


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
        batch_size: examples per batch and rank; the last batch may be shorter.
        order: "shuffle", "user" (the log's own) or "time".
        rank, world_size: this trainer's part. All ranks make equally many steps.
        prefetch: batches made ahead, in a thread; 0 for none. Large ones are made ahead only as far as they fit 32 MiB, at
            least one: a trainer that is slower than the loader holds two of them in memory, and not all.
        on_missing: "raise", or "mask": an example whose history cannot be had keeps its place, empty, with weight 0.
        remainder: "pad" fills the last step up with examples of weight 0; "drop" leaves an incomplete step out.
        window: so many examples are mixed with each other by "shuffle", and read at a time.
        transform: applied to every batch, in the thread; what it returns is what the loader gives.
    Raises: SchemaError: an argument that makes no sense, no examples, or ones that lack a column. ConflictError: the
        store is closed.
    """

    def __init__(
        self,
        store: MaterializeStore,
        examples: Any,
        projection: Projection,
        *,
        batch_size: int = 512,
        seed: int = 0,
        order: str = "shuffle",
        rank: int = 0,
        world_size: int = 1,
        prefetch: int = 4,
        on_missing: Literal["raise", "mask"] = "raise",
        remainder: str = "pad",
        window: int = WINDOW,
        transform: Callable[[Batch], Any] | None = None,
    ) -> None:
        seed, window, prefetch = whole("seed", seed), whole("window", window), whole("prefetch", prefetch)
        if window < 1 or prefetch < 0:
            raise SchemaError(f"window={window} must be at least 1 and prefetch={prefetch} at least 0")
        store.reader()  # a store that is closed, or cannot be read, is an error now rather than in the first batch
        self._share = Share(batch_size, rank, world_size, remainder)
        self._prefetch, self._window, self._transform = prefetch, window, transform
        schema = schema_for(store, projection)
        wanted = {schema[name].label for name in projection.names(schema) if name != EVENT_TS}
        unread = {trait.label for trait in schema if trait.label not in wanted}
        self.source = open_examples(examples, without=[f"recent.{label}" for label in unread])
        self.source.require(["user_id", "uih", "recent", "cutoff"])
        self._order = order_of(order, self.source.offsets, self._request_times, seed, window)
        self._settings = LoaderState(0, 0, seed, order, window, len(self.source), "")
        self.materializer = Materializer(store, projection, on_missing=on_missing, unread=unread)
        self._place, self._resume = _Place(0, 0), False

    def __len__(self) -> int:
        """Steps per epoch, the same on every rank."""
        return self._share.count(len(self.source))

    def __repr__(self) -> str:
        size = f"{count_of(len(self.source), 'example')} in {count_of(len(self), 'batch')}"
        share = f", rank {self._share.rank} of {self._share.world_size}" if self._share.world_size > 1 else ""
        return f"<Loader of {size}, {self._settings.order}, epoch {self._place.epoch}{share}>"

    def __iter__(self) -> Iterator[Batch]:
        if not self._resume:
            self._place = _Place(self._place.epoch, 0)
        self._resume = False
        return self._iterate(self._place)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that is iterated next. The epoch of a restored state keeps its position."""
        if whole("epoch", epoch) != self._place.epoch:
            self._place, self._resume = _Place(int(epoch), 0), False

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

    def _state(self) -> LoaderState:
        place, fingerprint = self._place, self.source.fingerprint
        return replace(self._settings, epoch=place.epoch, position=place.position, fingerprint=fingerprint)

    def _iterate(self, place: _Place) -> Iterator[Batch]:
        made = self._batches(place.epoch, place.position)
        batches = Prefetch(made, self._prefetch, lambda batch: batch.size_bytes, AHEAD_BYTES)
        try:
            for batch in batches:
                place.position = batch.position
                yield batch.item
                del batch  # not held while the trainer's next step waits: its buffers can be used again
        finally:
            batches.close()

    def _batches(self, epoch: int, position: int) -> Iterator[_Made]:
        """Every batch from a position on."""
        for steps, table, places in feed(self.source, self._order(epoch), self._share, position, self._window):
            window, start = self._resolve(table, places), 0
            for group in self._groups(window, steps):
                yield from self._group(epoch, group, window, start)
                start += sum(map(len, group))

    def _groups(self, window: Resolved | pa.Table, steps: list[Step]) -> Iterator[list[Step]]:
        """Runs of steps to materialize at once."""
        if isinstance(window, pa.Table):
            yield from ([step] for step in steps)
            return
        group, events, start = list[Step](), 0, 0
        before = np.cumsum(window.lengths(self.materializer.projection.max_len))
        for step in steps:
            stop = start + len(step)
            size = int(before[stop - 1] - (before[start - 1] if start else 0))
            if group and events + size > EVENTS_AT_ONCE:
                yield group
                group, events = [], 0
            group.append(step)
            events, start = events + size, stop
        if group:
            yield group

    def _group(self, epoch: int, steps: list[Step], window: Resolved | pa.Table, start: int) -> Iterator[_Made]:
        """Materialize some steps as one batch and cut it up; if that fails, one by one, so that only the bad one does."""
        if isinstance(window, Resolved) and len(steps) > 1:
            try:
                whole = self.materializer.batch(window.slice(start, start + sum(map(len, steps))))
            except LatewoodError:
                pass
            else:
                first = 0
                for step in steps:
                    yield self._finish(step, whole.slice(first, first + len(step)))
                    first += len(step)
                return
        for step in steps:
            yield self._batch(epoch, step, window, start)
            start += len(step)

    def _resolve(self, table: pa.Table, places: NDArray[np.int64]) -> Resolved | pa.Table:
        """A window in order, its pointers looked up at once; or not, if some example is bad: then only its batch fails."""
        try:
            return self.materializer.resolve(table).take(places)
        except LatewoodError:
            return table.take(pa.array(places))

    def _batch(self, epoch: int, step: Step, window: Resolved | pa.Table, start: int) -> _Made:
        try:
            if isinstance(window, Resolved):
                batch = self.materializer.batch(window.slice(start, start + len(step)))
            else:
                batch = self.materializer(window.slice(start, len(step)))
        except LatewoodError as error:
            error.add_note(
                f"in the batch at positions {step.start} to {step.stop} of epoch {epoch} of {self.source.name}"
            )
            raise
        return self._finish(step, batch)

    def _finish(self, step: Step, batch: Batch) -> _Made:
        if step.pad:
            real = np.arange(len(batch)) < len(batch) - step.pad
            batch = replace(batch, weights=batch.weights * real.astype(np.float32))
        made = batch if self._transform is None else self._transform(batch)
        return _Made(step.after, made, sum(column.nbytes for column in (*batch.values.values(), *batch.lists.values())))

    def _request_times(self) -> Any:
        return times_from_arrow(self.source.column("request_ts"), "request_ts")
