"""Where a run stands, as JSON: small, and the same on every rank.

One position, counted in examples of the epoch's order, says what is left for any number of ranks. The rest is there
to refuse a state that belongs to other examples or another order, where the position would mean something else.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from latewood.errors import SchemaError
from latewood.loading.steps import whole

VERSION = 1
_WHY = {
    "seed": "another seed",
    "order": "another order",
    "window": "another window",
    "examples": "another number of examples",
    "fingerprint": "other examples",
}


@dataclass(frozen=True, slots=True)
class LoaderState:
    """`position` examples of epoch `epoch` are done; the other fields say in which order of which examples."""

    epoch: int
    position: int
    seed: int
    order: str
    window: int
    examples: int
    fingerprint: str
    version: int = VERSION

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "LoaderState":
        """Raises: SchemaError: not such a document, or one of a later version."""
        version = document.get("version") if isinstance(document, Mapping) else None
        if version != VERSION:
            raise SchemaError(f"not a loader's state of version {VERSION}: {document!r}")
        try:
            values = {field.name: document[field.name] for field in fields(cls)}
        except KeyError as error:
            raise SchemaError(f"the loader's state lacks {error}") from None
        numbers = {name: whole(name, values[name]) for name in ("epoch", "position", "seed", "window", "examples")}
        state = cls(**values | numbers)
        if not 0 <= state.position <= state.examples:
            raise SchemaError(f"the loader's state has position {state.position} of {state.examples} examples")
        return state

    def refuse_other(self, mine: "LoaderState") -> None:
        """Raises: SchemaError: this state is of a loader with other examples or another order than mine."""
        for name, what in _WHY.items():
            theirs, own = getattr(self, name), getattr(mine, name)
            if theirs != own:
                raise SchemaError(f"the state is of another run: it has {what} ({theirs!r} there, {own!r} here)")
