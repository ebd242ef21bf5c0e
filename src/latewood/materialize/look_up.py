"""The first half of materializing: read examples, and look their pointers up in the generation that answers them.

Which generation that is, which schema examples are read by, who was scrubbed and what retention left: all of it is asked
in an order that holds while generations are published and collected meanwhile.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latewood.clock import EARLIEST_TS
from latewood.errors import CorruptionError, PointerError, SchemaError
from latewood.immutable import GenerationReader
from latewood.immutable.resolve import NO_UNSTORED, Resolution, Status, Unstored
from latewood.materialize.checks import Checks
from latewood.materialize.logged import Heads, Logged, read_heads
from latewood.materialize.recents import Recents
from latewood.materialize.resolved import Resolved
from latewood.materialize.retained import serve_retained
from latewood.materialize.store import MaterializeStore, schema_for
from latewood.materialize.suppress import find_hits
from latewood.materialize.view import View
from latewood.pointer import Pointers
from latewood.projection import Projection
from latewood.schema import Schema
from latewood.users import UserKeys


class ChangedTraitError(SchemaError):
    """A newer schema has another trait by a name that is wanted: the examples have to be read anew."""


class Lookup:
    """Looks examples up, as one model wants them. Thread-safe.

    Args:
        unread: labels of traits that the examples' recent events come without, though they may have been logged.
        checks: how often checksums are checked.
    Raises: SchemaError: a trait that the store does not have, or one of the unread.
    """

    def __init__(self, store: MaterializeStore, projection: Projection, unread: frozenset[str], checks: Checks) -> None:
        self._store, self._projection, self.unread, self._checks = store, projection, unread, checks
        self._latest_view = self._view_of(schema_for(store, projection))

    def __call__(self, examples: Any) -> Resolved:
        """Read examples and look their pointers up. Raises: as `Materializer.resolve`."""
        store = self._store
        heads = read_heads(examples, store.schema, store.epoch, self._view().recent)
        while True:
            unstored = self._unstored(heads.read if heads.are_fit else None)
            reader, resolution = self._look_up(heads.keys, heads.pointers, heads.newest, unstored)
            known, scrub_ts = self._scrubbed_at(heads.keys)
            view = self._view()  # now that the store has what it is read from
            if self._was_logged_later(heads, reader, view):
                continue
            scrubbed = None if scrub_ts is None else heads.cutoff <= scrub_ts
            try:
                logged = heads.read_recents(view.recent, store.vocabulary, scrubbed, unstored.ranks)
            except PointerError:  # perhaps of a trait that a newer generation does not have, and whose values are gone
                if store.refresh().generation.id == reader.generation.id:
                    raise
            else:
                return self._resolved(logged, resolution, scrub_ts, known, reader, view)

    def again(self, resolved: Resolved) -> Resolved:
        """Look up once more, in a newer generation. Raises: ChangedTraitError."""
        logged, view = resolved.logged, resolved.view
        newest = int(logged.pointers.watermark.max(initial=EARLIEST_TS))
        unstored = self._unstored(logged.recents)
        reader, resolution = self._look_up(logged.keys, logged.pointers, newest, unstored)
        logged = replace(logged, recents=replace(logged.recents, ranks=unstored.ranks))
        if not view.lives_in(reader.generation.schema):
            view = self._view()
        scrubs, scrub_ts = self._scrubbed_at(logged.keys)
        if any(trait.id not in logged.recents.columns for trait in view.recent):
            raise ChangedTraitError(
                "the schema changed while these examples were materialized: a trait has become another one"
            )
        return self._resolved(logged, resolution, scrub_ts, scrubs, reader, view)

    def _was_logged_later(self, heads: Heads, reader: GenerationReader, view: View) -> bool:
        """Whether there is a newer generation that these examples may be of, though its watermark is the same.

        Their recent events then lack a trait because it was dropped, and not because it was added since.
        """
        if heads.newest != reader.generation.watermark or not heads.lacks(view.recent):
            return False
        return self._store.refresh().generation.id != reader.generation.id

    def _resolved(
        self,
        logged: Logged,
        resolution: Resolution,
        scrub_ts: NDArray[np.int64] | None,
        scrubs: int,
        reader: GenerationReader,
        view: View,
    ) -> Resolved:
        if scrub_ts is not None:
            gone = logged.cutoff <= scrub_ts
            resolution = replace(resolution, status=np.where(gone, np.uint8(Status.SCRUBBED), resolution.status))
        hits = find_hits(reader, resolution, logged.pointers, logged.recents.supersedes)
        resolution = serve_retained(reader, resolution, hits, logged.recents, self._projection.reach)
        return Resolved(logged, resolution, hits, scrub_ts, scrubs, reader, view)

    def _unstored(self, recents: Recents | None) -> Unstored:
        """Recent events that are known by now, to be ranked."""
        if recents is None or not len(recents):
            return NO_UNSTORED
        reach = self._projection.reach
        ranks = np.zeros(len(recents), np.int64)
        return Unstored(recents.offsets, recents.order, ranks, NO_UNSTORED.reach if reach is None else reach)

    def _look_up(
        self, keys: UserKeys, pointers: Pointers, newest: int, unstored: Unstored
    ) -> tuple[GenerationReader, Resolution]:
        """The pointers' rows in the newest generation that is known, or in a newer one if they or its files ask for it.

        Args: newest: the latest of their watermarks. unstored: events to be ranked on the way.
        """
        store, reader = self._store, self._store.reader()
        if newest > reader.generation.watermark:
            reader = store.refresh()
        while True:
            try:
                self._checks.begin(reader, keys)
                return reader, reader.resolve(keys, pointers, unstored)
            except FileNotFoundError as error:  # collected, then: a newer generation has all that this one held
                later = store.refresh()
                if later.generation.id == reader.generation.id:
                    raise CorruptionError(f"generation {later.generation.id} lacks a file: {error}") from error
                reader = later

    def _scrubbed_at(self, users: UserKeys) -> tuple[int, NDArray[np.int64] | None]:
        """How many scrubs there are, and when users were last scrubbed; None if there is none.

        To be asked after the generation was chosen: for what a scrub took that it has applied, the scrub is the reason.
        """
        known = self._store.scrubs.refresh()
        return known, self._store.scrubs.scrubbed_at(users) if known else None

    def _view(self) -> View:
        """The projection on the store's schema of now."""
        schema, view = self._store.schema, self._latest_view
        if schema is not view.schema and schema != view.schema:
            view = self._latest_view = self._view_of(schema)
        return view

    def _view_of(self, schema: Schema) -> View:
        view = View.of(self._projection, schema)
        for name, trait in view.traits.items():
            if trait is not None and trait.label in self.unread:  # else its recent events would come as null
                raise SchemaError(f"trait {name!r} has become another one, which was left out when examples were read")
        return view
