"""What writers do: append on time, late, with ingest times of their own, twice, many at once; correct; load in bulk."""

from dataclasses import replace
from typing import Any

import pyarrow as pa

from latewood.compaction import bulk_load
from latewood.events import NEVER
from latewood.intake import read_events
from latewood.mutable import AppendReceipt, Late
from latewood.schema import Schema, Trait
from latewood.testing.simulation import admission
from latewood.testing.simulation.admission import Fate
from latewood.testing.simulation.broken import require
from latewood.testing.simulation.model import NUMBER, Model, Place, Row, Version, append_table
from latewood.testing.simulation.process import Asked, Process

WORDS = [None, "", "like", "share", "🌲"]
USERS: dict[pa.DataType, list[int | str]] = {
    pa.int64(): [7, -1, 0],
    pa.string(): ["user-alpha", "user-beta-ü", "user-gamma"],
}


def draw_user(process: Process) -> int | str:
    return USERS[process.world.model.user_type][process.chance.below(process.world.plan.users)]


def draw_rows(process: Process, count: int, schema: Schema, *, spread: int = 9) -> list[Row]:
    """Rows whose times lie close together, so that they tie."""
    world, chance = process.world, process.chance
    rows = []
    for _ in range(count):
        number, event_ts = world.next_number(), world.time.now + chance.between(-spread, 2)
        values = {trait.name: draw_value(process, trait, number) for trait in schema}
        rows.append(Row(number, draw_user(process), event_ts, values))
    return rows


def draw_schema(process: Process) -> Schema:
    """What the process knows, or what it could know."""
    return process.chance.among([process.store.schema, process.world.generations[-1].schema])


def draw_value(process: Process, trait: Trait, number: int) -> Any:
    if trait.name == NUMBER:
        return number
    if trait.is_list:
        return _draw_list(process, trait, number)
    if trait.coded:  # now and then a value that nothing else has
        return f"secret-{number:06d}" if process.chance.happens(0.15) else process.chance.among(WORDS)
    return process.chance.among([None, 0, -1, 127])


def _draw_list(process: Process, trait: Trait, number: int) -> list[Any] | None:
    """Null, empty, short, or now and then of more items than are stored together."""
    chance = process.chance
    if chance.happens(0.2):
        return None
    size = trait.list_size
    if size is None:
        size = chance.among([0, 1, 2, 3, 300]) if chance.happens(0.1) else chance.between(0, 3)
    if not trait.coded:
        return [chance.among([0, -1, 127]) for _ in range(size)]
    words = [chance.among(WORDS[1:]) for _ in range(size)]
    return [*words[1:], f"secret-{number:06d}"] if words and chance.happens(0.15) else words


def give_ids(process: Process, rows: list[Row]) -> None:
    """An event id to all, to some, or to none."""
    share = process.chance.among([0.0, 0.5, 1.0])
    for row in rows:
        if process.chance.happens(share):
            row.event_id = f"id-{row.number}"


def append(process: Process) -> None:
    """Without times of its own, with ids or not."""
    schema = draw_schema(process)
    rows = draw_rows(process, process.chance.between(0, 6), schema)
    give_ids(process, rows)
    submit(process, Asked(rows, schema))


def append_many(process: Process) -> None:
    """Enough for several stripes of one user."""
    schema = draw_schema(process)
    submit(process, Asked(draw_rows(process, process.chance.between(200, 600), schema, spread=300), schema))


def append_with_times(process: Process) -> None:
    """With ingest times, some of them too old, now and then one too far ahead."""
    schema = draw_schema(process)
    rows = draw_rows(process, process.chance.between(1, 6), schema)
    give_times(process, rows)
    give_ids(process, rows)
    submit(process, Asked(rows, schema, stamp_late=process.chance.happens(0.5)))


def give_times(process: Process, rows: list[Row]) -> None:
    """Ingest times around what is closed, fixed, or now."""
    chance, world = process.chance, process.world
    start = chance.among([world.time.now, world.closed, world.log.head().tier.frontier])
    ahead = world.settings.max_ahead_us + 20 if chance.happens(0.05) else 0
    for row in rows:
        row.ingest_ts = max(start, world.time.now - 30) + chance.between(-4, 4) + ahead
    tie(process, rows)


def tie(process: Process, rows: list[Row]) -> None:
    """Give some rows the user and both times of one above, or of one that came before."""
    chance, older = process.chance, process.world.model.versions[-12:]
    for i, row in enumerate(rows):
        if row.target is None and chance.happens(0.3):
            if i and chance.happens(0.6):
                row.user, row.event_ts, row.ingest_ts = rows[0].user, rows[0].event_ts, rows[0].ingest_ts
            elif older:
                row.user, row.event_ts, row.ingest_ts, _ = chance.among(older).place


def append_again(process: Process) -> None:
    """Some rows that were given before, as an upstream that replays, among new ones; now and then with other content."""
    chance, world, schema = process.chance, process.world, process.store.schema
    if world.changes:
        return  # the same row would say something else by another schema
    known = [version for versions in world.model.by_id.values() for version in versions if version.row.target is None]
    picked = {version.row.number: version for version in chance.some(known, 3)}
    rows = [replace(version.row, ingest_ts=None) for version in picked.values()]
    if rows and chance.happens(0.2):
        rows[0].number = world.next_number()
        rows[0].values = rows[0].values | {NUMBER: rows[0].number}
    submit(process, Asked(rows + draw_rows(process, chance.between(0, 2), schema), schema))


def correct(process: Process) -> None:
    """R13: corrections and deletions, by id or by place, of what there is and now and then of what there is not."""
    chance, world = process.chance, process.world
    by_place, schema = chance.happens(0.5), draw_schema(process)
    known = [v for v in world.model.versions[-40:] if by_place or v.row.event_id is not None]
    if not chance.happens(0.1):  # what is superseded is refused
        known = [version for version in known if version.superseded_at == NEVER]
    if not known:
        return
    rows = draw_rows(process, chance.between(1, 4), schema)
    for row in rows:
        if known and chance.happens(0.8):
            row.target = chance.among(known)
            row.user = row.target.row.user if chance.happens(0.95) else row.user
            row.is_deletion = chance.happens(0.4)
            if row.is_deletion:
                row.values = {}
            elif chance.happens(0.5):  # a correction often happened when what it corrects did
                row.event_ts = row.target.row.event_ts
            if not row.is_deletion and chance.happens(0.4):  # ... and often goes by its id
                row.event_id = row.target.row.event_id
            if row.event_id is None and not chance.happens(0.1):
                known.remove(row.target)  # one that has a newer version of another id is not corrected again
        elif chance.happens(0.5):
            row.event_id = f"id-{row.number}"
    if chance.happens(0.2):
        give_times(process, rows)
    submit(process, Asked(rows, schema, stamp_late=chance.happens(0.5), by_place=by_place))


def correct_twice(process: Process) -> None:
    """R13: a correction of what is superseded, by its place or by its id. It must be refused, wherever that lies by now."""
    chance, model = process.chance, process.world.model
    by_place, schema = chance.happens(0.5), draw_schema(process)
    known = [v for v in model.versions[-80:] if v.superseded_at != NEVER and (by_place or _is_newest(model, v))]
    floor = process.world.log.head().tier.floor
    if (stored := [v for v in known if v.superseded_at < floor]) and chance.happens(0.7):
        known = stored  # what only a generation knows
    if not known:
        return
    [row] = draw_rows(process, 1, schema)
    row.target = chance.among(known)
    row.user = row.target.row.user
    row.event_id = chance.among([None, f"id-{row.number}", None if by_place else row.target.row.event_id])
    asked = Asked([row], schema, by_place=by_place)
    receipt = submit(process, asked)  # should it be taken in, the commit is judged
    require(receipt is None or receipt.skipped > 0 or asked.judged is not None, "R13: taken for a repetition:", row)


def _is_newest(model: Model, version: Version) -> bool:
    return version.row.event_id is not None and model.by_id[version.row.event_id][-1] is version


def submit(process: Process, asked: Asked) -> AppendReceipt | None:
    """Append, and check the answer. Returns: None if it was refused."""
    process.asked = asked
    table = append_table(asked.rows, asked.schema, by_place=asked.by_place)
    late: Late = "stamp" if asked.stamp_late else "raise"
    receipt = process.attempt(
        lambda: process.store.append(table, late=late),
        lambda: may_refuse(process, asked),
        fits={name for name in table.column_names if name not in ("user_id", "event_ts")},
    )
    if receipt is not None:
        check_receipt(process.world.model, asked, receipt)
    elif asked.judged is not None:
        require(process.host.errors > 0, "an append was refused, and is there all the same:", asked)
    return receipt


def may_refuse(process: Process, asked: Asked) -> bool:
    """Whether there is a reason to refuse an append: rows too old or too far ahead, ids of others, targets that are not."""
    world, state = process.world, process.world.log.head().tier
    given = [row.ingest_ts for row in asked.rows if row.ingest_ts is not None]
    if given and not asked.stamp_late and min(given) < admission.earliest_import(state):
        return True
    latest = max([state.last + len(asked.rows), process.told + len(asked.rows), *given])
    if latest + len(asked.rows) > process.told + world.settings.max_ahead_us:
        return True
    if _is_superseded(process, asked):
        return True
    return any(_is_other(process, asked, row) or _is_doubtful(process, row) for row in asked.rows)


def _is_superseded(process: Process, asked: Asked) -> bool:
    """Whether a row supersedes what is superseded already, or what a row above supersedes."""
    model, met = process.world.model, list[Version | Row | Place]()
    for i, row in enumerate(asked.rows):
        if row.target is None:
            continue
        for above in (asked.rows[:i], []):  # those above may be left out themselves
            named = model.named(row, above, by_place=asked.by_place)
            place = named.place if isinstance(named, Version) else named
            if not isinstance(place, Row) and place in model.superseded:
                return True
        if named in met:
            return True
        met.append(named)
    return False


def _is_other(process: Process, asked: Asked, row: Row) -> bool:
    """Whether a row's id was used for another, which the row does not name by it."""
    known = process.world.model.by_id.get(row.event_id or "", [])
    supersedes_itself = not asked.by_place and row.target is not None and row.target.row.event_id == row.event_id
    return not supersedes_itself and any(version.row.number != row.number for version in known)


def _is_doubtful(process: Process, row: Row) -> bool:
    """Whether what a row supersedes may be unknown, another's, or later than the row."""
    target = row.target
    if target is None:
        return False
    is_known = admission.is_remembered(process.world, target, process.world.log.head().tier)
    return row.ingest_ts is not None or target.row.user != row.user or target.gone_by is not None or not is_known


def check_receipt(model: Model, asked: Asked, receipt: AppendReceipt) -> None:
    """R13, R14, R16: a receipt tells each row's place, or that of what it repeats; and what was left out."""
    if asked.judged is None:  # nothing was new
        require(receipt.count == 0, "not committed:", receipt, asked)
        return
    fates = [judgement.fate for judgement in asked.judged]
    told = receipt.count, receipt.duplicates, receipt.skipped
    least = [fates.count(fate) for fate in (Fate.NEW, Fate.REPEATED, Fate.SKIPPED)]
    is_right = told[0] == least[0] and told[1] >= least[1] and told[2] >= least[2] and sum(told) == len(fates)
    require(is_right, "another receipt:", receipt, asked)
    stamps = zip(receipt.ingest_ts.tolist(), receipt.ordinal.tolist(), strict=True)
    for judgement, stamped in zip(asked.judged, stamps, strict=True):
        version: Version | None = judgement.version
        if version is not None:
            place = version.ingest_ts, version.ordinal
            # of what a scrub took, only its hashes are remembered, and when a scrub took it
            scrubs = [
                scrub for scrub in model.scrubs if version.gone_by is not None and version.row.user in scrub.users
            ]
            places = {place, *((scrub.scrub_ts, -1) for scrub in scrubs)}
            require(stamped in places, "the receipt says", stamped, "and not", place, judgement)
        elif judgement.ingest_ts is not None:
            require(stamped == (judgement.ingest_ts, -1), "the receipt says", stamped, "of a deletion", judgement)


def load_in_bulk(process: Process) -> None:
    """Old data, straight into a generation."""
    chance, world, store = process.chance, process.world, process.store
    schema, read_by, before = store.schema, store.generation.change, len(world.generations)
    rows = draw_rows(process, chance.between(1, 8), schema)
    for row in rows:
        row.ingest_ts = max(world.closed, world.time.now - 20) + chance.between(-3, 4)
    tie(process, rows)
    process.asked = world.loading[process.host] = asked = Asked(rows, schema)
    table = append_table(rows, schema)

    def load() -> object:
        split = chance.between(0, len(rows))
        parts = (table.slice(0, split), table.slice(split))
        events = [read_events(part, schema, store.encode).events for part in parts]
        return bulk_load(store, events, change=read_by, keep=chance.between(1, 3), workers=1)

    changes, blanked = len(world.changes), store.vocabulary.blanked

    def refused() -> bool:
        was_applied = world.generations[-1].change > read_by
        was_changed = was_applied or len(world.changes) > changes or world.log.head().tier.blanked != blanked
        return was_changed or may_refuse(process, asked) or len(world.generations) > before

    if process.attempt(load, refused):
        process.attempt(store.refresh)
