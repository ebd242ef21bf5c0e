"""What serving processes and trainers do: capture, backfill, materialize, look at histories."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from latewood.capture import anchors, backfill
from latewood.capture.places import ANCHOR_TYPE
from latewood.conditions import col
from latewood.events import NEVER
from latewood.projection import Projection
from latewood.schema import Schema
from latewood.testing.simulation.broken import require
from latewood.testing.simulation.chance import Chance
from latewood.testing.simulation.comparing import compare
from latewood.testing.simulation.expected import Base, Logged, end_of, see
from latewood.testing.simulation.model import NUMBER, WORD, Model, times
from latewood.testing.simulation.process import Process
from latewood.testing.simulation.writing import WORDS, draw_user


def draw_projection(chance: Chance, schema: Schema) -> Projection:
    """All there is, or a few of the newest, or a few traits."""
    names = ["event_ts", *(chance.among([trait.name, *trait.former[-1:]]) for trait in schema)]
    some = list(dict.fromkeys(name for name in names if chance.happens(0.5)))  # two traits may have had one name
    return Projection(chance.among([None, None, 0, 1, 2, 3, 5]), traits=chance.among([None, None, some]))


def draw_requests(process: Process, latest: int | None = None) -> pa.Table:
    world, chance = process.world, process.chance
    count = chance.between(1, 4)
    moments = [world.time.now + chance.between(-8, 3) for _ in range(count)]
    if latest is not None:
        moments = [min(moment, latest) for moment in moments]
    users = pa.array([draw_user(process) for _ in range(count)], world.model.user_type)
    requests = pa.array([world.next_number() for _ in range(count)], pa.int32())
    return pa.table({"user_id": users, "request_ts": times(moments), "request": requests})


def capture(process: Process) -> None:
    """R10: what is fed is what is logged, as of a moment of this very call."""
    world, store = process.world, process.store
    requests, before = draw_requests(process), world.closed
    captured = process.attempt(lambda: store.capture(requests))
    if captured is None:
        return
    cutoffs = set(captured.columns["cutoff"].cast(pa.int64()).to_pylist())
    require(len(cutoffs) == 1 and before <= min(cutoffs) <= world.closed, "R10: cutoff", cutoffs, "since", before)
    require(world.log.head().tier.captured, "R7: a capture left no mark")
    logged = log(process, captured.columns, requests)
    compare(process, store, [logged], draw_projection(process.chance, store.schema))


def backfill_requests(process: Process) -> None:
    """R8: as of each request's own time, which is then fixed."""
    world, chance = process.world, process.chance
    complete, closed = chance.happens(0.3), world.closed
    requests = draw_requests(process, latest=None if chance.happens(0.3) else closed)
    newest = max(requests["request_ts"].cast(pa.int64()).to_pylist())
    examples = _backfill(process, requests, complete, lambda: newest > closed)
    if examples is not None:
        frontier = world.log.head().tier.frontier
        require(newest <= frontier, "R8: answered up to", newest, "past the frontier", frontier)
        require(examples["cutoff"].equals(requests["request_ts"].cast(examples["cutoff"].type)), "R8: other cutoffs")
        log(process, examples, requests)


def backfill_anchors(process: Process) -> None:
    """R2, R8: events as requests."""
    chance, model = process.chance, process.world.model
    changes, blanked = model.changes, process.world.log.head().tier.blanked
    word, min_history = chance.among([None, None, None, *WORDS]), chance.between(0, 2)
    where, asked = None if word is None else col(WORD) == word, _Moment.of(process)
    found = process.attempt(
        lambda: anchors(process.store, where, min_history=min_history),
        forgot=lambda: process.world.log.head().tier.blanked > blanked,
    )
    if found is None:
        return
    _check_anchors(process, found, asked, word, min_history)
    if not len(found):
        return
    picked = found.take(pa.array(sorted({chance.below(len(found)) for _ in range(4)})))
    requests = picked.select(["user_id", "request_ts", "anchor"])
    requests = requests.append_column("request", picked[NUMBER].cast(pa.int32()))
    examples = _backfill(process, requests, False, lambda: False)
    if examples is not None:
        if model.changes != changes:
            kept = pa.array([_ends_as_known(model, request) for request in in_us(requests)], pa.bool_())
            requests, examples = requests.filter(kept), examples.filter(kept)
        if len(examples):
            log(process, examples, requests)


@dataclass(frozen=True, slots=True)
class _Moment:
    """How far a world was, to see whether anything happened since."""

    generations: int
    versions: int
    scrubs: int
    known: int  # the number of the generation that the process knew

    @classmethod
    def of(cls, process: Process) -> "_Moment":
        world = process.world
        numbers = len(world.generations), world.model.changes, world.scrubs_recorded()
        return cls(*numbers, process.store.generation.id)


def _check_anchors(process: Process, found: pa.Table, asked: _Moment, word: str | None, min_history: int) -> None:
    """Anchors are events that there are, with the values that they have; and all of them, if nothing happened meanwhile."""
    world, model, now = process.world, process.world.model, _Moment.of(process)
    rows = in_us(found)
    places = [(row["user_id"], row["request_ts"], row["anchor"]["ingest_ts"], row["anchor"]["ordinal"]) for row in rows]
    names = [name for name in found.column_names if name not in ("user_id", "request_ts", "anchor")]
    schemas = [generation.schema for generation in world.generations[asked.known :]]
    schema = next((schema for schema in reversed(schemas) if [trait.name for trait in schema] == names), None)
    require(schema is not None, "anchors with columns of no schema of now:", names)
    assert schema is not None
    for row, place in zip(rows, places, strict=True):
        require(place in model.by_place, "an anchor that is no event:", row)
        values = {trait.name: model.by_place[place].values.get(trait.id) for trait in schema}
        same = all(row[name] == value for name, value in values.items())
        require(same and word in (None, row[WORD]), "an anchor with other values:", row, "and not", values)
    if min_history or (now.generations, now.versions, now.scrubs) != (asked.generations, asked.versions, asked.scrubs):
        return
    newest = world.generations[-1]
    expected = {
        version.place
        for version in model.versions
        if (version.index in world.held[-1] or (version.ingest_ts >= newest.watermark and not process.read_only))
        and version.superseded_at == NEVER
        and version.gone_by is None
        and model.scrubbed_at(version.row.user) <= min(version.row.event_ts, version.ingest_ts)
        and word in (None, version.values.get(schema[WORD].id))
    }
    require(set(places) == expected, "anchors are", places, "and not", expected)


def _ends_as_known(model: Model, request: dict[str, Any]) -> bool:
    """Whether an anchor's history ends where the model says: an import that came since may pass for a version of it."""
    anchor = request["anchor"]
    own = request["request_ts"], anchor["ingest_ts"], anchor["ordinal"]
    told = own if anchor["end"] is None else tuple(anchor["end"][name] for name in ("event_ts", "ingest_ts", "ordinal"))
    return told == end_of(model.of(request["user_id"]), request, min(own[0], own[1]) + 1)


def _backfill(process: Process, requests: pa.Table, complete: bool, refused: Callable[[], bool]) -> pa.Table | None:
    return process.attempt(lambda: backfill(process.store, requests, complete=complete, allow_empty=True), refused)


def log(process: Process, examples: pa.Table, requests: pa.Table) -> Logged:
    """Keep examples. Their recents stand in the total order, from the pointer's watermark to the cutoff."""
    world, number = process.world, process.store.generation.id
    if "anchor" not in requests.column_names:
        requests = requests.append_column("anchor", pa.nulls(len(requests), ANCHOR_TYPE))
    requests = requests.select(["user_id", "request_ts", "request", "anchor"])
    requests = requests.append_column("cutoff", examples["cutoff"])
    base, seen = Base(world.generations[number].watermark, world.held[number]), []
    for request, example in zip(in_us(requests), in_us(examples), strict=True):
        recent, uih, cutoff = example["recent"], example["uih"], example["cutoff"]
        order = list(zip(recent["event_ts"], recent["ingest_ts"], recent["ordinal"], strict=True))
        saw = see(world.model, base, request, cutoff, uih)
        if cutoff > world.model.scrubbed_at(saw.user):
            expected = [version.place[1:] for version in saw.recent]
            require(order == expected, "R4, R8: recents", order, "and not", saw.recent, "of", request, uih)
        seen.append(saw)
    logged = Logged(examples, requests, tuple(seen))
    world.model.logged.append(logged)
    return logged


def in_us(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as Python objects, times as µs."""
    return pa.table([_plain(column.combine_chunks()) for column in table.columns], table.column_names).to_pylist()


def _plain(array: Any) -> pa.Array:
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    return array.cast(_without_times(array.type))


def _without_times(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(type_):
        return pa.int64()
    if pa.types.is_list(type_):
        return pa.list_(_without_times(type_.value_type))
    if pa.types.is_struct(type_):
        fields = [type_.field(i) for i in range(type_.num_fields)]
        return pa.struct([pa.field(f.name, _without_times(f.type), f.nullable) for f in fields])
    return type_


def materialize(process: Process) -> None:
    """Law 1, by whoever trains now: some of what was ever logged, in a projection of its own."""
    logged, chance = process.world.model.logged, process.chance
    some: Sequence[Logged] = [chance.among(logged) for _ in range(chance.between(1, 3))] if logged else []
    if some:
        compare(process, process.store, some, draw_projection(chance, process.store.schema))


def history(process: Process) -> None:
    """All that is known of a user, or as of one moment for both clocks."""
    world, store, chance = process.world, process.store, process.chance
    user, cutoff = draw_user(process), chance.among([None, world.time.now - chance.between(0, 9)])
    before = [version for version in world.model.versions if version.row.user == user]
    scrubs = world.scrubs_recorded()

    def forgot() -> bool:
        is_past = cutoff is not None and cutoff <= world.model.scrubbed_at(user)
        return is_past or world.scrubs_recorded() > scrubs

    table = process.attempt(lambda: store.history(user, cutoff), forgot=forgot)
    if table is None or process.read_only or world.model.scrubs or world.plan.retention is not None or world.changes:
        return
    numbers, after = table[NUMBER].to_pylist(), world.model.of(user)
    end, cutoff = (2**62, 2**62) if cutoff is None else (cutoff, cutoff)
    possible = [v.row.number for v in after if v.row.event_ts < end and v.ingest_ts < cutoff]
    require(numbers == [n for n in possible if n in set(numbers)], "another history:", numbers, possible, cutoff)
    known = {v.row.number for v in before if v.row.event_ts < end and v.ingest_ts < cutoff <= v.superseded_at}
    lost = known - set(numbers)
    gone = {v.row.number for v in before if v.row.number in lost and v.superseded_at < min(cutoff, world.closed)}
    require(lost <= gone, "events are missing:", lost, before)
