"""Real stores on disk, for tests with real processes: events to put in, all that is in, and what is left behind.

Every event carries a `serial` that no other has, so that "once, and only once" can be asked of a store whatever moved
its events about. Every logged example carries `served`, a hash of what the model was fed when it was logged: whoever
reads the log later can tell by the example alone whether it still materializes to the same bytes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

import latewood as lw
from latewood.clock import HOUR_US
from latewood.columns import Lists, column_to_arrow
from latewood.events import NEVER, Events
from latewood.examples import open_examples
from latewood.immutable import Generation
from latewood.schema import TIME_TYPE, Trait
from latewood.testing import Oracle, different_rows
from latewood.users import user_keys

TRAITS = pa.schema(
    [
        pa.field("serial", pa.int64(), nullable=False),
        ("word", pa.string()),
        ("action", pa.dictionary(pa.int32(), pa.string())),
        ("score", pa.float64()),
        ("flag", pa.bool_()),
        ("tags", pa.list_(pa.string())),
        ("pair", pa.list_(pa.float32(), 2)),
    ]
)
SCHEMA = lw.Schema(user_id=pa.int64(), traits=TRAITS)
USERS = 9
TICK = 1_000_000  # event times lie on a coarse clock, so that they tie
EVERYTHING = lw.Projection(traits=["event_ts", *TRAITS.names])  # whatever else is added to the schema
NO_EVENTS = pa.schema(
    [
        *(("user_id", pa.int64()), ("event_ts", TIME_TYPE), ("ingest_ts", pa.int64()), ("ordinal", pa.int32())),
        *((field.name, pa.string() if field.name == "action" else field.type) for field in TRAITS),
        ("superseded_at", pa.int64()),
    ]
).empty_table()
_ORDER = ("user_id", "event_ts", "ingest_ts", "ordinal")
_ODD_SCORES = [float("nan"), -0.0, float("inf"), 1e-310]


def make_events(rng: np.random.Generator, serials: NDArray[np.int64], now: int) -> pa.Table:
    """Events of a few users: most of the last minutes, some an hour late, some of the future, many at equal times."""
    n = len(serials)
    late = np.where(rng.random(n) < 0.1, HOUR_US, 0)
    event_ts = (now - late + rng.integers(-200, 5, n) * TICK) // TICK * TICK
    score = np.where(rng.random(n) < 0.2, rng.choice(_ODD_SCORES, n), rng.random(n))
    words = [f"word-{serial // 8}" if serial % 3 else f"old-{serial % 5}" for serial in serials.tolist()]
    tags = [
        [f"tag-{serial // 8}", f"old-{serial % 5}", "old-all"][: serial % 4] if serial % 11 else None
        for serial in serials.tolist()
    ]
    return pa.table(
        {
            "user_id": rng.integers(0, USERS, n),
            "event_ts": pa.array(event_ts).view(TIME_TYPE),
            "serial": serials,
            "word": pa.array(words, pa.string(), mask=rng.random(n) < 0.1),
            "action": pa.array(rng.choice(["view", "like", "buy"], n)).dictionary_encode(),
            "score": pa.array(score, pa.float64(), mask=rng.random(n) < 0.1),
            "flag": pa.array(rng.random(n) < 0.5, mask=rng.random(n) < 0.1),
            "tags": pa.array(tags, pa.list_(pa.string())),
            "pair": pa.FixedSizeListArray.from_arrays(pa.array(rng.random(2 * n), pa.float32()), 2),
        }
    )


def with_receipt(table: pa.Table, ingest_ts: NDArray[np.int64], ordinal: NDArray[np.int32]) -> pa.Table:
    """Events as they are in the store: with the place that the receipt told, in the order of arrival."""
    plain = table.select(["user_id", "event_ts", *TRAITS.names])
    plain = plain.set_column(plain.column_names.index("action"), "action", plain["action"].cast(pa.string()))
    plain = plain.append_column("ingest_ts", pa.array(ingest_ts, pa.int64()))
    plain = plain.append_column("ordinal", pa.array(ordinal, pa.int32()))
    return plain.append_column("superseded_at", pa.nulls(len(plain), pa.int64()))


# ---- what a store holds


def stored_events(store: lw.Store) -> pa.Table:
    """All events of both tiers, each tier's own: those of the mutable tier that readers take, by the watermark (R11).

    Also what was scrubbed and is still in the generation.
    """
    reader = store.refresh()
    assert store.tier is not None
    state, watermark = store.tier.state(), reader.generation.watermark
    first, stop = max(watermark, state.floor), max(watermark, state.closed)
    parts = [*reader.scan(list(store.schema)), *store.tier.scan(first, stop)]
    suppressed = store.tier.suppressions(first, stop)
    tables = [_plain(store, events.marked(suppressed)) for events in parts]
    return pa.concat_tables([NO_EVENTS, *tables]).combine_chunks()


def _plain(store: lw.Store, events: Events) -> pa.Table:
    columns: dict[str, Any] = {
        "user_id": events.user_ids,
        "event_ts": pa.array(events.event_ts).view(TIME_TYPE),
        "ingest_ts": events.ingest_ts,
        "ordinal": events.ordinal,
        "superseded_at": pa.nulls(len(events), pa.int64()),
    }
    if (times := events.superseded_at) is not None:
        columns["superseded_at"] = pa.array(times, mask=times == NEVER)
    for name in TRAITS.names:
        trait = store.schema[name]
        column = events.traits[trait.id]
        if isinstance(column, Lists):
            to_arrow = store.vocabulary.to_arrow if trait.coded else _lists_to_arrow
            columns[name] = to_arrow(trait, column)
        elif trait.coded:
            used = column.known
            words = store.vocabulary.values(trait.id, at_least=int(used.max(initial=-1)) + 1)
            columns[name] = words.take(pa.array(column.values, mask=column.mask))
        else:
            columns[name] = column_to_arrow(column, trait.value_type)
    return pa.table(columns).select(NO_EVENTS.column_names).cast(NO_EVENTS.schema)


def _lists_to_arrow(trait: Trait, column: Lists) -> pa.Array:
    return column_to_arrow(column, trait.value_type)


def in_order(events: pa.Table) -> pa.Table:
    """Sorted by user and the total order, with the columns of `stored_events`."""
    order = [(name, "ascending") for name in _ORDER]
    return events.select(NO_EVENTS.column_names).cast(NO_EVENTS.schema).sort_by(order)


# ---- examples


def digests(batch: lw.Batch) -> list[str]:
    """A hash of each example's history, every bit of it."""
    found = []
    for start, stop in zip(batch.offsets[:-1].tolist(), batch.offsets[1:].tolist(), strict=True):
        digest = xxhash.xxh3_64(str(stop - start).encode())
        for name in batch.values:
            column, mask = batch.column(name, start, stop), batch.masks.get(name)
            if isinstance(column, Lists):
                digest.update(name.encode() + column.lengths.tobytes() + column.compact().items.tobytes())
            else:
                digest.update(name.encode() + np.ascontiguousarray(column.values).tobytes())
            digest.update(bytes(stop - start) if mask is None else mask[start:stop].tobytes())
        found.append(digest.hexdigest())
    return found


def with_digests(store: lw.Store, examples: pa.Table) -> pa.Table:
    """Examples to log, each with a hash of what it is now. A backfill may ask for the time before a scrub: refused.

    `withheld`: between a scrub of some of a user's events and the compaction that removes them, the stored part of the
    history is not served at all, so that the oracle knows more than the request saw.
    """
    served = digests(lw.Materializer(store, EVERYTHING, on_missing="mask")(examples))
    times = store.scrubs.scrubbed_at(user_keys(examples["user_id"].combine_chunks()))
    examples = examples.append_column("withheld", pa.array(times >= store.generation.watermark))
    return examples.append_column("served", pa.array(served, pa.string()))


def different_examples(
    store: lw.Store, examples: pa.Table, events: pa.Table, scrubbed_at: Mapping[int, int] | None = None
) -> list[str]:
    """What is wrong with logged examples: other bytes than when logged, or other events than the oracle says.

    Args: scrubbed_at: when users were last scrubbed. What was logged of them before must be refused.
    """
    if not len(examples):
        return []
    batch = lw.Materializer(store, EVERYTHING, on_missing="mask")(examples)
    users, cutoffs = examples["user_id"].to_pylist(), examples["cutoff"].cast(pa.int64()).to_pylist()
    times = scrubbed_at or {}
    good = [cutoff > times.get(user, cutoff - 1) for user, cutoff in zip(users, cutoffs, strict=True)]
    wrong = [
        f"row {row}: {'refused' if ok else 'not refused'}" for row, ok in enumerate(good) if ok != batch.weights[row]
    ]
    now, then = digests(batch), examples["served"].to_pylist()
    wrong += [f"row {row}: other bytes than when logged" for row, ok in enumerate(good) if ok and now[row] != then[row]]
    rows = pa.array(np.flatnonzero(np.array(good) & ~examples["withheld"].to_numpy()))
    expected = Oracle(in_order(events).drop_columns(["ordinal"])).fat_rows(examples.take(rows), EVERYTHING)
    found = batch.to_arrow().select(expected.column_names).take(rows)
    return wrong + [f"row {rows[i]}: the oracle says otherwise" for i in different_rows(found, expected).tolist()]


def read_log(folder: Path) -> pa.Table | None:
    """All examples of a log, as trainers see them; None if it has none yet."""
    if not any(folder.rglob("*.parquet")):
        return None
    source = open_examples(str(folder))
    return source.take(np.arange(len(source)))


def repeated(values: pa.ChunkedArray) -> list[Any]:
    """The values that occur more than once."""
    counts = pc.value_counts(values)
    return counts.field("values").filter(pc.greater(counts.field("counts"), 1)).to_pylist()


# ---- what is left behind


def stray_files(folder: Path, generations: Sequence[Generation]) -> list[str]:
    """Files of a store's folder that nothing accounts for, just after a compaction that keeps these generations."""
    shards = {shard.key for generation in generations for shard in generation.shards}
    return [name for name in _files(folder) if name not in shards and not _belongs(name)]


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _belongs(name: str) -> bool:
    """Whether a file is one of those that a store always has; its generations' data come besides."""
    parts = Path(name).parts
    if len(parts) == 1:
        return name == "store.json"
    if parts[0] in ("manifests", "changes", "scrubs", "pins"):
        return len(parts) == 2 and name.endswith(".json")
    if parts[0] == "vocabulary":
        return name.endswith((".arrow", ".json"))
    if parts[0] != "mutable":
        return False
    if len(parts) == 2:
        return parts[1] in ("store", "lock", "open", "load")
    return name.endswith((".lmdb", ".lmdb-lock")) if parts[1] == "segments" else name.endswith(".ids")
