"""Materialize against brute force: the events visible by docs/protocol.md R2 and R13, sorted, cut, as Python lists.

The same examples again, sealed (R12), after retention (R15) and after scrubs (R16).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given

from latewood.conditions import col
from latewood.errors import ExpiredError, ScrubbedError
from latewood.materialize import Materializer
from latewood.projection import Projection, last
from latewood.sealing import SealReport, seal_with_report
from latewood.testing import strategies
from latewood.users import user_keys
from plain_streams import chosen
from plain_world import INTEGER_USERS, TEXT_USERS, TRAITS, Event, Request, World, numbered, plain


def check(world: World, requests: Sequence[Request], projection: Projection, **options: Any) -> None:
    check_examples(world, world.examples(requests, **options), requests, projection)


def check_examples(world: World, examples: pa.Table, requests: Sequence[Request], projection: Projection) -> None:
    materializer = Materializer(world, projection)
    resolved = materializer.resolve(examples)
    batch = materializer.batch(resolved)
    assert resolved.shown(projection.max_len).lengths.tolist() == batch.lengths.tolist()
    history = batch.to_arrow()["history"].combine_chunks()
    wanted = [world.expected(request, projection) for request in requests]
    assert [plain(history, row) for row in range(len(requests))] == wanted
    assert materializer.shared(examples).expand().to_arrow()["history"].combine_chunks().equals(history)
    assert batch.weights.tolist() == [1.0] * len(requests)
    assert batch.features.column_names == ["user_id", "request"]
    for name, values in batch.values.items():
        mask = batch.masks.get(name)
        nulls = [value is None for row in wanted for value in row[name]]
        assert (mask is None and not any(nulls)) or mask.tolist() == nulls
        if mask is not None and name in batch.lists:
            assert not np.diff(batch.lists[name])[mask].any()
        elif mask is not None:
            assert not values[mask].any()
    lengths = [max(map(len, row.values()), default=0) for row in wanted]
    if projection.names(world.schema):
        assert batch.lengths.tolist() == lengths
        assert materializer.last_stats.events == sum(lengths)
        assert materializer.stats.examples == 2 * len(requests)
    check_window(materializer, examples, history)


def check_window(materializer: Materializer, examples: pa.Table, history: pa.StructArray) -> None:
    """Decoded at once and cut up in another order, they are the same; and each event is decoded for all of them once."""
    n = len(examples)
    backwards = np.arange(n)[::-1]
    before = materializer.stats
    window = materializer.window(materializer.resolve(examples).take(backwards))
    assert len(window) == n
    decoded = materializer.stats.decoded_events
    parts = [materializer.window_batch(window, start, min(start + 2, n)) for start in range(0, n, 2)]
    assert (materializer.stats.examples - before.examples, materializer.stats.decoded_events) == (n, decoded)
    for start, part in zip(range(0, n, 2), parts, strict=True):
        chosen = backwards[start : start + 2]
        assert part.to_arrow()["history"].combine_chunks().equals(history.take(pa.array(chosen)))
        assert set(part.masks) == {name for name, mask in part.masks.items() if mask.any()}
        assert part.features.equals(examples.select(part.features.column_names).take(pa.array(chosen)))


TRAIT_VALUES = st.tuples(
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.sampled_from(["like", "buy", ""]),
    st.none() | st.sampled_from(["ü", "🌲", "x" * 40]),
    st.none() | st.booleans(),
    st.none() | st.sampled_from([0.5, -1.0, 2.0**100]),
    st.none() | st.integers(-(10**15), 10**15),
    st.none() | st.integers(0, 255),
    st.none() | st.lists(st.sampled_from(["", "a", "ü"]), max_size=3),
    st.none() | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
    st.none() | st.lists(st.sampled_from([0.5, -1.0, 2.0**100]), min_size=2, max_size=2),
)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Few users and few moments, so that events tie, share stripes of one user, and arrive late."""
    schema = draw(st.sampled_from([INTEGER_USERS, TEXT_USERS]))
    users = [-5, 0, 2**60] if schema is INTEGER_USERS else ["", "a", "ö🌲"]
    raw = draw(
        st.lists(st.tuples(st.sampled_from(users), st.integers(0, 8), st.integers(-1, 8), TRAIT_VALUES), max_size=40)
    )
    events = numbered([(u, t, t + d, traits) for u, t, d, traits in raw])
    changes = draw(st.lists(st.tuples(st.integers(-20, 9), st.integers(0, 39)), max_size=len(events)))
    return World(schema, corrected(events, changes), draw(st.integers(0, 16)))


def corrected(events: list[Event], changes: Sequence[tuple[int, int]]) -> list[Event]:
    """Some events superseded: so long after they were known, or, above 5, by another event that came no earlier."""
    result = list(events)
    for k, (delay, other) in enumerate(changes):
        event, newer = events[k], events[other % len(events)]
        if 0 <= delay <= 5:
            result[k] = replace(event, superseded_at=event.ingest_ts + delay)
        elif delay > 5 and newer.user == event.user and newer != event and newer.ingest_ts >= event.ingest_ts:
            result[k] = replace(event, superseded_at=newer.ingest_ts)
    return result


def requests_of(world: World) -> st.SearchStrategy[list[Request]]:
    unknown = 77 if world.schema is INTEGER_USERS else "unknown"
    users = st.sampled_from([*sorted({event.user for event in world.events}), unknown])

    def plain_request(user: Any, end_ts: int, cutoff: int, older: int) -> Request:
        return Request(user, (end_ts,), cutoff, max(min(cutoff, world.watermark) - older, -1))

    def anchor(event: Event) -> Request:
        cutoff = min(event.event_ts, event.ingest_ts) + 1
        return Request(event.user, world.end_of(event), cutoff, min(cutoff, world.watermark))

    requests = st.builds(plain_request, users, st.integers(0, 10), st.integers(0, 18), st.sampled_from([0, 0, 3]))
    if world.events:
        requests |= st.sampled_from(world.events).map(anchor)
    return st.lists(requests, max_size=12)


PROJECTIONS = st.builds(
    Projection,
    max_len=st.sampled_from([None, 0, 1, 2, 5, 1000]),
    traits=st.none() | st.lists(st.sampled_from(["event_ts", *(name for name, _ in TRAITS)]), unique=True),
)


@given(st.data())
def test_materialized_is_what_was_visible(data: st.DataObject) -> None:
    world = data.draw(worlds())
    requests = data.draw(requests_of(world))
    check(world, requests, data.draw(PROJECTIONS), shuffled=data.draw(st.booleans()))


def check_streams(world: World, requests: Sequence[Request], projection: Projection, **options: Any) -> None:
    """Against all that was visible, filtered and cut event by event."""
    materializer = Materializer(world, projection)
    batch = materializer(world.examples(requests, **options))
    found = batch.to_arrow()["history"].combine_chunks()
    events = 0
    for row, request in enumerate(requests):
        wanted = expected(world, request, projection)
        assert plain(found, row) == wanted
        events += len(wanted["stream"])
    assert materializer.last_stats.events == events


def expected(world: World, request: Request, projection: Projection) -> dict[str, list[Any]]:
    """What a projection, with streams or without, gives of all that was visible."""
    if not projection.streams:
        return world.expected(request, projection)
    columns, visible = [trait.name for trait in world.schema], world.visible(request, -(2**62), request.cutoff)
    history = [{"event_ts": e.event_ts, **dict(zip(columns, e.traits, strict=True))} for e in visible]
    kept = chosen(history, projection, {"score": "float32"})
    shown = {name: [history[place][name] for place, _ in kept] for name in projection.names(world.schema)}
    return shown | {"stream": [bits for _, bits in kept]}


@given(st.data())
def test_streams_are_of_what_was_visible(data: st.DataObject) -> None:
    world = data.draw(worlds())
    requests = data.draw(requests_of(world))
    check_streams(world, requests, data.draw(stream_projections(world)), shuffled=data.draw(st.booleans()))


def grown(seed: int, count: int, late: float, changed: float = 0.0, span: int | None = None) -> World:
    """Long histories: three users, events over many stripes, some late, some corrected or deleted; tied in a short span."""
    rng = np.random.default_rng(seed)
    event_ts = np.sort(rng.integers(0, span or count * 2, count))
    delay = np.where(rng.random(count) < late, rng.integers(0, count, count), rng.integers(0, 3, count))
    users = rng.choice(3, count, p=[0.6, 0.3, 0.1])
    raw = [
        (int(user), int(t), int(t + d), traits_of(int(item)))
        for user, t, d, item in zip(users, event_ts, delay, rng.integers(0, 1000, count), strict=True)
    ]
    events = numbered(raw)
    for k in np.flatnonzero(rng.random(count) < changed).tolist():
        events[k] = replace(events[k], superseded_at=events[k].ingest_ts + int(rng.integers(0, count)))
    return World(INTEGER_USERS, events, int(count * 1.5))


def traits_of(item: int) -> tuple[Any, ...]:
    lists = [str(item)] * (item % 4), list(range(item, item + item % 30)), [float(item), 0.5]
    plain = (item, "like" if item % 3 else None, str(item % 50), True, 0.5, None, 7)
    return (*plain, *(None if item % 7 == k else of for k, of in enumerate(lists)))


def some_requests(world: World, seed: int, count: int) -> list[Request]:
    rng = np.random.default_rng(seed)
    span = max(event.event_ts for event in world.events)
    requests = []
    for _ in range(count):
        end, lag = int(rng.integers(0, span + 2)), int(rng.integers(0, 40))
        cutoff = end - lag if rng.random() < 0.5 else end + int(rng.integers(0, span))
        request = Request(int(rng.integers(0, 4)), (end,), max(cutoff, 0), min(max(cutoff, 0), world.watermark))
        requests.append(request)
    return requests


GROWN = [grown(1, 4000, 0.0), grown(2, 4000, 0.2), grown(3, 4000, 0.05, 0.002), grown(4, 4000, 0.1, 0.3)]
DENSE = [grown(5, 300, 0.5, 0.4, span=40), grown(6, 900, 0.2, 0.1, span=60)]


@given(st.integers(0, 10**6), st.sampled_from([0, 1, 50, 256, 700, None]), st.sampled_from(GROWN))
def test_long_histories_share_stretches_and_skip_what_is_not_visible(
    seed: int, max_len: int | None, world: World
) -> None:
    traits = ["item", "action", "event_ts", "tags", "basket", "pair"]
    check(world, some_requests(world, seed, 6), Projection(max_len, traits=traits))


KINDS = [
    col("like") == True,  # noqa: E712  a condition, not a comparison
    (col("item") > 900) & (col("action") == "like"),
    col("note").is_in(["3", "17"]) | col("tags").is_null(),
    ~(col("action") == "like") & (col("event_ts") >= 3000),
    (col("item") == 77) | ~(col("basket").is_null() | (col("item") < 950)),
    None,
]
STREAMS = st.lists(st.tuples(st.sampled_from([0, 1, 20, 300, 10**6]), st.sampled_from(KINDS)), min_size=1, max_size=3)


@given(st.integers(0, 10**6), STREAMS, st.sampled_from([None, 0, 30, 1000]), st.sampled_from([None, 7, 600]), st.data())
def test_streams_of_long_histories(
    seed: int, kinds: list[tuple[int, Any]], scan: int | None, max_len: int | None, data: st.DataObject
) -> None:
    """Over many stripes, some not visible as a whole, and with ties, so that recents lie among stored events."""
    streams = {f"{i}": last(count, where) for i, (count, where) in enumerate(kinds)}
    traits = ["item", "action", "event_ts", "tags", "basket", "pair", "like"]
    world = data.draw(st.sampled_from([*GROWN, *DENSE]))
    requests = dense_requests(world, seed, 10) if world in DENSE else some_requests(world, seed, 4)
    check_streams(world, requests, Projection(max_len, traits=traits, streams=streams, scan=scan))


def dense_requests(world: World, seed: int, count: int) -> list[Request]:
    """Many of events' own times, some of them anchors, with pointers of all ages."""
    rng = np.random.default_rng(seed)
    requests = []
    for _ in range(count):
        event, cutoff = world.events[rng.integers(len(world.events))], int(rng.integers(0, world.watermark * 5 // 4))
        end = (event.event_ts,) if rng.random() < 0.5 else world.end_of(event)
        if len(end) > 1:
            cutoff = min(event.event_ts, event.ingest_ts) + 1 + (cutoff if rng.random() < 0.5 else 0)
        watermark = min(cutoff, world.watermark) - int(rng.choice([0, 20, 200]))
        requests.append(Request(event.user, end, cutoff, watermark))
    return requests


@given(st.integers(0, 10**6), st.sampled_from([0, 1, 5, 50, None]), st.sampled_from(DENSE))
def test_ties_are_taken_as_they_were(seed: int, max_len: int | None, world: World) -> None:
    requests = dense_requests(world, seed, 25)
    check(world, requests, Projection(max_len, traits=["item", "event_ts", "basket", "pair"]))
    check_sealed(world, requests, Projection(max_len, traits=["item", "event_ts", "basket"]))


@given(st.data())
def test_sealed_examples_mean_the_same(data: st.DataObject) -> None:
    world = data.draw(worlds())
    requests = data.draw(requests_of(world))
    projection = data.draw(PROJECTIONS)
    check_sealed(world, requests, projection)


@given(st.integers(0, 10**6), st.sampled_from([50, 700, None]), st.sampled_from(GROWN))
def test_long_examples_mean_the_same_sealed(seed: int, max_len: int | None, world: World) -> None:
    older = [
        replace(request, watermark=min(request.watermark, 700 * (k % 5)))
        for k, request in enumerate(some_requests(world, seed, 8))
    ]
    check_sealed(world, older, Projection(max_len, traits=["item", "event_ts"]))


def check_sealed(world: World, requests: Sequence[Request], projection: Projection) -> None:
    examples = world.examples(requests)
    carrying = [
        bool(world.visible(request, request.watermark, request.cutoff) or world.superseded(request))
        for request in requests
    ]
    covered = [request.cutoff <= world.watermark for request in requests]
    sealed, report = seal_with_report(world, examples)
    both = sum(carries and covers for carries, covers in zip(carrying, covered, strict=True))
    not_covered = sum(carrying) - both
    assert report == SealReport(sealed=both, already=len(requests) - sum(carrying), not_covered=not_covered)
    assert sealed.schema == examples.schema
    check_examples(world, sealed, requests, projection)
    for row, (carries, covers) in enumerate(zip(carrying, covered, strict=True)):
        recent = sealed["recent"][row].as_py()
        assert (not recent["event_ts"] and not recent["supersedes"]) == (not carries or covers)
    again, second = seal_with_report(world, sealed)
    assert again is sealed
    assert second == SealReport(already=len(requests) - not_covered, not_covered=not_covered)


@given(st.data())
def test_retention_serves_what_it_left_enough_of_and_nothing_else(data: st.DataObject) -> None:
    whole = data.draw(worlds())
    users = sorted({event.user for event in whole.events})
    kept_from = data.draw(st.fixed_dictionaries({user: st.integers(0, 9) for user in users}))
    check_retained(whole, kept_from, data.draw(requests_of(whole)), data.draw(PROJECTIONS))


@given(st.integers(0, 10**6), st.sampled_from([1, 5, 50, 200]), st.sampled_from(DENSE), st.integers(0, 60))
def test_retention_of_long_histories(seed: int, max_len: int, whole: World, kept_from: int) -> None:
    kept = dict.fromkeys(range(3), kept_from)
    check_retained(whole, kept, dense_requests(whole, seed, 25), Projection(max_len, traits=["item", "event_ts"]))


@given(st.data())
def test_streams_are_served_where_retention_left_what_they_look_at(data: st.DataObject) -> None:
    whole = data.draw(worlds())
    users = sorted({event.user for event in whole.events})
    kept_from = data.draw(st.fixed_dictionaries({user: st.integers(0, 9) for user in users}))
    check_retained(whole, kept_from, data.draw(requests_of(whole)), data.draw(stream_projections(whole)))


@given(
    st.integers(0, 10**6),
    STREAMS,
    st.sampled_from([None, 0, 5, 50, 200]),
    st.sampled_from([None, None, 0, 7]),
    st.sampled_from(DENSE),
    st.integers(0, 60),
)
@example(1, [(20, None)], None, 0, DENSE[0], 60)
@example(1, [(0, None), (0, None)], None, None, DENSE[0], 60)
def test_streams_of_long_histories_after_retention(
    seed: int, kinds: list[tuple[int, Any]], scan: int | None, max_len: int | None, whole: World, kept_from: int
) -> None:
    streams = {f"{i}": last(count, where) for i, (count, where) in enumerate(kinds)}
    kept, requests = dict.fromkeys(range(3), kept_from), dense_requests(whole, seed, 25)
    check_retained(whole, kept, requests, Projection(max_len, traits=["item", "event_ts"], streams=streams, scan=scan))


def stream_projections(world: World) -> st.SearchStrategy[Projection]:
    return strategies.streams(world.schema).map(lambda drawn: Projection(**drawn | {"ids": ()}))


def check_retained(
    whole: World, kept_from: dict[Any, int], requests: Sequence[Request], projection: Projection
) -> None:
    examples = whole.examples(requests)
    world = World(whole.schema, whole.events, whole.watermark, kept_from)
    materializer = Materializer(world, projection, on_missing="mask")
    resolved = materializer.resolve(examples)
    batch = materializer.batch(resolved)
    if not projection.streams:
        assert resolved.shown(projection.max_len).lengths.tolist() == batch.lengths.tolist()
    history = batch.to_arrow()["history"].combine_chunks()
    reach = projection.max_len
    if projection.streams and reach != 0:
        reach = projection.scan if any(stream.count for _, stream in projection.kinds) else 0
    served = [is_served(world, request, reach) for request in requests]
    assert batch.weights.tolist() == [float(serve) for serve in served]
    for row, (request, serve) in enumerate(zip(requests, served, strict=True)):
        wanted = expected(world, request, projection)
        assert plain(history, row) == (wanted if serve else {name: [] for name in wanted})
    if not all(served):
        with pytest.raises(ExpiredError, match=f"row {served.index(False)}, user "):
            Materializer(world, projection)(examples)


def is_served(world: World, request: Request, max_len: int | None) -> bool:
    """R15: whether all that is wanted lies at or after the oldest event that is left of those the pointer means."""
    meant = world.visible(request, -(2**62), request.watermark)
    left = [event for event in meant if event.event_ts >= world.kept_from.get(event.user, 0)]
    if len(left) == len(meant) or max_len == 0:
        return True
    if max_len is None or not left:
        return False
    sequence = world.visible(request, -(2**62), request.cutoff)
    return sum(event.event_ts >= left[0].event_ts for event in sequence) >= max_len


@given(st.data())
def test_examples_from_before_a_scrub_are_refused(data: st.DataObject) -> None:
    world = data.draw(worlds())
    requests = data.draw(requests_of(world))
    projection = data.draw(PROJECTIONS | stream_projections(world))
    examples = world.examples(requests)
    users = sorted({event.user for event in world.events})
    scrubs = data.draw(st.lists(st.tuples(st.sampled_from(users), st.integers(0, 16)), max_size=3)) if users else []
    for number, (user, scrub_ts) in enumerate(scrubs):
        key = user_keys(pa.array([user], world.schema.user_id))
        world.scrubs.write(number, scrub_ts, world.scrubs.body(key))
    refused = [any(r.user == user and r.cutoff <= ts for user, ts in scrubs) for r in requests]
    batch = Materializer(world, projection, on_missing="mask")(examples)
    history = batch.to_arrow()["history"].combine_chunks()
    assert batch.weights.tolist() == [float(not refuse) for refuse in refused]
    for row, (request, refuse) in enumerate(zip(requests, refused, strict=True)):
        wanted = expected(world, request, projection)
        assert plain(history, row) == ({name: [] for name in wanted} if refuse else wanted)
    if any(refused):
        with pytest.raises(ScrubbedError, match=f"row {refused.index(True)}, user "):
            Materializer(world, projection)(examples)
