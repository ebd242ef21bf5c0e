"""What an append must have done, judged by the text of docs/protocol.md when it is committed.

which rows are new, which repeat an id (R14), which tell of the time before a scrub (R16)
what the new ones are stamped (R1, R5, R7), and their place among ties (R1)
what they supersede (R13)
"""

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from latewood.events import NEVER, Events
from latewood.mutable.event_batch import EventBatch
from latewood.mutable.log import LogState
from latewood.mutable.tier import TierState
from latewood.testing.simulation import laws
from latewood.testing.simulation.broken import require
from latewood.testing.simulation.model import NUMBER, Place, Row, Version, has_name

if TYPE_CHECKING:
    from latewood.testing.simulation.process import Asked, Process
    from latewood.testing.simulation.world import World

Named = tuple[Any, int, int, int, int]  # the place of what is superseded, and when


class Fate(Enum):
    """What becomes of a row."""

    NEW = "new"
    REPEATED = "repeated"  # or deletes what is deleted
    SKIPPED = "skipped"
    LEFT_OUT = "repeated or skipped"  # deletes what is deleted and scrubbed: which of the two the tier knows, depends


@dataclass(slots=True)
class Judgement:
    """A row, and what must have become of it."""

    row: Row
    fate: Fate
    version: Version | None = None  # what it repeats, or became
    ingest_ts: int | None = None
    known: int = 0  # how many versions there were before it


def take_batch(world: "World", process: "Process", asked: "Asked", before: LogState, batch: EventBatch) -> None:
    """A batch was committed: its rows enter the model, if they are what was asked for and treated as the rules say."""
    events, versions = batch.events, batch.versions
    laws.check_traits(world, before.tier.changes, events)
    numbers = events.traits[asked.schema[NUMBER].id].known.tolist()
    named: list[Named] = []
    if versions is not None:
        columns = versions.suppressions
        parts = (columns.event_ts, columns.ingest_ts, columns.ordinal, columns.at)
        named = list(zip(versions.user_ids.to_pylist(), *(column.tolist() for column in parts), strict=True))
    judge = _Judge(world, asked, before, set(numbers), named)
    judged = judge.judge()
    stamp(world, process, asked, before.tier, judged)
    fresh = [judgement for judgement in judged if judgement.fate is Fate.NEW]
    given = [j for j in fresh if not j.row.is_deletion]
    require(numbers == [j.row.number for j in given], "not the rows that were asked for:", numbers, given)
    stamps = list(zip(events.ingest_ts.tolist(), events.ordinal.tolist(), strict=True))
    require([j.ingest_ts for j in given] == [stamp_ for stamp_, _ in stamps], "R1, R5, R7: stamps", stamps, given)
    ordinals = iter(ordinal for _, ordinal in stamps)
    for judgement in fresh:
        row, judgement.known = judgement.row, len(world.model.versions)
        if row.is_deletion:
            continue
        assert judgement.ingest_ts is not None
        values = {_trait_id(name, process, asked, events): value for name, value in row.values.items()}
        judgement.version = world.model.add(row, judgement.ingest_ts, values)
        ordinal = next(ordinals)
        require(judgement.version.ordinal == ordinal, f"R1: ordinal {ordinal}:", judgement)
    judge.supersede(fresh)
    asked.judged = judged


def _trait_id(name: str, process: "Process", asked: "Asked", events: Events) -> int:
    """Whose values a column's are: by the schema of now, or by the one of then, if a change has come between."""
    schemas = [schema for schema in (process.store.schema, asked.schema) if has_name(schema, name)]
    ids = [schema[name].id for schema in schemas if schema[name].id in events.traits]
    require(bool(ids), "an append took a column for another trait:", name, list(events.traits))
    return ids[0]


class _Judge:
    def __init__(
        self,
        world: "World",
        asked: "Asked",
        before: LogState,
        numbers: set[int],
        named: list[Named],
    ) -> None:
        self.world, self.asked, self.before, self.state = world, asked, before, before.tier
        self.numbers, self.named = numbers, named
        self.places = {name[:4] for name in named}

    def judge(self) -> list[Judgement]:
        """Each row's fate, in the order of the table."""
        judged: list[Judgement] = []
        for row in self.asked.rows:
            judged.append(self._judge(row, [judgement.row for judgement in judged if judgement.fate is Fate.NEW]))
        return judged

    def _judge(self, row: Row, above: list[Row]) -> Judgement:
        """Args: above: the rows before it that are new."""
        model = self.world.model
        if not row.is_deletion and row.event_ts < model.scrubbed_at(row.user):
            return Judgement(row, Fate.SKIPPED)
        if row.event_id is not None:
            known = [v for v in model.by_id.get(row.event_id, ()) if v.row.number == row.number]
            if known and (is_remembered(self.world, known[-1], self.state) or row.number not in self.numbers):
                return Judgement(row, Fate.REPEATED, known[-1])
            if any((other.event_id, other.number) == (row.event_id, row.number) for other in above):
                return Judgement(row, Fate.REPEATED)
        return self._judge_deletion(row, above) if row.is_deletion else Judgement(row, Fate.NEW)

    def _judge_deletion(self, row: Row, above: list[Row]) -> Judgement:
        """New, unless its event is deleted already, here or above, or a scrub took it."""
        model, by_place = self.world.model, self.asked.by_place
        target = model.named(row, above, by_place=by_place)
        for i, other in enumerate(above):
            if other.is_deletion and model.named(other, above[:i], by_place=by_place) == target:
                return Judgement(row, Fate.REPEATED)
        if isinstance(target, Row):
            return Judgement(row, Fate.NEW)
        place = target.place if isinstance(target, Version) else target
        if place in self.places:
            return Judgement(row, Fate.NEW)
        if isinstance(target, Version) and target.gone_by is not None:
            if not by_place and any(version.place in self.places for version in self._versions_of(target)):
                return Judgement(row, Fate.NEW)
            # by its id an earlier version may be found, which was superseded by what is gone
            is_deleted = place in model.superseded or target.row.target is not None
            return Judgement(row, Fate.LEFT_OUT if is_deleted else Fate.SKIPPED)
        if place not in model.superseded:
            is_known = isinstance(target, Version) and is_remembered(self.world, target, self.state)
            return Judgement(row, Fate.NEW if is_known else Fate.SKIPPED)
        if isinstance(target, Version):
            newer = target.newer
            was_deleted = newer is None or newer.gone_by is not None or self._may_be_lost(newer)
            require(was_deleted, "R13: took a deletion for repeated, and its event was corrected:", row, target)
        return Judgement(row, Fate.REPEATED, ingest_ts=model.superseded[place])

    def _may_be_lost(self, version: Version) -> bool:
        """Whether retention may have taken a version from where it was looked for: a generation that reaches the floor."""
        return any(
            self.state.floor <= generation.watermark
            and version.ingest_ts < generation.watermark
            and version.index not in held
            for generation, held in zip(self.world.generations, self.world.held, strict=True)
        )

    def supersede(self, fresh: list[Judgement]) -> None:
        """R13: what the new rows supersede, in their order."""
        left = list(self.named)
        for judgement in fresh:
            if judgement.row.target is None:
                continue
            target = self._meant(judgement, left[0] if left else None)
            place = judgement.row.target.place if target is None else target.place
            assert judgement.ingest_ts is not None
            if left and left[0] == (judgement.row.user, *place[1:], judgement.ingest_ts):
                left.pop(0)
                self._supersede(judgement, target, place)
            elif target is not None:
                unsure = target.gone_by is not None or not is_remembered(self.world, target, self.state)
                require(unsure, "R13: not superseded:", judgement, target, left)
        require(not left, "R13: superseded what nobody asked for:", left)

    def _supersede(self, judgement: Judgement, target: Version | None, place: Place) -> None:
        assert judgement.ingest_ts is not None
        self.world.model.superseded[judgement.row.user, *place[1:]] = judgement.ingest_ts
        if target is None:  # there may have been such an event, as far as the tier can know
            require(place[2] < self.before.complete_from, "R13: superseded what is unknown:", judgement)
            return
        require(target.row.user == judgement.row.user, "R13: superseded another user's event:", judgement)
        require(target.ingest_ts <= judgement.ingest_ts, "R13: superseded what came later:", judgement, target)
        if target.gone_by is None:
            is_first = target.superseded_at == NEVER or self._may_be_lost(target)
            require(is_first, "R13: superseded twice:", target, "by", target.newer, "and", judgement)
            self.world.model.supersede(target, judgement.ingest_ts, judgement.version)

    def _versions_of(self, version: Version) -> list[Version]:
        """All that have its event id."""
        return self.world.model.by_id.get(version.row.event_id or "", [])

    def _meant(self, judgement: Judgement, named: Named | None) -> Version | None:
        """The version that a row supersedes: its user's at a place, or the newest of an id before it.

        Where a scrub took that, it may be an earlier one that retention took too: nobody knows what became of it.
        Args: named: what is superseded, if it is this row that does it.
        """
        target, model = judgement.row.target, self.world.model
        assert target is not None
        if self.asked.by_place or target.row.event_id is None:
            return model.by_place.get((judgement.row.user, *target.place[1:]))
        earlier = [v for v in self._versions_of(target) if v.index < judgement.known]
        known = [v for v in earlier if named is not None and (judgement.row.user, *v.place[1:]) == named[:4]]
        if earlier and earlier[-1].gone_by is not None and known:
            return known[-1]
        return earlier[-1] if earlier else target


def stamp(world: "World", process: "Process", asked: "Asked", state: TierState, judged: list[Judgement]) -> None:
    """R1, R5, R7: the ingest time that each new row must have."""
    now = process.told
    fresh = [judgement for judgement in judged if judgement.fate is Fate.NEW]
    for judgement in fresh:
        given = judgement.row.ingest_ts
        if given is not None and given < earliest_import(state):
            require(asked.stamp_late, "R7: accepted an ingest time that is too old:", judgement, state)
        else:
            judgement.ingest_ts = given
    kept = [judgement.ingest_ts for judgement in fresh if judgement.ingest_ts is not None]
    first = max([now, state.last + 1, *(ingest_ts + 1 for ingest_ts in kept)])
    met: Counter[Any] = Counter()
    for judgement in fresh:
        if judgement.ingest_ts is None:
            judgement.ingest_ts = first + met[judgement.row.user]
            met[judgement.row.user] += 1
        ahead = judgement.ingest_ts - now
        require(ahead <= world.settings.max_ahead_us, "R5: too far ahead of the clock:", judgement, now)
        require(judgement.ingest_ts >= state.frontier, "R7: below the frontier:", judgement, state)


def earliest_import(state: TierState) -> int:
    """R7: below it no explicit ingest time is accepted."""
    return state.last + 1 if state.captured else state.frontier


def is_remembered(world: "World", version: Version, state: TierState) -> bool:
    """Whether an event's id must be known still (R14): it is in the tier, or in the window beyond."""
    if version.gone_by is not None or version.loaded:
        return False
    return version.ingest_ts >= state.floor or state.last - version.ingest_ts <= world.settings.id_window_us
