"""What keeps a store going: compaction at any cut, another look at the catalog, restarts, and time."""

from latewood.testing.simulation.broken import require
from latewood.testing.simulation.process import Process


def compact(process: Process) -> None:
    """R6, R19: at any cut that is allowed, and some that are not; the loser of a race loses nothing."""
    world, chance = process.world, process.chance
    state, before = world.log.head().tier, len(world.generations)
    cut = None if chance.happens(0.6) else max(state.frontier, state.closed - chance.between(-1, 6))
    keep = chance.between(1, 3)

    def refused() -> bool:
        frontier = world.log.head().tier.frontier
        return len(world.generations) > before or (cut is not None and not frontier <= cut <= state.closed)

    generation = process.attempt(lambda: process.store.compact(cut, keep=keep, workers=1), refused)
    if generation is not None:
        require(generation.id >= before - 1, "compaction returned an older generation:", generation, before)


def refresh(process: Process) -> None:
    """Look for a newer generation."""
    before = len(process.world.generations)
    reader = process.attempt(lambda: process.store.refresh())
    if reader is not None:
        require(reader.generation.id >= before - 1, "R11: refreshed to an older generation:", reader.generation)


def reopen(process: Process) -> None:
    """Close in order; the next action opens."""
    process.attempt(process.store.close)
    process.stop()


def kill(process: Process) -> None:
    """Die between two actions."""
    process.stop()


def time_passes(process: Process) -> None:
    """A little, so that times tie; or a while."""
    process.world.time.now += process.chance.among([1, 1, 2, 5, 30])
