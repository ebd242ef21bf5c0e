"""What people type and Python has types for: users and moments."""

import re
from datetime import datetime, timedelta

import pyarrow as pa

from latewood.clock import to_us
from latewood.errors import SchemaError

MOMENT = "µs since epoch, or a time such as 2024-03-01T12:00:00Z"


def parse_user(user: str, type_: pa.DataType) -> int | str:
    """A user id of the store's type. Raises: SchemaError: the store's are integers, and this is none."""
    if not pa.types.is_integer(type_):
        return user
    if not re.fullmatch(r"[-+]?[0-9]+", user):  # int() takes more, such as 1_000
        raise SchemaError(f"--user {user!r}: the store's user ids are integers")
    return int(user)


def parse_moment(text: str, option: str) -> int:
    """µs since epoch, or a time as 2024-03-01T12:00:00.5Z (UTC, if it says nothing else). Raises: SchemaError."""
    if re.fullmatch(r"[-+]?\d+", text):
        return int(text)
    try:
        return to_us(datetime.fromisoformat(text))
    except ValueError:
        raise SchemaError(f"{option} {text!r} is no moment: give {MOMENT}") from None


def parse_days(days: float, option: str) -> timedelta:
    """A number of days as a length of time. Raises: SchemaError: no number, or one that is beyond all years."""
    try:
        return timedelta(days=days)
    except (ValueError, OverflowError):
        raise SchemaError(f"{option} {days}: no number of days that there are") from None
