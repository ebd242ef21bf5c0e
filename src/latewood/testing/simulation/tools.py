"""The tools that judge a store, judged: `verify` finds nothing, `why` says of an event what the model says."""

from latewood.explain import why
from latewood.projection import Projection
from latewood.store import Store
from latewood.testing.simulation.broken import require
from latewood.testing.simulation.comparing import expect
from latewood.testing.simulation.expected import Logged, Outcome
from latewood.testing.simulation.world import World
from latewood.verification import verify


def check_tools(world: World, store: Store) -> None:
    """Once over the whole store, and over one logged table."""
    report = verify(store)
    require(report.ok, "verify:", report.differences)
    if world.model.logged:
        logged = world.chance.among(world.model.logged)
        outcomes = expect(world, store, [logged], Projection())
        check_verified(store, logged, outcomes)
        check_explained(world, store, logged, outcomes)


def check_verified(store: Store, logged: Logged, outcomes: list[Outcome]) -> None:
    """Every example is derived anew, and those that must be refused are counted as such."""
    report = verify(store, logged.examples)
    require(report.ok, "verify:", report.differences)
    told = {Outcome.EXPIRED: report.expired, Outcome.SCRUBBED: report.scrubbed}
    unsure = outcomes.count(Outcome.UNSURE)
    for outcome, count in told.items():
        least = outcomes.count(outcome)
        require(least <= count <= least + unsure, f"verify counts {outcome.value}", report, "and not", outcomes)


def check_explained(world: World, store: Store, logged: Logged, outcomes: list[Outcome]) -> None:
    """One event of the user of an example is in its sequence, or is not, and why knows."""
    rows = [row for row, outcome in enumerate(outcomes) if outcome is Outcome.SERVED]
    if not rows:
        return
    row = world.chance.among(rows)
    saw, example = logged.seen[row], logged.examples.slice(row, 1)
    versions = world.model.of(saw.user)
    if not versions:
        return
    version = world.chance.among(versions)
    _, event_ts, ingest_ts, ordinal = version.place
    verdicts = why(store, event_ts=event_ts, ingest_ts=ingest_ts, ordinal=ordinal, example=example)
    shown = [v for v in (*saw.stored, *saw.recent) if v.superseded_at >= saw.cutoff]
    is_in = [verdict.kind == "in" for verdict in verdicts]
    require(is_in == [version in shown], "why says", [str(verdict) for verdict in verdicts], "of", version, shown)
