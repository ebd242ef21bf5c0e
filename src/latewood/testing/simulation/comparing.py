"""Law 1: examples materialized by real code, beside the oracle's Fat Rows of their requests."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from latewood.batch import Batch
from latewood.errors import ExpiredError, LatewoodError, SchemaError, ScrubbedError
from latewood.materialize import Materializer
from latewood.projection import Projection
from latewood.schema import Schema
from latewood.store import Store
from latewood.testing.compare import different_rows
from latewood.testing.simulation.broken import BrokenLawError, require
from latewood.testing.simulation.expected import Logged, Outcome

if TYPE_CHECKING:
    from latewood.testing.simulation.process import Process
    from latewood.testing.simulation.world import World

REFUSALS: dict[Outcome, type[LatewoodError]] = {Outcome.EXPIRED: ExpiredError, Outcome.SCRUBBED: ScrubbedError}


def compare(
    process: "Process",
    store: Store,
    logged: Sequence[Logged],
    projection: Projection,
    lacks: Callable[[], bool] = lambda: False,
) -> None:
    """Materialize as this process, whatever happens meanwhile, and check what came out."""
    world = process.world
    for group in of_one_type(logged):
        examples, scrubs = pa.concat_tables([item.examples for item in group]), world.scrubs_recorded()
        before = store.generation.id
        batch = process.attempt(
            partial(_masked, store, projection, examples),
            fits=set(projection.traits or ()) - {"event_ts"},
            lacks=lacks,
        )
        if batch is not None:
            outcomes = expect(world, store, group, projection, scrubs)
            # what was looked up by one schema is given by it, though a newer one came before it was decoded
            schemas = [generation.schema for generation in world.generations[before : store.generation.id + 1]]
            check_batch(world, group, outcomes, batch, projection, schemas)


def _masked(store: Store, projection: Projection, examples: pa.Table) -> Batch:
    materializer = Materializer(store, projection, on_missing="mask")
    return materializer(examples) if len(examples) % 2 else materializer.shared(examples).expand()


def of_one_type(logged: Sequence[Logged]) -> list[list[Logged]]:
    """Examples whose recents have the same fields."""
    groups: dict[pa.Schema, list[Logged]] = defaultdict(list)
    for item in logged:
        groups[item.examples.schema].append(item)
    return list(groups.values())


def expect(
    world: "World", store: Store, logged: Sequence[Logged], projection: Projection, scrubs: int | None = None
) -> list[Outcome]:
    """What must have become of each example, read from the generation that the store has now.

    Args: scrubs: how many were recorded when the reading began; None: all that are now.
    """
    model, recorded, held = world.model, world.scrubs_recorded(), world.held[store.generation.id]
    outcomes = []
    for saw in (saw for item in logged for saw in item.seen):
        before, after = (
            saw.outcome(model.scrubbed_at(saw.user, count), held, projection.max_len)
            for count in (recorded if scrubs is None else scrubs, recorded)
        )
        is_fixed = saw.cutoff <= model.scrubbed_at(saw.user)  # its moment is past, its record may not be there
        unsure = before != after or (is_fixed and after is not Outcome.SCRUBBED)
        unsure |= saw.request["anchor"] is not None and saw.has_other_end(model)
        outcomes.append(Outcome.UNSURE if unsure else after)
    return outcomes


def check_batch(
    world: "World",
    logged: Sequence[Logged],
    outcomes: Sequence[Outcome],
    batch: Batch,
    projection: Projection,
    schemas: Sequence[Schema],
) -> None:
    """Served is value for value, bit for bit what the oracle says; refused is empty and weighs nothing.

    Args: schemas: by one of which all of it must be right.
    """
    requests = pa.concat_tables([item.requests for item in logged])
    seen = [saw for item in logged for saw in item.seen]
    for row, (outcome, weight) in enumerate(zip(outcomes, batch.weights.tolist(), strict=True)):
        if outcome is not Outcome.UNSURE:
            right = weight == (outcome is Outcome.SERVED)
            require(
                right, f"{outcome.value} was expected, weight", weight, requests.slice(row, 1).to_pylist(), seen[row]
            )
    made, served = batch.to_arrow(), defaultdict[frozenset[int], list[int]](list)
    for row, outcome in enumerate(outcomes):
        if outcome is Outcome.SERVED:
            served[seen[row].hidden].append(row)
    possible = [schema for schema in schemas if _columns_by(projection, schema) == list(batch.values)]
    require(bool(possible), "columns of no schema of the time:", list(batch.values), schemas)
    differences = [_difference(world, served, requests, made, projection, schema) for schema in possible]
    if None not in differences:
        raise BrokenLawError(f"law 1: {differences[-1]}")
    world.comparisons += sum(map(len, served.values()))


def _columns_by(projection: Projection, schema: Schema) -> list[str] | None:
    try:
        return list(projection.names(schema))
    except SchemaError:
        return None


def _difference(
    world: "World",
    served: Mapping[frozenset[int], list[int]],
    requests: pa.Table,
    made: pa.Table,
    projection: Projection,
    schema: Schema,
) -> str | None:
    """The first row that is not what the oracle says by a schema, beside what it says."""
    for hidden, rows in served.items():
        asked, got = requests.take(pa.array(rows)), made.take(pa.array(rows))
        expected = world.model.expected(asked, projection, schema, hidden)
        different = different_rows(got, expected)
        if len(different):
            first, wanted, had = (table.slice(int(different[0]), 1).to_pylist() for table in (asked, expected, got))
            return f"{first} got\n{had}\nand not\n{wanted}"
    return None


def check_refusals(world: "World", store: Store, logged: Sequence[Logged], projection: Projection) -> None:
    """One example of each kind that must be refused is, and the error says why."""
    outcomes, kinds = iter(expect(world, store, logged, projection)), dict[Outcome, pa.Table]()
    for item in logged:
        for row in range(len(item.examples)):
            kinds.setdefault(next(outcomes), item.examples.slice(row, 1))
    for outcome, error in REFUSALS.items():
        if outcome in kinds:
            _check_refused(store, kinds[outcome], projection, error)


def _check_refused(store: Store, example: pa.Table, projection: Projection, error: type[LatewoodError]) -> None:
    try:
        Materializer(store, projection)(example)
    except error:
        return
    except LatewoodError as other:
        raise BrokenLawError(f"{error.__name__} was expected, and not {other!r}") from other
    raise BrokenLawError(f"{error.__name__} was expected: {example.to_pylist()}")
