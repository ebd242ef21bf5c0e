"""Changes to what a store is like: its schema, its number of shards, its retention (docs/protocol.md R15, R17, R20).

A change is written down at once and applied by the next generation: compaction builds what the newest change says, and
the manifest names it. Changes are numbered from 1 without gaps; of two that are made at once, one is refused, because
each says the whole and would undo the other.
"""

from dataclasses import dataclass
from typing import Any

from latewood.errors import ConflictError
from latewood.immutable.manifest import Generation
from latewood.retention import Retention
from latewood.schema import Schema
from latewood.storage import Storage, keys
from latewood.storage.documents import whole
from latewood.storage.records import Records

KIND = "change"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Change:
    """What a store is to be like: the whole of it, not what is different."""

    number: int
    schema: Schema
    shards: int
    retention: Retention | None = None

    @classmethod
    def of(cls, generation: Generation) -> "Change":
        """What a generation is like."""
        return cls(generation.change, generation.schema, len(generation.shards), generation.retention)


@dataclass(frozen=True, slots=True)
class Alteration:
    """What a change makes different. Printing it lists that."""

    before: Change
    after: Change

    def lines(self) -> list[str]:
        """One line for each difference."""
        old, new = self.before, self.after
        was, now = ({trait.id: trait for trait in change.schema} for change in (old, new))
        lines = [f"- {was[id_].name}: {was[id_].type}, with all its values" for id_ in was.keys() - now.keys()]
        lines += [f"+ {now[id_].name}: {now[id_].type}, null in earlier events" for id_ in now.keys() - was.keys()]
        both = [id_ for id_ in was if id_ in now]
        lines += [f"{was[id_].name} → {now[id_].name}" for id_ in both if was[id_].name != now[id_].name]
        if old.shards != new.shards:
            lines.append(f"shards: {old.shards} → {new.shards}")
        if old.retention != new.retention:
            lines.append(f"retention: {old.retention or 'keep all'} → {new.retention or 'keep all'}")
        return lines

    def __str__(self) -> str:
        lines = self.lines()
        return "\n".join([*lines, "applied by the next compaction"]) if lines else "nothing changes"


class Changes:
    """The changes of one store.

    Args: epoch: the store's; a change of another is damage.
    """

    def __init__(self, storage: Storage, epoch: bytes) -> None:
        self._records = Records(storage, epoch, KIND, FORMAT_VERSION, keys.change)

    def latest(self, generation: Generation) -> Change:
        """The newest change, or what `generation` is like if none was made since. Raises: CorruptionError."""
        change = Change.of(generation)
        while (newer := self._records.read_if_any(change.number + 1, _from_document)) is not None:
            change = newer
        return change

    def pending(self, generation: Generation) -> Alteration:
        """What the next generation after this one makes different. Raises: CorruptionError."""
        return Alteration(Change.of(generation), self.latest(generation))

    def add(self, change: Change) -> None:
        """Write down a change, numbered one past the latest; the same one again is fine.

        Raises: ConflictError: another was made meanwhile.
        """
        body: dict[str, Any] = {
            "schema": change.schema.to_json(),
            "shards": change.shards,
            "retention": None if change.retention is None else change.retention.to_json(),
        }
        if not self._records.ensure(change.number, body):
            raise ConflictError(f"change {change.number} was made by someone else meanwhile; look at it and try again")


def _from_document(document: dict[str, Any]) -> Change:
    schema, retention = Schema.from_json(document["schema"]), Retention.from_json(document["retention"])
    return Change(whole(document["number"]), schema, whole(document["shards"], 1), retention)
