"""The error tree's shape is part of the contract: what to catch, and the stable words for logs."""

import latewood.errors as errors
from latewood.errors import LatewoodError

TREE = {
    "LatewoodError": ("error", Exception),
    "SchemaError": ("schema", ValueError),
    "StoreNotFoundError": ("store_not_found", FileNotFoundError),
    "PointerError": ("pointer", LatewoodError),
    "ExpiredError": ("expired", LatewoodError),
    "ScrubbedError": ("scrubbed", LatewoodError),
    "LeakageError": ("leakage", LatewoodError),
    "CorruptionError": ("corruption", LatewoodError),
    "ConflictError": ("conflict", LatewoodError),
}
CLASSES = {name: value for name, value in vars(errors).items() if isinstance(value, type)}


def test_the_tree_has_exactly_these_errors() -> None:
    assert {name: cls.kind for name, cls in CLASSES.items()} == {name: kind for name, (kind, _) in TREE.items()}


def test_each_stands_directly_below_the_root_and_where_a_handler_looks_for_it() -> None:
    for name, (_, also) in TREE.items():
        cls = CLASSES[name]
        assert issubclass(cls, LatewoodError)
        assert issubclass(cls, also)
        if cls is not LatewoodError:
            assert LatewoodError in cls.__bases__


def test_kinds_are_distinct() -> None:
    kinds = [cls.kind for cls in CLASSES.values()]
    assert len(set(kinds)) == len(kinds)


def test_the_drawing_names_every_error() -> None:
    assert errors.__doc__ is not None
    assert [name for name in CLASSES if name not in errors.__doc__] == []


def test_a_message_is_shown_as_it_was_given() -> None:
    for cls in CLASSES.values():
        assert str(cls("column 'x', row 3")) == "column 'x', row 3"
