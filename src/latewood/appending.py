"""Append: a table, read by the schema and in the codes of now, into the mutable tier.

Reading takes its time, and the tier refuses what is stale by then: rows in codes of before a blanking, rows by a schema of
before a change that counts. Then the table is read again. What the tier cannot know of what rows supersede is looked up in
a generation.
"""

from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.clock import Clock, warn_of_unit
from latewood.columns import TraitColumn
from latewood.corrections import CorrectedStore, look_up_targets
from latewood.errors import CorruptionError, SchemaError
from latewood.immutable import Generation
from latewood.intake import Intake, read_events
from latewood.mutable import (
    AppendReceipt,
    Late,
    MutableTier,
    StaleCodesError,
    StaleSchemaError,
    StoredTargets,
    UnseenTargetsError,
)
from latewood.schema import Trait
from latewood.vocabulary import Vocabulary


class AppendStore(CorrectedStore, Protocol):
    """What an append needs of a store."""

    path: str
    vocabulary: Vocabulary
    clock: Clock

    @property
    def generation(self) -> Generation:
        """The newest one known."""

    def encode(self, trait: Trait, values: pa.Array) -> TraitColumn:
        """Codes of values; new ones are written down."""


def append(store: AppendStore, tier: MutableTier, table: pa.Table, late: Late) -> AppendReceipt:
    """See `Store.append`."""
    stored, unit_checked = StoredTargets.unseen(), False
    while True:
        blanked = store.vocabulary.blanked  # before anything is coded
        generation, intake = _read(store, tier, table)
        if not unit_checked and intake.supersedes is None:  # a deletion has no time of its own
            warn_of_unit("event_ts", intake.events.event_ts, store.clock)
            unit_checked = True
        try:
            return tier.append(
                intake.events,
                ids=intake.ids,
                content=intake.content,
                supersedes=intake.supersedes,
                explicit=intake.explicit,
                late=late,
                now=store.clock.now(),
                changes=generation.change,
                blanked=blanked,
                uncoded=intake.uncoded,
                stored=stored,
            )
        except UnseenTargetsError as asked:
            stored = look_up_targets(asked, intake, store)
        except StaleSchemaError:
            continue  # a generation that has applied a change was published meanwhile
        except StaleCodesError as stale:
            if stale.blanking is not None:
                store.vocabulary.put_blanked(*stale.blanking)
            store.vocabulary.refresh_blanked()


def _read(store: AppendStore, tier: MutableTier, table: pa.Table) -> tuple[Generation, Intake]:
    """Check a table; and by which generation's schema.

    One from before a change that counts is not tried: it would write words of traits that were dropped.
    """

    def known(intake: Intake) -> NDArray[np.bool_]:
        return _not_added(store, tier, intake)

    generation = _as_of_change(store, tier.state().changes)
    try:
        return generation, read_events(table, generation.schema, store.encode, leave_out=known)
    except (SchemaError, CorruptionError):  # the latter of a trait whose words were collected meanwhile
        newer = store.refresh().generation
        if newer.schema == generation.schema:
            raise
        return newer, read_events(table, newer.schema, store.encode, leave_out=known)


def _as_of_change(store: AppendStore, number: int) -> Generation:
    """A generation that has applied so many changes. Raises: CorruptionError: there is none."""
    generation = store.generation
    if generation.change < number:
        generation = store.refresh().generation
    if generation.change < number:
        raise CorruptionError(
            f"{store.path}: generation {generation.id} has applied {generation.change} changes, but the mutable tier has "
            f"met one that has applied {number}: this folder is older than its recent events"
        )
    return generation


def _not_added(store: AppendStore, tier: MutableTier, intake: Intake) -> NDArray[np.bool_]:
    """Rows that will not be added, so that the vocabulary does not learn again what it had to forget.

    They are from before their user's scrub, or repeat an event id.
    """
    if tier.state().scrubs > len(store.scrubs):
        store.scrubs.refresh()
    known: NDArray[np.bool_] = intake.events.event_ts < store.scrubs.scrubbed_at(intake.events.keys)
    if intake.ids is not None and intake.content is not None and store.vocabulary.blanked:
        skipped = known if intake.supersedes is None else known & ~intake.supersedes.deletions
        ids = np.where(skipped[:, None], np.uint64(0), intake.ids)  # they claim none, and a later row may have it
        known = known | tier.repeats(ids, intake.content, intake.supersedes)
    return known
