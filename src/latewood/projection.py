"""A projection: one model's view of the histories. How many events, and which traits."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

from latewood.errors import SchemaError
from latewood.schema import EVENT_TS, Schema


@dataclass(frozen=True, slots=True)
class Projection:
    """What one model (a tenant) wants to see of every history.

    Args:
        max_len: keep the newest this many events; None keeps all, and 0 none, for a model of the features alone.
        traits: trait names, in the order wanted; "event_ts" is the events' own time. Or
        groups: feature groups, whose traits come with event_ts. Neither: event_ts and all traits.
        ids: traits among these, dictionaries of integers, that a batch has as the integers and not as dense codes.
    Raises: SchemaError: max_len that is no count, a repeated trait, or both traits and groups.
    """

    max_len: int | None = None
    traits: Sequence[str] | None = None
    groups: Sequence[str] | None = None
    ids: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.max_len is not None and (not isinstance(self.max_len, Integral) or not 0 <= self.max_len < 2**63):
            raise SchemaError(f"max_len is {self.max_len!r}; it counts events")
        if self.traits is not None and self.groups is not None:
            raise SchemaError("a projection takes either traits= or groups=")
        for field in ("traits", "groups", "ids"):
            names = getattr(self, field)
            if isinstance(names, str):
                raise SchemaError(f"{field}={names!r} is one string; pass a list")
            if names is not None:
                object.__setattr__(self, field, tuple(names))
                if len(set(names)) < len(names):
                    raise SchemaError(f"{field} {list(names)} repeats a name")

    def names(self, schema: Schema) -> tuple[str, ...]:
        """The columns this projection gives on a store of this schema, in order.

        Raises: SchemaError: a trait or group that the store does not have.
        """
        if self.traits is not None:
            for name in self.traits:
                if name != EVENT_TS:
                    schema[name]
            return tuple(self.traits)
        if self.groups is None:
            return (EVENT_TS, *(trait.name for trait in schema))
        groups = schema.groups
        if unknown := [name for name in self.groups if name not in groups]:
            raise SchemaError(f"unknown feature group {unknown[0]!r}; the store has: {', '.join(groups) or 'none'}")
        return (EVENT_TS, *(trait.name for group in self.groups for trait in groups[group]))
