"""Write: every shard of the next generation, each from the old shards' files and its new events, in bounded memory.

Shards are independent: each is written by one thread of a pool, or one after the other where there is one worker. Users
lie in the order of their hash within shards and across them, so where the number of shards changes, a new shard takes
its users from the old ones that overlap it, in order. A shard in which nothing changes is not written: the new generation
names the file that the parent has.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain

from latewood.compaction.parent import open_shard
from latewood.compaction.recipe import Recipe
from latewood.compaction.runs import RunMaker, Tally
from latewood.compaction.settings import Meter, Progress, Settings
from latewood.compaction.spill import Spill
from latewood.immutable import ShardFile
from latewood.storage import Storage, keys
from latewood.stripes import ShardWriter, UserRun


class StoppedError(Exception):
    """Another shard failed; its error is the one to tell."""


def write_shards(
    storage: Storage, recipe: Recipe, new: Spill, settings: Settings, progress: Progress | None = None
) -> tuple[tuple[ShardFile, ...], Tally]:
    """Write the shard files of the new generation, by shard number; and tell what was left out."""
    shards = range(recipe.target.shards)
    meter = Meter(progress, recipe.parent.event_count + new.event_count)
    job = _Job(storage, recipe, new, settings, meter)
    workers = min(settings.threads, len(shards))
    written = [job.write(shard) for shard in shards] if workers <= 1 else _pooled(job, shards, workers)
    total = Tally()
    for _, tally in written:
        total.add(tally)
    return tuple(file for file, _ in written), total


def _pooled(job: "_Job", shards: range, workers: int) -> list[tuple[ShardFile, Tally]]:
    with ThreadPoolExecutor(workers, "latewood-compaction") as pool:
        futures = [pool.submit(job.write, shard) for shard in shards]
        try:
            return [future.result() for future in futures]
        except BaseException as error:
            job.stop.set()
            failed = [future.exception() for future in futures if not future.cancel()]
            if isinstance(error, StoppedError):
                raise next(e for e in failed if e is not None and not isinstance(e, StoppedError)) from None
            raise


@dataclass(frozen=True, slots=True)
class _Job:
    """What the shards of one generation have in common."""

    storage: Storage
    recipe: Recipe
    new: Spill
    settings: Settings
    meter: Meter
    stop: threading.Event = field(default_factory=threading.Event)

    def write(self, shard: int) -> tuple[ShardFile, Tally]:
        """Write one shard; where that fails, the others stop at their next run."""
        maker = RunMaker(self.recipe, self.new, self.settings)
        try:
            file = self._unchanged(shard, maker) or self._write(shard, self._runs(shard, maker))
        except BaseException:
            self.stop.set()
            raise
        self.meter.add(maker.tally.skipped)
        return file, maker.tally

    def _unchanged(self, shard: int, maker: RunMaker) -> ShardFile | None:
        """The parent's file of a shard, where a new one would hold the same columns of the same events."""
        recipe = self.recipe
        buckets = self.new.buckets(shard, recipe.target.shards)
        if not recipe.may_name_again or self.new.counts(buckets).any():
            return None
        old = open_shard(self.storage, recipe.parent, shard)
        if old is None or old.shard.columns != recipe.columns or maker.changes(old, buckets):
            return None
        self.meter.add(old.shard.event_count)
        return recipe.parent.shards[shard]

    def _write(self, shard: int, runs: Iterator[UserRun]) -> ShardFile:
        """Without events a shard has no file."""
        if (first := next(runs, None)) is None:
            return ShardFile()
        recipe = self.recipe
        key, epoch = keys.shard(recipe.number, recipe.uuid, shard), recipe.parent.epoch
        with self.storage.writer(key) as sink:
            writer = ShardWriter(sink, recipe.columns, epoch=epoch, generation=recipe.number, shard=shard)
            for run in chain([first], runs):
                writer.add(run)
            summary = writer.finish()
        return ShardFile(key, summary.size_bytes, summary.event_count, summary.user_count, summary.footer_xxh3)

    def _runs(self, shard: int, maker: RunMaker) -> Iterator[UserRun]:
        """All users of a new shard in key order, those of one old shard after those of another."""
        recipe = self.recipe
        mine, old_shards = self.new.buckets(shard, recipe.target.shards), len(recipe.parent.shards)
        for number in self.new.shards_of(mine, old_shards):
            theirs = self.new.buckets(number, old_shards)
            both = range(max(mine.start, theirs.start), min(mine.stop, theirs.stop))
            old = open_shard(self.storage, recipe.parent, number)
            if old is None and not self.new.counts(both).any():
                continue
            for run, events in maker.runs(old, both):
                if self.stop.is_set():
                    raise StoppedError
                self.meter.add(events)
                if len(run.keys.hash):
                    yield run
