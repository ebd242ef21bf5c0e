"""What writers do: append on time, late, with ingest times of their own, twice, many at once; load in bulk."""

from dataclasses import replace

import pyarrow as pa

from latewood.compaction import bulk_load
from latewood.intake import read_events
from latewood.mutable import AppendReceipt, Late
from latewood.testing.simulation import laws
from latewood.testing.simulation.broken import require
from latewood.testing.simulation.model import Row, Version, append_table
from latewood.testing.simulation.process import Asked, Process

WORDS = [None, "", "like", "share", "🌲"]
KINDS = [None, 0, -1, 127]


def draw_rows(process: Process, count: int, spread: int = 9) -> list[Row]:
    """Rows whose times lie close together, so that they tie."""
    world, chance = process.world, process.chance
    rows = []
    for _ in range(count):
        number, event_ts = world.next_number(), world.time.now + chance.between(-spread, 2)
        word = f"w{number}" if chance.happens(0.1) else chance.among(WORDS)
        rows.append(Row(number, draw_user(process), event_ts, word, chance.among(KINDS)))
    return rows


def draw_user(process: Process) -> int | str:
    users: list[int | str] = ["a", "ü", ""] if process.world.schema.user_id == pa.string() else [7, -1, 0]
    return users[process.chance.below(process.world.plan.users)]


def append(process: Process) -> None:
    """Without times of its own, with ids or not."""
    rows = draw_rows(process, process.chance.between(0, 6))
    give_ids(process, rows)
    submit(process, Asked(rows))


def append_many(process: Process) -> None:
    """Enough for several stripes of one user."""
    submit(process, Asked(draw_rows(process, process.chance.between(200, 600), spread=300)))


def append_with_times(process: Process) -> None:
    """With ingest times, some of them too old, now and then one too far ahead."""
    chance, world = process.chance, process.world
    rows = draw_rows(process, chance.between(1, 6))
    start = chance.among([world.time.now, world.closed, world.log.head().tier.frontier])
    ahead = world.settings.max_ahead_us + 20 if chance.happens(0.05) else 0
    for row in rows:
        row.ingest_ts = max(start, world.time.now - 30) + chance.between(-4, 4) + ahead
    give_ids(process, rows)
    submit(process, Asked(rows, explicit=True, stamp_late=chance.happens(0.5)))


def append_again(process: Process) -> None:
    """Some rows that were given before, as an upstream that replays, among new ones; now and then with other content."""
    chance, model = process.chance, process.world.model
    known = chance.some(list(model.by_id.values()), 3)
    rows = [replace(version.row, ingest_ts=None) for version in known]
    if rows and chance.happens(0.2):
        rows[0].number = process.world.next_number()
    rows = list({row.number: row for row in rows}.values())
    rows += draw_rows(process, chance.between(0, 2))
    submit(process, Asked(rows))


def give_ids(process: Process, rows: list[Row]) -> None:
    """An event id to all, to some, or to none."""
    share = process.chance.among([0.0, 0.5, 1.0])
    for row in rows:
        if process.chance.happens(share):
            row.event_id = f"id-{row.number}"


def submit(process: Process, asked: Asked) -> None:
    """Append, and check the answer."""
    process.asked = asked
    table = append_table(asked.rows, process.world.schema)
    late: Late = "stamp" if asked.stamp_late else "raise"
    receipt = process.attempt(lambda: process.store.append(table, late=late), lambda: may_refuse(process, asked))
    if receipt is not None:
        check_receipt(process, asked, receipt)
    elif asked.taken:
        require(process.host.errors > 0, "an append was refused, and is there all the same:", asked)


def may_refuse(process: Process, asked: Asked) -> bool:
    """Whether an append gives a reason to refuse it: an import too old, a stamp too far ahead, an id used otherwise."""
    world, state = process.world, process.world.log.head().tier
    given = [row.ingest_ts for row in asked.rows if row.ingest_ts is not None]
    if given and not asked.stamp_late and min(given) < laws.earliest_import(state):
        return True
    latest = max([state.last + len(asked.rows), process.told + len(asked.rows), *given])
    if latest + len(asked.rows) > process.told + world.settings.max_ahead_us:
        return True
    known = [world.model.by_id.get(row.event_id or "") for row in asked.rows]
    return any(
        other is not None and other.row.number != row.number for row, other in zip(asked.rows, known, strict=True)
    )


def check_receipt(process: Process, asked: Asked, receipt: AppendReceipt) -> None:
    """R13, R14: a receipt tells each row's place, or that of the event it repeats."""
    count = len(asked.taken)
    require((receipt.count, receipt.duplicates) == (count, len(asked.rows) - count), "another receipt:", receipt, asked)
    for row, ingest_ts, ordinal in zip(asked.rows, receipt.ingest_ts.tolist(), receipt.ordinal.tolist(), strict=True):
        version: Version = asked.taken.get(row.number) or process.world.model.by_id[row.event_id or ""]
        place = version.ingest_ts, version.ordinal
        require((ingest_ts, ordinal) == place, "the receipt says", (ingest_ts, ordinal), "and not", place, row)


def load_in_bulk(process: Process) -> None:
    """Old data, straight into a generation."""
    chance, world, store = process.chance, process.world, process.store
    rows = draw_rows(process, chance.between(1, 8))
    for row in rows:
        row.ingest_ts = max(world.closed, world.time.now - 20) + chance.between(-3, 4)
    process.asked, before = Asked(rows, explicit=True), len(world.generations)
    table = append_table(rows, world.schema)

    def load() -> object:
        split = chance.between(0, len(rows))
        parts = (table.slice(0, split), table.slice(split))
        events = [read_events(part, world.schema, store.encode).events for part in parts]
        return bulk_load(store, events, keep=chance.between(1, 3), workers=1)

    if process.attempt(load, lambda: may_refuse(process, Asked(rows)) or len(world.generations) > before):
        process.attempt(store.refresh)
