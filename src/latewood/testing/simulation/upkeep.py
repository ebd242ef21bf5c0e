"""What happens to processes: another look at the catalog, restarts, sudden deaths, and time."""

from latewood.testing.simulation.broken import require
from latewood.testing.simulation.process import Process


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
