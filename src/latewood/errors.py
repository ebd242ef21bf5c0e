"""Everything latewood raises on purpose, grouped by what a handler would do.

    LatewoodError
    ├── fix the input     SchemaError         columns, types, nulls, unknown traits, unreadable format versions
    │                     StoreNotFoundError  the path holds no store
    ├── fix the pointer   PointerError        from another store or epoch, or newer than what can be read
    │                     ExpiredError        retention removed what the pointer needs
    │                     ScrubbedError       the user was forgotten
    ├── stop everything   LeakageError        an event was visible before its time
    │                     CorruptionError     bytes are not what was written
    └── try again         ConflictError       someone else was first, or the order of time would break

A full disk stays an `OSError`. `kind` is a stable word for logs, metrics and `--json`.
"""

import os
from typing import ClassVar


class LatewoodError(Exception):
    """The root: catch it to catch everything that latewood raises on purpose."""

    kind: ClassVar[str] = "error"


class SchemaError(LatewoodError, ValueError):
    """The input has the wrong columns, types, nulls or trait names, or a format version that this code cannot read."""

    kind = "schema"


class StoreNotFoundError(LatewoodError, FileNotFoundError):
    """The path or URI holds no store."""

    kind = "store_not_found"


class PointerError(LatewoodError):
    """The pointer belongs to another store or epoch, or is newer than what can be read."""

    kind = "pointer"


class ExpiredError(LatewoodError):
    """Retention removed events that the pointer needs; the message names the horizon."""

    kind = "expired"


class ScrubbedError(LatewoodError):
    """The user was scrubbed after the example was captured."""

    kind = "scrubbed"


class LeakageError(LatewoodError):
    """A training sequence would hold an event that the request could not have seen."""

    kind = "leakage"


class CorruptionError(LatewoodError):
    """Stored bytes differ from what was written; the message names the file and the place in it."""

    kind = "corruption"


class ConflictError(LatewoodError):
    """Another writer was first, or the write would change what has already been seen."""

    kind = "conflict"


def refuse_path(store: object, *, read_only: bool = False) -> None:
    """Raises: SchemaError: the path of a store stands for the store. Args: read_only: whether one opened so will do."""
    if isinstance(store, str | os.PathLike):
        how = ", read_only=True" if read_only else ""
        raise SchemaError(f"a path is no store; open it first: lw.Store.open({str(store)!r}{how})")
