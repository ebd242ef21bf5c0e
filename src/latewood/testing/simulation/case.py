"""One case: a plan, a world, rounds of actions, and the laws after each."""

from collections.abc import Callable
from dataclasses import dataclass

from latewood.storage import keys
from latewood.testing.simulation import changing, quiet, reading, upkeep, writing
from latewood.testing.simulation.chance import Chance
from latewood.testing.simulation.determinism import seeded
from latewood.testing.simulation.host import NO_FAULTS
from latewood.testing.simulation.plan import Plan
from latewood.testing.simulation.process import Action, Process
from latewood.testing.simulation.scheduler import Task
from latewood.testing.simulation.world import World

WRITERS: dict[Action, float] = {
    writing.append: 5,
    writing.append_with_times: 3,
    writing.append_again: 1.5,
    writing.correct: 4,
    writing.correct_twice: 1.5,
    writing.load_in_bulk: 1,
    reading.capture: 5,
    reading.backfill_requests: 3,
    reading.backfill_anchors: 2,
    reading.materialize: 2,
    reading.history: 0.5,
    changing.compact: 4,
    changing.roll_back: 0.7,
    changing.alter: 1,
    changing.scrub_users: 0.7,
    changing.scrub_events: 0.5,
    changing.seal_examples: 1,
    upkeep.refresh: 0.5,
    upkeep.reopen: 0.7,
    upkeep.kill: 0.7,
    upkeep.time_passes: 3,
}
READERS: dict[Action, float] = {
    reading.materialize: 6,
    reading.history: 0.5,
    changing.pin: 1,
    changing.unpin: 0.3,
    changing.train_pinned: 2,
    changing.seal_examples: 1,
    upkeep.refresh: 1,
    upkeep.reopen: 0.5,
    upkeep.kill: 0.5,
}
ALWAYS = (writing.append, reading.capture, reading.materialize, changing.compact, upkeep.time_passes)


@dataclass(frozen=True, slots=True)
class Report:
    """What a case did."""

    seed: int
    operations: int
    comparisons: int
    digest: str


class CaseError(Exception):
    """A case failed: what broke, and how to see it again."""

    def __init__(self, seed: int, error: BaseException, trace: list[str]) -> None:
        super().__init__(f"seed {seed}: {type(error).__name__}: {error}\nreplay: {replay(seed)}")
        self.seed, self.error, self.trace = seed, error, trace


def replay(seed: int) -> str:
    """The command that shows a case again."""
    return f"python -m latewood.testing.simulation --seed {seed} --trace"


def run_case(seed: int, *, show: Callable[[str], None] | None = None) -> Report:
    """Run the case of a seed.

    Args: show: called with the trace at the end, however it ends.
    Raises: CaseError: a law is broken, or something failed for no reason.
    """
    chance = Chance(seed)
    world = World(Plan.draw(chance), chance)
    world.trace.note("world", str(world.plan))
    with seeded(chance.stream(2), portions=world.plan.portions):
        try:
            _run(world)
        except Exception as error:
            raise CaseError(seed, error, world.trace.lines()) from error
        finally:
            if show is not None:
                show("\n".join(world.trace.lines()))
    return Report(seed, len(world.trace), world.comparisons, world.trace.digest)


def _run(world: World) -> None:
    plan, chance = world.plan, world.chance
    actions = {is_reader: _allowed(world, READERS if is_reader else WRITERS) for is_reader in (False, True)}
    for _ in range(plan.rounds):
        tasks = []
        for process in world.processes:
            chosen = [chance.weighted(actions[process.read_only]) for _ in range(chance.between(0, plan.actions))]
            tasks.append(Task(process.name, _work(process, chosen)))
        world.scheduler.run(tasks)
        if chance.happens(0.15):
            _cut_power(world)
        quiet.check_all(world)
    for process in world.processes:
        process.host.faults = NO_FAULTS
        process.stop()
    world.disk.late.clear()
    quiet.check_end(world)


def _allowed(world: World, weights: dict[Action, float]) -> dict[Action, float]:
    """The actions of this case."""
    allowed = {
        action: weight
        for action, weight in weights.items()
        if action in ALWAYS or not world.chance.happens(world.plan.left_out)
    }
    if world.plan.many and writing.append in weights:
        allowed[writing.append_many] = 2
    for _ in range(world.plan.favoured):
        allowed[world.chance.among(list(allowed))] *= 10
    return allowed


def _work(process: Process, actions: list[Action]) -> Callable[[], None]:
    def work() -> None:
        for action in actions:
            process.act(action, process.world.plan.faults)

    return work


def _cut_power(world: World) -> None:
    """All processes die at once; what they were just deleting may come back."""
    for process in world.processes:
        process.host.crash()
        process.stop()
    back = world.disk.cut_power(lambda: world.chance.happens(0.5))
    world.pins_back.update(name for key in back if (name := keys.parse_pin(key)) is not None)
    world.trace.note("world", f"power cut; back: {back}")
