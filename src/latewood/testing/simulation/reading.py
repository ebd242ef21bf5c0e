"""What serving processes and trainers do: capture, backfill, materialize, look at histories."""

import warnings
from collections.abc import Callable

import pyarrow as pa

from latewood.capture import anchors, backfill
from latewood.capture.anchors import ANCHOR_TYPE
from latewood.materialize import Materializer
from latewood.projection import Projection
from latewood.testing.compare import different_rows
from latewood.testing.simulation.broken import BrokenLawError, require
from latewood.testing.simulation.chance import Chance
from latewood.testing.simulation.model import KIND, NUMBER, WORD, Logged, times
from latewood.testing.simulation.process import Process
from latewood.testing.simulation.world import World
from latewood.testing.simulation.writing import draw_user

TRAITS = ["event_ts", NUMBER, WORD, KIND]


def draw_projection(chance: Chance) -> Projection:
    """All there is, or a few of the newest, or a few traits."""
    max_len = chance.among([None, None, 0, 1, 2, 3, 5])
    traits = chance.among([None, None, [NUMBER], ["event_ts", WORD], [KIND, NUMBER], []])
    return Projection(max_len=max_len, traits=traits)


def draw_requests(process: Process, latest: int | None = None) -> pa.Table:
    world, chance = process.world, process.chance
    count = chance.between(1, 4)
    moments = [world.time.now + chance.between(-8, 3) for _ in range(count)]
    if latest is not None:
        moments = [min(moment, latest) for moment in moments]
    users = pa.array([draw_user(process) for _ in range(count)], world.schema.user_id)
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
    logged = log(world, captured.columns, requests)
    projection = draw_projection(process.chance)
    fed = process.attempt(lambda: captured.history(projection).to_arrow())
    if fed is not None:
        check_same(world, fed, logged.requests, projection)


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
        log(world, examples, requests)


def backfill_anchors(process: Process) -> None:
    """R2, R8: events as requests."""
    chance = process.chance
    found = process.attempt(lambda: anchors(process.store, None, min_history=chance.between(0, 2)))
    if found is None or not len(found):
        return
    picked = found.take(pa.array(sorted({chance.below(len(found)) for _ in range(4)})))
    requests = picked.select(["user_id", "request_ts", "anchor"])
    requests = requests.append_column("request", picked[NUMBER].cast(pa.int32()))
    examples = _backfill(process, requests, False, lambda: False)
    if examples is not None:
        log(process.world, examples, requests)


def _backfill(process: Process, requests: pa.Table, complete: bool, refused: Callable[[], bool]) -> pa.Table | None:
    with warnings.catch_warnings():  # events and requests here are all in µs, and as coarse as they happen to be
        warnings.simplefilter("ignore", UserWarning)
        return process.attempt(lambda: backfill(process.store, requests, complete=complete, allow_empty=True), refused)


def materialize(process: Process) -> None:
    """Law 1, by whoever trains now: some of what was ever logged, in a projection of its own."""
    world, chance = process.world, process.chance
    if not world.model.logged:
        return
    some = [chance.among(world.model.logged) for _ in range(chance.between(1, 3))]
    projection = draw_projection(chance)
    examples = pa.concat_tables([logged.examples for logged in some])
    made = process.attempt(lambda: Materializer(process.store, projection)(examples).to_arrow())
    if made is not None:
        check_same(world, made, pa.concat_tables([logged.requests for logged in some]), projection)


def history(process: Process) -> None:
    """All that is known of a user, or as of one moment for both clocks."""
    world, store, chance = process.world, process.store, process.chance
    user, cutoff = draw_user(process), chance.among([None, world.time.now - chance.between(0, 9)])
    known = [version for version in world.model.versions if version.row.user == user]
    table = process.attempt(lambda: store.history(user, cutoff))
    if table is None or process.read_only:
        return
    numbers = table[NUMBER].to_pylist()
    if cutoff is None:  # what was there before the call must show; what came during it may
        require({v.row.number for v in known} <= set(numbers), "an event is missing:", known, numbers)
    else:
        known = [version for version in world.model.versions if version.row.user == user]
        known = [v for v in known if v.ingest_ts < cutoff and v.row.event_ts < cutoff]
        expected = [v.row.number for v in sorted(known, key=lambda v: v.place[1:])]
        require(numbers == expected, f"the history as of {cutoff}:", numbers, "and not", expected)


def log(world: World, examples: pa.Table, requests: pa.Table) -> Logged:
    """Keep examples. Their recents stand in the total order, from the pointer's watermark to the cutoff."""
    columns = (examples[name].to_pylist() for name in ("uih", "recent", "cutoff"))
    for uih, recent, cutoff in zip(*columns, strict=True):
        order = list(zip(recent["event_ts"], recent["ingest_ts"], recent["ordinal"], strict=True))
        require(order == sorted(set(order)), "R4: recents out of order:", order)
        inside = all(uih["watermark"] <= ingest_ts < cutoff for _, ingest_ts, _ in order)
        require(inside, "R8: recents outside of watermark and cutoff:", uih, order, cutoff)
    if "anchor" not in requests.column_names:
        requests = requests.append_column("anchor", pa.nulls(len(requests), ANCHOR_TYPE))
    requests = requests.select(["user_id", "request_ts", "request", "anchor"])
    logged = Logged(examples, requests.append_column("cutoff", examples["cutoff"]))
    world.model.logged.append(logged)
    return logged


def check_same(world: World, made: pa.Table, requests: pa.Table, projection: Projection) -> None:
    """Law 1: value for value, bit for bit."""
    expected = world.model.expected(requests, projection)
    rows = different_rows(made, expected)
    world.comparisons += len(expected)
    if len(rows):
        row = int(rows[0])
        got, want = made.slice(row, 1).to_pylist(), expected.slice(row, 1).to_pylist()
        request = requests.slice(row, 1).to_pylist()
        raise BrokenLawError(f"law 1: {request} got\n{got}\nand not\n{want}")
