"""What a table of examples says, as columns: whose history, which pointer, which recent events, as of when.

It is read in two steps. The *heads* say who, when and which pointer: enough to look pointers up, and to tell who was
scrubbed. Only of the others the recent events are read: a scrubbed user's may hold values that the store has forgotten.

Any table that has the columns `user_id`, `uih`, `recent` and `cutoff` will do, whoever stored and read it in between;
the rest are the example's own features and pass through untouched.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.clock import EARLIEST_TS, LATEST_TS
from latewood.columns import (
    first_row,
    one_array,
    plain_array,
    read_table,
    require_valid,
    take_rows,
    times_from_arrow,
)
from latewood.errors import SchemaError
from latewood.materialize.recents import RECENT, Recents, first_refused, in_order, read_recents, read_rest, refuse_leaks
from latewood.materialize.regular import Layout, layout_of, read_regular
from latewood.pointer import Pointers
from latewood.schema import Schema, Trait
from latewood.users import UserKeys, user_keys
from latewood.vocabulary import Vocabulary

USER_ID, UIH, CUTOFF = "user_id", "uih", "cutoff"


@dataclass(frozen=True, slots=True, eq=False)
class Heads:
    """n examples, but for their recent events, which are unread in `table`. Shapes: all (n,)."""

    user_ids: pa.Array
    keys: UserKeys
    pointers: Pointers
    cutoff: NDArray[np.int64]
    table: pa.Table
    features: pa.Table
    newest: int  # the latest of all pointers' watermarks
    read: Recents | None = None  # what was read of the recent events on the way: plain values
    are_fit: bool = False  # whether those are in order, and such as the examples may hold
    read_traits: tuple[Trait, ...] = ()  # the traits whose lists are known to be as long as the others

    def __len__(self) -> int:
        return len(self.pointers)

    @property
    def recent(self) -> pa.Array:
        """The recent events."""
        return one_array(self.table[RECENT])

    def lacks(self, traits: Sequence[Trait]) -> bool:
        """Whether the recent events are without any of some traits."""
        if self.read is not None and traits == self.read_traits:
            return False
        type_ = self.table.schema.field(RECENT).type
        names = {field.name for field in type_} if pa.types.is_struct(type_) else set()
        return any(trait.label not in names for trait in traits)

    def read_recents(
        self,
        traits: Sequence[Trait],
        vocabulary: Vocabulary,
        scrubbed: NDArray[np.bool_] | None = None,
        ranks: NDArray[np.int64] | None = None,
    ) -> "Logged":
        """The whole examples; those of scrubbed users without recent events.

        Args: traits: those of the recent events that are wanted. ranks: of the recent events that were read on
            the way, if they are fit.
        Raises: SchemaError: not recent events. PointerError: a value that the store does not know, or as follows.
            LeakageError: an example that holds what its request could not have seen.
        """
        if scrubbed is None or not scrubbed.any():
            if self.read is not None and (traits == self.read_traits or set(traits) <= set(self.read_traits)):
                recents = read_rest(self.read, self.table, traits, vocabulary)
                if not len(recents):  # and no watermark is past its cutoff, or they would not have been read
                    return self._with(recents)
                if self.are_fit:
                    return self._with(replace(recents, ranks=ranks))
                recents = in_order(recents)
            else:
                recent = self.recent
                require_valid(recent, RECENT, full=True)
                recents = read_recents(recent, traits, vocabulary)
            refuse_leaks(recents, self.pointers, self.cutoff)
        else:
            kept, recent = np.flatnonzero(~scrubbed), self.recent
            require_valid(recent, RECENT, full=True)
            recents = read_recents(take_rows(recent, kept), traits, vocabulary)
            recents = recents.spread(kept, len(self))
            # what a scrubbed user's example says is not looked at, only refused
            refuse_leaks(recents, self.pointers, np.where(scrubbed, LATEST_TS + 1, self.cutoff))
        return self._with(recents)

    def _with(self, recents: Recents) -> "Logged":
        return Logged(self.user_ids, self.keys, self.pointers, self.cutoff, recents, self.features)


@dataclass(frozen=True, slots=True, eq=False)
class Logged:
    """n examples. Shapes: all (n,), except `recents`."""

    user_ids: pa.Array
    keys: UserKeys
    pointers: Pointers
    cutoff: NDArray[np.int64]
    recents: Recents
    features: pa.Table

    def __len__(self) -> int:
        return len(self.pointers)

    def take(self, rows: NDArray[np.int64]) -> "Logged":
        """The examples at these rows, in this order."""
        places = pa.array(rows)
        return Logged(
            self.user_ids.take(places),
            self.keys.take(rows),
            self.pointers.take(rows),
            self.cutoff[rows],
            self.recents.take(rows),
            self.features.take(places),
        )

    def slice(self, start: int, stop: int) -> "Logged":
        """The examples from `start` to `stop`."""
        return Logged(
            self.user_ids.slice(start, stop - start),
            self.keys.slice(start, stop),
            self.pointers.take(slice(start, stop)),
            self.cutoff[start:stop],
            self.recents.slice(start, stop),
            self.features.slice(start, stop - start),
        )


def read_heads(examples: Any, schema: Schema, epoch: bytes, traits: Sequence[Trait] | None = None) -> Heads:
    """Read and check a table of examples, but for their recent events.

    Args: traits: those of the recent events that will be wanted, if that is known: they may be read on the way.
    Raises: SchemaError: not such a table. PointerError: a pointer that is none, or of another store.
    """
    table = read_table(examples)
    if traits is not None and (heads := _read_regular(table, schema, epoch, tuple(traits))) is not None:
        return heads
    names = table.column_names
    if missing := [name for name in (USER_ID, UIH, RECENT, CUTOFF) if name not in names]:
        raise SchemaError(f"the examples lack {', '.join(missing)}; they have: {', '.join(names)}")
    if repeated := [name for name in (USER_ID, UIH, RECENT, CUTOFF) if names.count(name) > 1]:
        raise SchemaError(f"the examples have two columns {repeated[0]!r}")
    require_valid(table[USER_ID], USER_ID, full=True)
    for name in (UIH, RECENT, CUTOFF):
        require_valid(table[name], name)
    user_ids = _user_ids(plain_array(table[USER_ID]), schema)
    pointers = Pointers.from_arrow(one_array(table[UIH]), epoch)
    cutoff, newest = times_from_arrow(table[CUTOFF], CUTOFF), int(pointers.watermark.max(initial=EARLIEST_TS))
    features = table.drop_columns([UIH, RECENT, CUTOFF])
    return Heads(user_ids, user_keys(user_ids), pointers, cutoff, table, features, newest)


class _KnownLayout:
    """Finds out where columns are, and remembers it of the latest: one table after another is laid out alike."""

    def __init__(self) -> None:
        self._latest: tuple[pa.Schema, tuple[Any, ...], Layout | None] | None = None

    def of(self, columns: pa.Schema, schema: Schema, epoch: bytes, traits: tuple[Trait, ...]) -> Layout | None:
        """See `layout_of`."""
        latest, wanted = self._latest, (schema, epoch, traits)
        if latest is None or latest[1] != wanted or not latest[0].equals(columns):
            latest = self._latest = columns, wanted, layout_of(columns, schema, epoch, traits)
        return latest[2]


_layout = _KnownLayout()


def _read_regular(table: pa.Table, schema: Schema, epoch: bytes, traits: tuple[Trait, ...]) -> Heads | None:
    layout = _layout.of(table.schema, schema, epoch, traits)
    regular = None if layout is None else read_regular(table, layout, epoch)
    if layout is None or regular is None:
        return None
    recents = Recents(regular.offsets, regular.order, regular.columns)
    are_fit = len(recents) > 0 and first_refused(recents, regular.pointers, regular.cutoff) < 0
    return Heads(
        regular.user_ids,
        regular.keys,
        regular.pointers,
        regular.cutoff,
        table,
        table.select(layout.features),
        regular.newest,
        recents,
        are_fit,
        traits,
    )


def read_logged(examples: Any, schema: Schema, epoch: bytes, traits: Sequence[Trait], vocabulary: Vocabulary) -> Logged:
    """Read and check a table of examples, whoever was scrubbed.

    Args: traits: those of the recent events that are wanted.
    Raises: SchemaError: not such a table. PointerError: a pointer that is none, or of another store. LeakageError: an
        example that holds what its request could not have seen.
    """
    return read_heads(examples, schema, epoch).read_recents(traits, vocabulary)


def _user_ids(array: pa.Array, schema: Schema) -> pa.Array:
    if array.null_count:
        raise SchemaError(f"column 'user_id' has a null in row {first_row(array.is_null())}")
    if array.type == schema.user_id:
        return array
    if pa.types.is_integer(array.type) != pa.types.is_integer(schema.user_id):
        raise SchemaError(f"column 'user_id' is {array.type}; the store has {schema.user_id}")
    try:
        return array.cast(schema.user_id)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SchemaError(f"column 'user_id' does not fit {schema.user_id}: {error}") from None
