"""What an event consists of: the user id's type and the traits, in feature groups.

A trait has an Arrow type (what goes in and what `to_arrow` gives back) and a numpy dtype (what a batch holds: timestamps
as int64 µs, strings and dictionaries as int32 codes). A trait may be a list, of any length or of one size; then both are
said of its items.

Trait ids are permanent: stored columns are named by id, so that a name that is dropped and added again is a new trait
(docs/protocol.md R17). Examples are logged by a trait's label, which is its first name, or, where another trait ever had
that label, the name with its id: no two traits share a label, ever.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from latewood.errors import SchemaError
from latewood.lists import LIST_ITEMS_MAX, is_list

RESERVED = frozenset(
    [
        *("user_id", "event_ts", "ingest_ts", "event_id", "supersedes"),
        *("request_ts", "uih", "recent", "cutoff", "history"),
        "anchor",  # the column by which `lw.anchors` tells backfill which event a request is
        "ordinal",  # stands beside the traits in an example's recent events
        "superseded_at",  # stands beside them where events are exported
    ]
)
EVENT_TS = "event_ts"
TIME_TYPE = pa.timestamp("us", "UTC")
DEFAULT_GROUP = "default"


@dataclass(frozen=True)
class Trait:
    """One column of an event. What follows from its type is worked out once: appends and captures ask at every turn."""

    id: int
    name: str
    type: pa.DataType
    nullable: bool
    group: str
    label: str  # what it is called in logged examples: never changes, never another's
    former: tuple[str, ...] = ()  # names it had before
    added: bool = False  # after the store was created: a table of events may leave it out, which is null

    def __hash__(self) -> int:
        return hash((self.id, self.name))  # of all fields it takes long: Arrow spells out a type to hash it

    @cached_property
    def is_list(self) -> bool:
        """Whether each value is a list of items."""
        return is_list(self.type)

    @cached_property
    def list_size(self) -> int | None:
        """How many items every list has; None for a list of any length, and for a trait that is no list."""
        return self.type.list_size if pa.types.is_fixed_size_list(self.type) else None

    @cached_property
    def coded(self) -> bool:
        """Whether values, of a list the items, are stored as int32 codes of the store's vocabulary."""
        type_ = self._element_type
        return pa.types.is_dictionary(type_) or pa.types.is_string(type_)

    @cached_property
    def item_type(self) -> pa.DataType:
        """The Arrow type of the items of a list themselves; of a trait that is no list, of its values."""
        type_ = self._element_type
        return type_.value_type if pa.types.is_dictionary(type_) else type_

    @cached_property
    def value_type(self) -> pa.DataType:
        """The Arrow type of the values themselves: what `Batch.to_arrow` gives back."""
        return _list_of(self.item_type, self.list_size) if self.is_list else self.item_type

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of `Batch.values`: of a list, of its items."""
        type_ = self._element_type
        if self.coded:
            return np.dtype(np.int32)
        if pa.types.is_timestamp(type_):
            return np.dtype(np.int64)
        return np.dtype(type_.to_pandas_dtype())

    @property
    def _element_type(self) -> pa.DataType:
        """The type without the list around it, if there is one, but with a dictionary."""
        return self.type.value_type if self.is_list else self.type


class Schema:
    """The user id's type and the traits of a store's events.

    Args:
        user_id: any integer type (kept as int64) or string.
        traits: the traits, in one feature group called "default"; or
        groups: feature groups by name. Trait names are unique across groups.
    Raises: SchemaError: a reserved or repeated name, or a type that a store cannot hold.
    """

    __slots__ = ("_by_name", "next_id", "retired", "traits", "user_id")

    user_id: pa.DataType
    traits: tuple[Trait, ...]
    next_id: int  # of the next trait that is added
    retired: tuple[str, ...]  # labels of the traits that were dropped

    def __init__(
        self,
        *,
        user_id: pa.DataType,
        traits: pa.Schema | Iterable[pa.Field] | None = None,
        groups: Mapping[str, pa.Schema] | None = None,
    ) -> None:
        if (traits is None) == (groups is None):
            raise SchemaError("a schema takes either traits= or groups=")
        if groups is not None and not isinstance(groups, Mapping):
            raise SchemaError(
                f"groups= names the traits of each group, as {{'core': pa.schema([...])}}, not {groups!r}"
            )
        by_group = {DEFAULT_GROUP: traits} if traits is not None else dict(groups or {})
        fields = [(group, field) for group, schema in by_group.items() for field in _fields(schema, group)]
        self._init(
            _user_type(user_id),
            tuple(
                Trait(i, field.name, _trait_type(field), field.nullable, group, field.name)
                for i, (group, field) in enumerate(fields)
            ),
            len(fields),
        )

    def _init(
        self, user_id: pa.DataType, traits: tuple[Trait, ...], next_id: int, retired: tuple[str, ...] = ()
    ) -> None:
        self.user_id, self.traits, self.next_id, self.retired = user_id, traits, next_id, retired
        self._by_name = {trait.name: trait for trait in traits}
        if len(self._by_name) < len(traits):
            names = [trait.name for trait in traits]
            raise SchemaError(f"trait names must be unique across groups: {_repeated(names)} stands twice")
        if reserved := RESERVED & self._by_name.keys():
            raise SchemaError(f"reserved column names cannot be traits: {', '.join(sorted(reserved))}")

    def __iter__(self) -> Iterator[Trait]:
        return iter(self.traits)

    def __getitem__(self, name: str) -> Trait:
        if name in self._by_name:
            return self._by_name[name]
        renamed = [trait for trait in self.traits if name in trait.former]
        if len(renamed) == 1:  # a projection that was stored before keeps working
            return renamed[0]
        if renamed:
            now = " and ".join(repr(trait.name) for trait in renamed)
            raise SchemaError(f"trait {name!r} could be one of several that had that name, now {now}")
        known = ", ".join(self._by_name) or "none"
        raise SchemaError(f"unknown trait {name!r}; the store has: {known}")

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and (self.user_id, self.traits) == (other.user_id, other.traits)

    def __hash__(self) -> int:
        return hash((self.user_id, self.traits))

    def __repr__(self) -> str:
        return f"<Schema user_id: {self.user_id}, traits: {', '.join(f'{t.name}: {t.type}' for t in self.traits)}>"

    @property
    def groups(self) -> dict[str, tuple[Trait, ...]]:
        """The traits of each feature group, in order."""
        names = dict.fromkeys(trait.group for trait in self.traits)
        return {name: tuple(trait for trait in self.traits if trait.group == name) for name in names}

    def altered(
        self,
        *,
        add: Mapping[str, pa.Schema] | pa.Schema | Iterable[pa.Field] = (),
        drop: Iterable[str] = (),
        rename: Mapping[str, str] | None = None,
    ) -> "Schema":
        """The schema with traits dropped, then renamed, then added.

        Args:
            add: nullable fields, of the first group, or by group.
            drop, rename: names of now; `rename` from the name of now to the new one.
        Raises: SchemaError: an unknown, reserved or repeated name, a type no store holds, or an addition that is not
            nullable: it is null in every event that is there.
        """
        if isinstance(drop, str):
            raise SchemaError(f"drop={drop!r} is one string; pass a list")
        if rename is not None and not isinstance(rename, Mapping):
            raise SchemaError(f"rename= maps names of now to new ones, as {{'old': 'new'}}, not {rename!r}")
        dropped, renamed = set(drop), {old: _as_name(new) for old, new in (rename or {}).items()}
        for name in (*dropped, *renamed):
            if name not in self:
                raise SchemaError(f"unknown trait {name!r}; the store has: {', '.join(self._by_name) or 'none'}")
        if both := dropped & renamed.keys():
            raise SchemaError(f"trait {min(both)!r} is to be dropped and to be renamed")
        kept = [
            replace(trait, name=renamed[trait.name], former=tuple(dict.fromkeys((*trait.former, trait.name))))
            if renamed.get(trait.name, trait.name) != trait.name
            else trait
            for trait in self.traits
            if trait.name not in dropped
        ]
        retired = (*self.retired, *(trait.label for trait in self.traits if trait.name in dropped))
        taken = {*retired, *(trait.label for trait in kept)}
        group = self.traits[0].group if self.traits else DEFAULT_GROUP
        by_group = add if isinstance(add, Mapping) else {group: add}
        next_id = self.next_id
        for group, schema in by_group.items():
            for field in _fields(schema, group):
                if not field.nullable:
                    raise SchemaError(
                        f"trait {field.name!r} is added, so it is null in earlier events: make it nullable"
                    )
                label = field.name
                while label in taken:
                    label = f"{label}@{next_id}"
                taken.add(label)
                kept.append(Trait(next_id, field.name, _trait_type(field), True, group, label, added=True))
                next_id += 1
        schema = Schema.__new__(Schema)
        schema._init(self.user_id, tuple(kept), next_id, retired)
        return schema

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form, as kept in `store.json`, changes and manifests."""
        return {
            "user_id": str(self.user_id),
            "traits": [_trait_to_json(trait) for trait in self.traits],
            "next_id": self.next_id,
            "retired": list(self.retired),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Schema":
        """The inverse of `to_json`. Raises: SchemaError: not such a document."""
        schema = cls.__new__(cls)
        try:
            traits = tuple(_trait_from_json(trait) for trait in document["traits"])
            next_id = int(document.get("next_id", len(traits)))
            retired = tuple(str(label) for label in document.get("retired", ()))
            schema._init(_type_from_json(document["user_id"]), traits, next_id, retired)
        except (KeyError, TypeError, ValueError) as error:
            raise SchemaError(f"not a schema document: {error!r}") from error
        return schema

    def to_code(self) -> str:
        """Python source that makes this schema, to paste into a program."""
        parts = {name: ", ".join(_field_to_code(trait) for trait in traits) for name, traits in self.groups.items()}
        if not self.traits or set(parts) == {DEFAULT_GROUP}:
            body = f"    traits=pa.schema([{parts.get(DEFAULT_GROUP, '')}]),\n"
        else:
            lines = "".join(f"        {_quoted(name)}: pa.schema([{fields}]),\n" for name, fields in parts.items())
            body = f"    groups={{\n{lines}    }},\n"
        return f"schema = lw.Schema(\n    user_id={_type_to_code(self.user_id)},\n{body})"


def _repeated(names: list[str]) -> str:
    return next(repr(name) for name in names if names.count(name) > 1)


def _as_name(name: Any) -> str:
    """A trait's name. Raises: SchemaError: no text, or text that cannot be written down."""
    try:
        name.encode()
    except (AttributeError, UnicodeEncodeError):
        raise SchemaError(f"a trait's name is text, not {name!r}") from None
    return str(name)


def _fields(schema: Any, group: str) -> pa.Schema:
    try:
        return pa.schema(schema)
    except (pa.ArrowException, TypeError, ValueError) as error:
        what = "a pa.schema, or a list of pa.field or (name, pyarrow type)"
        raise SchemaError(f"the traits of group {group!r} are {what}, not {schema!r}: {error}") from None


def _user_type(type_: Any) -> pa.DataType:
    if not isinstance(type_, pa.DataType):
        raise SchemaError(f"user_id is a pyarrow type, pa.int64() or pa.string(), not {type_!r}")
    if pa.types.is_integer(type_):
        return pa.int64()
    if is_text(type_):
        return pa.string()
    raise SchemaError(f"user_id is an integer or a string, not {type_}")


def is_text(type_: pa.DataType) -> bool:
    """Whether values are strings, in whatever layout Arrow keeps them."""
    return pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_)


def _trait_type(field: pa.Field) -> pa.DataType:
    """The type as a store keeps it: text is `string`, times are µs, dictionary indices are int32, of lists the items."""
    type_ = field.type
    if not is_list(type_):
        return _kept_type(type_, field.name)
    if is_list(type_.value_type):
        raise SchemaError(f"trait {field.name!r}: a store cannot hold lists of lists, {type_}")
    size = type_.list_size if pa.types.is_fixed_size_list(type_) else None
    if size == 0:
        raise SchemaError(f"trait {field.name!r}: lists of size 0 hold nothing")
    if size is not None and size > LIST_ITEMS_MAX:
        raise SchemaError(f"trait {field.name!r}: lists of size {size:,}; a list has at most {LIST_ITEMS_MAX:,} items")
    return _list_of(_kept_type(type_.value_type, field.name), size)


def _list_of(item_type: pa.DataType, size: int | None) -> pa.DataType:
    return pa.list_(item_type) if size is None else pa.list_(item_type, size)


def _kept_type(type_: pa.DataType, name: str) -> pa.DataType:
    """`_trait_type` of what is no list. Raises: SchemaError: a type that no store holds."""
    if pa.types.is_dictionary(type_):
        value = pa.string() if is_text(type_.value_type) else type_.value_type
        if not (pa.types.is_string(value) or pa.types.is_integer(value)):
            raise SchemaError(f"trait {name!r}: a dictionary holds strings or integers, not {value}")
        return pa.dictionary(pa.int32(), value)
    if is_text(type_):
        return pa.string()
    if pa.types.is_timestamp(type_):
        return pa.timestamp("us", type_.tz)
    if pa.types.is_integer(type_) or pa.types.is_boolean(type_) or type_ in (pa.float32(), pa.float64()):
        return type_
    raise SchemaError(f"trait {name!r}: a store cannot hold {type_}")


_PLAIN = {str(t): t for t in (pa.bool_(), pa.float32(), pa.float64(), pa.string())}
_PLAIN |= {str(t): t for t in (pa.int8(), pa.int16(), pa.int32(), pa.int64())}
_PLAIN |= {str(t): t for t in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())}


def _type_to_json(type_: pa.DataType) -> Any:
    if pa.types.is_fixed_size_list(type_):
        return {"list": _type_to_json(type_.value_type), "size": type_.list_size}
    if is_list(type_):
        return {"list": _type_to_json(type_.value_type)}
    if pa.types.is_dictionary(type_):
        return {"dictionary": str(type_.value_type)}
    if pa.types.is_timestamp(type_):
        return {"timestamp": type_.tz}
    return str(type_)


def _type_from_json(document: Any) -> pa.DataType:
    if isinstance(document, str):
        return _PLAIN[document]
    if "list" in document:
        item, size = document["list"], document.get("size")
        if not isinstance(item, str) and "list" in item:
            raise ValueError("a list of lists")
        if size is not None and (type(size) is not int or not 0 < size < 2**31):
            raise ValueError(f"lists of size {size!r}")
        return _list_of(_type_from_json(item), size)
    if "dictionary" in document:
        return pa.dictionary(pa.int32(), _PLAIN[document["dictionary"]])
    return pa.timestamp("us", document["timestamp"])


def _trait_to_json(trait: Trait) -> dict[str, Any]:
    document = {"id": trait.id, "name": trait.name, "type": _type_to_json(trait.type)}
    document |= {"nullable": trait.nullable, "group": trait.group}
    if trait.label != trait.name:
        document["label"] = trait.label
    if trait.former:
        document["former"] = list(trait.former)
    if trait.added:
        document["added"] = True
    return document


def _trait_from_json(document: Mapping[str, Any]) -> Trait:
    name, id_ = str(document["name"]), document["id"]
    if type(id_) is not int or not 0 <= id_ < 2**31:
        raise ValueError(f"trait {name!r} has the id {id_!r}")
    return Trait(
        id_,
        name,
        _type_from_json(document["type"]),
        bool(document["nullable"]),
        str(document["group"]),
        str(document.get("label", name)),
        tuple(str(former) for former in document.get("former", ())),
        bool(document.get("added", False)),
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _field_to_code(trait: Trait) -> str:
    type_ = _type_to_code(trait.type)
    if trait.nullable:
        return f"({_quoted(trait.name)}, {type_})"
    return f"pa.field({_quoted(trait.name)}, {type_}, nullable=False)"


def _type_to_code(type_: pa.DataType) -> str:
    if is_list(type_):
        size = f", {type_.list_size}" if pa.types.is_fixed_size_list(type_) else ""
        return f"pa.list_({_type_to_code(type_.value_type)}{size})"
    if pa.types.is_dictionary(type_):
        return f"pa.dictionary(pa.int32(), {_type_to_code(type_.value_type)})"
    if pa.types.is_timestamp(type_):
        return f'pa.timestamp("us", "{type_.tz}")' if type_.tz else 'pa.timestamp("us")'
    plain = {"bool": "bool_", "float": "float32", "double": "float64"}
    return f"pa.{plain.get(str(type_), str(type_))}()"
