"""R13 to R17: corrections, repetitions, retention, scrubs, and changes of the schema."""

from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np

from latewood import appending
from latewood.capture import examples
from latewood.columns import Lists
from latewood.compaction import bulk, forget, publish, recipe, rows, runs
from latewood.compaction.parent import OldShard
from latewood.compaction.recipe import Recipe
from latewood.events import Suppressions
from latewood.immutable import Catalog, Scrubs
from latewood.immutable.resolve import Status
from latewood.immutable.scrubs import NOT_SCRUBBED
from latewood.materialize import Materializer, look_up
from latewood.mutable import admission, rules
from latewood.mutable.arena import Arena
from latewood.mutable.logged_tier import LoggedTier
from latewood.schema import Schema, Trait
from latewood.store import Store
from latewood.stripes import layout, writer
from latewood.stripes.layout import NO_COLUMN
from latewood.testing.simulation import changing, writing

from .mutant import Patches, mutant, never, often, planned, slow, with_lists


@mutant("R13", within=50)
def corrected_rows_are_dropped() -> Patches:
    """Compaction drops the row that a newer version took the place of."""

    def dropped(of: Any, keys: Any, suppressions: Any) -> Any:
        after = rows.marked(of, keys, suppressions)
        if after.superseded_at is None:
            return after
        return after.without(after.superseded_at < 2**63 - 1)

    return [patch.object(runs, "marked", dropped), patch.object(publish, "_check_counts", lambda *arguments: None)]


@mutant("R13", within=50)
def corrected_rows_are_not_marked() -> Patches:
    """Compaction keeps the old row as it was."""
    return [patch.object(runs, "marked", lambda of, keys, suppressions: of)]


@mutant("R13", within=200)
def recent_corrections_leave_stored_events() -> Patches:
    """What recents say was superseded is not taken out of the stored part."""
    return [patch.object(look_up, "find_hits", lambda *arguments: None)]


@mutant("R13", within=200)
def captures_log_no_suppressions() -> Patches:
    """Recents do not say which stored events they supersede."""
    from latewood.events import no_suppressions

    def none(self: Arena, keys: Any, end_ts: Any, *rest: Any) -> Any:
        return np.zeros(len(end_ts) + 1, np.int64), no_suppressions()

    return [patch.object(Arena, "suppressed", none)]


@mutant("R13", within=450)
def superseded_at_once() -> Patches:
    """A superseded recent event is gone for every request, whatever its cutoff."""

    def drop(self: Arena, offsets: Any, found: Any, cutoff: Any) -> Any:
        self._superseded_at.reserve(self.rows)
        kept = self._superseded_at.array[found] == 2**63 - 1
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
        return before[offsets], found[kept]

    return [patch.object(Arena, "_drop_superseded", drop)]


@mutant("R13", within=200)
def corrections_name_no_ordinal() -> Patches:
    """A correction names an event by its two times alone: it meets the first of a tie."""
    versions = admission._versions

    def without_ordinal(*arguments: Any) -> Any:
        found = versions(*arguments)
        of: Suppressions = found.suppressions
        return replace(found, suppressions=replace(of, ordinal=np.zeros_like(of.ordinal)))

    return [patch.object(admission, "_versions", without_ordinal)]


@mutant("R14", within=150)
def ids_are_not_looked_up() -> Patches:
    """A repeated event_id is a new event."""
    return [patch.object(admission._Repeats, "find", lambda *arguments: None)]


@mutant("R14", within=850)
def ids_go_with_eviction() -> Patches:
    """Event ids are forgotten with the events of evicted segments."""
    return [patch.object(LoggedTier, "_remember_ids", lambda self, before, after: None)]


@mutant("R15", within=150)
def expired_is_served_short() -> Patches:
    """What retention left is served, though it is less than the pointer means."""

    def serve(reader: Any, resolution: Any, hits: Any, recents: Any, max_len: Any) -> Any:
        served = resolution.status == Status.EXPIRED
        return replace(resolution, status=np.where(served, np.uint8(Status.OK), resolution.status))

    return [patch.object(look_up, "serve_retained", serve)]


@mutant("R15", within=150)
def enough_events_so_serve() -> Patches:
    """Served if there are enough, stored and recent together, however old the recent ones are."""

    def serve(reader: Any, resolution: Any, hits: Any, recents: Any, max_len: Any) -> Any:
        expired = resolution.status == Status.EXPIRED
        if max_len is None:
            return resolution
        left = resolution.count if hits is None else resolution.count - hits.counts
        served = expired & (left + np.diff(recents.offsets) >= max_len)
        return replace(resolution, status=np.where(served, np.uint8(Status.OK), resolution.status))

    return [patch.object(look_up, "serve_retained", serve)]


@mutant("R15", within=150)
def retention_cuts_inside_a_time() -> Patches:
    """Retention by count keeps exactly so many, in the middle of a tie."""

    def expired(of: Any, complete: Any, horizon: Any, max_events: Any) -> Any:
        gone = rows.expired(of, complete, horizon, max_events)
        if max_events is None:
            return gone
        start, stop = of.offsets[:-1], of.offsets[1:]
        exact = np.repeat(np.where(complete, stop - max_events, start), stop - start)
        return (np.arange(len(exact)) < exact) | (False if gone is None else gone)

    return [patch.object(runs, "expired", expired)]


@mutant("R16", within=50)
def readers_do_not_ask_for_scrubs() -> Patches:
    """Materializing does not look at the records of scrubs."""
    resolve, batch = Materializer.resolve, Materializer.batch

    class Unaware:
        def __init__(self, store: Any) -> None:
            self.store, self.scrubs = store, Scrubs(Empty(), store.epoch)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.store, name)

    class Empty:
        def read(self, key: str) -> bytes:
            raise FileNotFoundError(key)

    def unaware(of: Any) -> Any:
        def call(self: Materializer, *arguments: Any) -> Any:
            if not isinstance(self._store, Unaware):
                self._store = self._lookup._store = Unaware(self._store)
            return of(self, *arguments)

        return call

    return [
        patch.object(Materializer, "resolve", unaware(resolve)),
        patch.object(Materializer, "batch", unaware(batch)),
    ]


@mutant("R16", within=50, story=(often(changing.scrub_users),))
def captures_withhold_nothing() -> Patches:
    """Until compaction the stored history of a scrubbed user is captured as before."""

    def never(store: Any, keys: Any, state: Any) -> Any:
        return np.full(len(keys.hash), NOT_SCRUBBED)

    return [patch.object(examples, "_scrubbed_at", never)]


@mutant("R16", within=50)
def a_replay_brings_the_past_back() -> Patches:
    """Rows from before a scrub are taken in again."""
    skip = admission._skip

    def skip_none(*arguments: Any) -> Any:
        entry = skip(*arguments)
        return replace(entry, skipped=np.zeros_like(entry.skipped))

    not_added = appending._not_added

    def not_added_but_for_scrubs(store: Store, *arguments: Any) -> Any:
        with patch.object(store.scrubs, "scrubbed_at", lambda keys: np.full(len(keys.hash), NOT_SCRUBBED)):
            return not_added(store, *arguments)

    return [
        patch.object(admission, "_skip", skip_none),
        patch.object(appending, "_not_added", not_added_but_for_scrubs),
    ]


@mutant("R16", within=50)
def compaction_forgets_nothing() -> Patches:
    """Rows of forgotten users are carried on."""
    return [patch.object(Recipe, "touched", lambda self, users: None)]


@mutant("R16", within=450, story=(often(changing.scrub_users), planned(busy=4), slow(publish, "make_recipe")))
def scrubs_after_the_cut_count_as_applied() -> Patches:
    """A generation says that it has applied a scrub whose events are not all below its cut."""
    return [patch.object(recipe, "applied_by", lambda scrubs, watermark: len(scrubs))]


@mutant("R16", within=100)
def scans_give_what_was_scrubbed() -> Patches:
    """The mutable tier hands scrubbed events on to compaction."""
    return [patch.object(LoggedTier, "_remembered", lambda self, events: events)]


@mutant("R16", within=50)
def values_are_not_blanked() -> Patches:
    """Values that only forgotten events had stay in the vocabulary."""
    return [patch.object(forget, "_blank_unused", lambda store, generation: None)]


@mutant("R16", within=950, story=(often(changing.scrub_users), planned(busy=3), slow(LoggedTier, "blank")))
def values_in_use_are_blanked() -> Patches:
    """Blanking does not look at the events that were appended since."""
    return [patch.object(LoggedTier, "_codes_in_use", lambda self, trait_id, among: np.zeros(0, np.int32))]


@mutant("R16", within=150, story=(often(changing.scrub_users), with_lists()))
def items_of_lists_stay() -> Patches:
    """Values that only forgotten events had, in a list, stay in the vocabulary."""
    return [patch.object(Lists, "known", property(lambda self: self.items[:0]))]


@mutant("R16", within=250, story=(often(changing.scrub_users), with_lists()))
def items_of_lists_are_blanked() -> Patches:
    """Blanking does not look at the lists of stored events."""
    codes = forget._codes

    def of_plain_traits(reader: Any, trait: Trait) -> Any:
        return () if trait.is_list else codes(reader, trait)

    return [patch.object(forget, "_codes", of_plain_traits)]


@mutant("R16", within=150)
def pins_hold_what_was_scrubbed() -> Patches:
    """Generations that do not know a scrub are kept, as many as asked for, and pinned ones."""
    collect = Catalog.collect

    def keep_all(self: Catalog, keep: int = 2, *, now: int | None = None) -> Any:
        latest = self.latest

        def unscrubbed() -> Any:
            return replace(latest(), scrubs=0)

        with patch.object(self, "latest", unscrubbed):
            return collect(self, keep, now=now)

    return [patch.object(Catalog, "collect", keep_all)]


@mutant("R16", within=350)
def a_scrub_of_the_dead_is_left() -> Patches:
    """A scrub whose process died before it was recorded is not finished by the next."""
    finish = LoggedTier._finish_scrub

    def only_own(self: LoggedTier) -> None:
        if self.__dict__.get("_scrubbing"):
            finish(self)

    scrub = LoggedTier.scrub

    def marked(self: LoggedTier, body: Any, *, now: int) -> Any:
        self.__dict__["_scrubbing"] = True
        return scrub(self, body, now=now)

    return [
        patch.object(LoggedTier, "_finish_scrub", only_own),
        patch.object(LoggedTier, "scrub", marked),
        patch.object(LoggedTier, "_is_behind", lambda self, state: False),
    ]


@mutant("R17", within=250, story=(often(changing.alter), planned(busy=4)))
def a_name_is_always_the_same_trait() -> Patches:
    """Compaction finds stored traits by name, too: one that was dropped and added again has its old values."""
    tails = OldShard.trait_tails

    def by_name(self: OldShard, plan: Any, trait: Trait) -> Any:
        named = {old.name: old for old in self.shard.columns if old.role == "trait"}
        if trait.id in self._places or trait.is_list or trait.name not in named:
            return tails(self, plan, trait)
        return self.tails(plan, named[trait.name])

    def by_names(columns: Any, old: Any) -> list[int]:
        names = {column.name: place for place, column in enumerate(old) if column.role == "trait"}
        return [
            names.get(column.name, place) if place == NO_COLUMN and column.role == "trait" else place
            for column, place in zip(columns, layout.sources(columns, old), strict=True)
        ]

    return [patch.object(OldShard, "trait_tails", by_name), patch.object(writer, "sources", by_names)]


@mutant("R17", within=250, story=(often(changing.alter), planned(busy=4)))
def rows_of_an_old_schema_are_appended() -> Patches:
    """Who is behind goes on appending to traits that were dropped."""
    append, as_of_change = LoggedTier.append, appending._as_of_change

    def append_any(self: LoggedTier, *arguments: Any, changes: int | None = None, **options: Any) -> Any:
        return append(self, *arguments, **options)

    return [
        patch.object(LoggedTier, "append", append_any),
        patch.object(appending, "_as_of_change", lambda store, number: as_of_change(store, 0)),
    ]


@mutant("R17", within=250, story=(often(changing.alter), planned(busy=4)))
def the_tier_is_not_told_of_changes() -> Patches:
    """A compaction that applies a change leaves the mutable tier as it was."""
    return [patch.object(rules, "caught_up", lambda state, least: state)]


@mutant("R17", within=250, story=(often(changing.alter), planned(busy=4)))
def labels_are_used_again() -> Patches:
    """Recents name an added trait by its name, though a dropped one was named so."""
    altered = Schema.altered

    def relabelled(self: Schema, **change: Any) -> Schema:
        after = altered(self, **change)
        live = {trait.label for trait in after if trait.id < self.next_id}
        traits = tuple(
            replace(trait, label=trait.name) if trait.id >= self.next_id and trait.name not in live else trait
            for trait in after
        )
        schema = Schema.__new__(Schema)
        schema._init(after.user_id, traits, after.next_id, after.retired)
        return schema

    return [patch.object(Schema, "altered", relabelled)]


@mutant(
    "R17",
    within=550,
    story=(
        often(changing.alter, writing.load_in_bulk),
        planned(busy=4),
        slow(LoggedTier, "begin_load"),
        never(changing.scrub_users, changing.scrub_events),
    ),
)
def loads_go_by_what_was_asked_before() -> Patches:
    """A bulk load builds by the schema and shards of when its events were read, whatever was applied since.

    There is no such mutant of compaction: it would only apply a change one generation later. Rows of a new schema come
    after the generation that applied it, and whoever chose the change before that generation has lost its number.
    """
    return [patch.object(bulk, "_check_read_by", lambda *arguments: None)]
