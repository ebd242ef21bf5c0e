"""A projection: one model's view of the histories. How many events, of which kinds, and which traits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from latewood.conditions import Condition, check_condition
from latewood.errors import SchemaError
from latewood.schema import EVENT_TS, Schema

STREAM = "stream"  # the column that says which streams an event is in
_STREAMS_MAX = 63  # bits of an int64


@dataclass(frozen=True, slots=True)
class Stream:
    """The newest events of one kind. Made by `lw.last`."""

    count: int
    where: Condition | None = None


def last(count: int, where: Condition | None = None) -> Stream:
    """The newest `count` events that meet a condition, for `Projection(streams={name: lw.last(...)})`.

    Args: where: for example `lw.col("action") == "like"`; None takes every event.
    Raises: SchemaError: not a count, or not a condition.
    """
    if where is not None and not isinstance(where, Condition):
        raise SchemaError(f"where is a condition such as lw.col('trait') == 1, not {where!r}")
    return Stream(_count("the count of a stream", count), where)


@dataclass(frozen=True, slots=True)
class Projection:
    """What one model (a tenant) wants to see of every history.

    Args:
        max_len: keep the newest this many events; None keeps all, and 0 none, for a model of the features alone.
        traits: trait names, in the order wanted; "event_ts" is the events' own time. Or
        groups: feature groups, whose traits come with event_ts. Neither: event_ts and all traits.
        ids: traits among these, dictionaries of integers, that a batch has as the integers and not as dense codes.
        streams: kinds of events by name, each `lw.last(count, where=...)`: only events that are in one of them are kept,
            in the order of time, and a column "stream" says which they are in: bit i of it is the i-th stream.
            `Batch.stream(name)` has one of them alone. max_len then cuts what all of them have together.
        scan: with streams, look at the newest this many events and no further; None looks at all.
    Raises: SchemaError: max_len or scan that is no count, a trait or stream twice, both traits and groups, or scan without
        streams.
    """

    max_len: int | None = None
    traits: Sequence[str] | None = None
    groups: Sequence[str] | None = None
    ids: Sequence[str] = ()
    streams: Mapping[str, Stream] | Sequence[tuple[str, Stream]] = ()  # kept as pairs
    scan: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_len", "scan"):
            if (value := getattr(self, name)) is not None:
                _count(name, value, "and None keeps all")
        if self.traits is not None and self.groups is not None:
            raise SchemaError("a projection takes either traits= or groups=")
        for name in ("traits", "groups", "ids"):
            names = getattr(self, name)
            if isinstance(names, str):
                raise SchemaError(f"{name}={names!r} is one string; pass a list")
            if names is not None:
                object.__setattr__(self, name, tuple(names))
                if len(set(names)) < len(names):
                    raise SchemaError(f"{name} {list(names)} repeats a name")
        object.__setattr__(self, "streams", _checked_streams(self.streams))
        if self.scan is not None and not self.streams:
            raise SchemaError(
                f"scan={self.scan} bounds how far streams look back, and there are none: is max_len meant?"
            )

    @property
    def reach(self) -> int | None:
        """How many of the newest events are looked at; None: all. None are, where none is ever shown."""
        if not self.streams or self.max_len == 0:
            return self.max_len
        return self.scan if any(stream.count for _, stream in self.kinds) else 0

    def names(self, schema: Schema) -> tuple[str, ...]:
        """The traits this projection gives on a store of this schema, and "event_ts", in order.

        Raises: SchemaError: a trait or group that the store does not have, or a condition that does not fit one.
        """
        names = self._names(schema)
        for where in self._conditions:
            check_condition(where, schema)
        if self.streams and STREAM in names:
            raise SchemaError(f"the trait {STREAM!r} has the name of the column that tells streams apart: rename it")
        return names

    def needs(self, schema: Schema) -> tuple[str, ...]:
        """`names`, and what conditions look at besides."""
        return tuple(dict.fromkeys([*self.names(schema), *self.looks_at]))

    @property
    def looks_at(self) -> tuple[str, ...]:
        """The traits that the conditions of streams look at."""
        return tuple(sorted(frozenset().union(*(where.names for where in self._conditions))))

    @property
    def kinds(self) -> tuple[tuple[str, Stream], ...]:
        """The streams by name, in their order: the i-th is bit i of the column "stream"."""
        return tuple(self.streams)  # type: ignore[arg-type]  # made pairs at the start

    @property
    def _conditions(self) -> list[Condition]:
        return [stream.where for _, stream in self.kinds if stream.where is not None]

    def _names(self, schema: Schema) -> tuple[str, ...]:
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


def _count(name: str, value: Any, otherwise: str = "") -> int:
    if not isinstance(value, Integral) or not 0 <= int(value) < 2**63:
        raise SchemaError(f"{name} is {value!r}; it counts events{otherwise and ', '}{otherwise}")
    return int(value)


def _checked_streams(streams: Any) -> tuple[tuple[str, Stream], ...]:
    try:
        pairs = list(streams.items() if isinstance(streams, Mapping) else streams)
        named = dict(pairs)
    except (TypeError, ValueError):
        raise SchemaError(f"streams= maps names to lw.last(...), not {streams!r}") from None
    for name, stream in named.items():
        if not isinstance(name, str) or not isinstance(stream, Stream):
            raise SchemaError(f"stream {name!r} is {stream!r}: make it with lw.last(count, where=...)")
    if len(named) < len(pairs):
        raise SchemaError(f"streams {[name for name, _ in pairs]} repeat a name")
    if len(named) > _STREAMS_MAX:
        raise SchemaError(f"there are {len(named)} streams; a projection has {_STREAMS_MAX} at most")
    return tuple(named.items())
