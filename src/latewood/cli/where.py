"""Conditions in words: `like == true & item_id > 5`, as `--where` takes them. Read piece by piece; nothing is evaluated.

A comparison is a trait (or event_ts), an operator and a value; `&` joins several. A value is true, false, a number, or text
in single or double quotes. A trait whose name has other characters than letters, digits and `_.-` stands in quotes, too.
"""

import json
import re

import latewood as lw
from latewood.conditions import OPERATORS, Condition
from latewood.errors import SchemaError
from latewood.projection import Stream

_QUOTED = r"'[^']*'|\"[^\"]*\""
_COMPARISON = re.compile(
    rf"\s*(?P<name>{_QUOTED}|[^\W\d][\w.-]*)\s*(?P<op>==|!=|<=|>=|<|>)\s*(?P<value>{_QUOTED}|[^\s&'\"<>=!]+)\s*"
)


def parse_stream(text: str) -> tuple[str, Stream]:
    """`NAME=COUNT` or `NAME=COUNT:CONDITION`. Raises: SchemaError: not such a stream."""
    found = re.fullmatch(r"(?P<name>[^=:]+)=(?P<count>[0-9]+)(:(?P<where>.*))?", text, re.DOTALL)
    if found is None:
        raise SchemaError(f"--stream {text!r}: expected NAME=COUNT, or NAME=COUNT:CONDITION")
    where = None if found["where"] is None else parse_where(found["where"], "--stream")
    return found["name"].strip(), lw.last(int(found["count"]), where)


def parse_where(text: str, option: str = "--where") -> Condition:
    """Raises: SchemaError: not such a condition; says from where on. Args: option: which one had the text."""
    condition: Condition | None = None
    start = 0
    while True:
        found = _COMPARISON.match(text, start)
        if found is None:
            raise _refused(text, start, option)
        column = lw.col(_unquoted(found["name"]))
        comparison: Condition = OPERATORS[found["op"]](column, _value(found["value"], text, option))
        condition = comparison if condition is None else condition & comparison
        if found.end() == len(text):
            return condition
        if text[found.end()] != "&":
            raise _refused(text, found.end(), option)
        start = found.end() + 1


def _value(word: str, text: str, option: str) -> bool | int | float | str:
    if word[0] in "'\"":
        return _unquoted(word)
    try:
        value = json.loads(word)
    except ValueError:
        value = None
    if not isinstance(value, bool | int | float):
        raise SchemaError(f"{option} {text!r}: {word} is not true, false or a number; text stands in quotes: '{word}'")
    return value


def _unquoted(word: str) -> str:
    return word[1:-1] if word[0] in "'\"" else word


def _refused(text: str, start: int, option: str) -> SchemaError:
    return SchemaError(
        f"{option} {text!r}: expected TRAIT OPERATOR VALUE, several joined by &, from {text[start:]!r} on; "
        "other conditions can be had from Python"
    )
