"""What a verification looked at, and what it found."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Tell = Callable[[int, int], None]  # of progress: how much is done, of how much
SHOWN = 20  # differences kept in words; all are counted


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as it must be."""

    what: Literal["manifest", "shard", "vocabulary", "recent", "example"]
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was looked at, and what is wrong. Counts that were not asked for are 0."""

    generation: int  # the one that was verified
    generations: int = 0  # manifests read
    shards: int = 0  # files read in full
    users: int = 0
    events: int = 0  # stored events read in full
    values: int = 0  # of the vocabularies
    recent: int = 0  # events of the mutable tier
    examples: int = 0  # there are
    sampled: int = 0  # examples derived anew
    compared: int = 0  # events of theirs, value for value
    expired: int = 0  # examples that are refused, rightly, since retention took their events
    scrubbed: int = 0  # examples that are refused, rightly, since their user was forgotten
    difference_count: int = 0
    differences: tuple[Difference, ...] = ()  # the first of them

    @property
    def ok(self) -> bool:
        """Whether everything is as it must be."""
        return not self.difference_count

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form."""
        return {"ok": self.ok, **asdict(self)}


@dataclass(slots=True)
class Findings:
    """Gathers differences: the first in words, the rest by number."""

    first: list[Difference] = field(default_factory=list)
    count: int = 0

    def add(self, difference: Difference) -> None:
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(difference)

    def join(self, others: "Findings") -> None:
        """Those of another part."""
        self.count += others.count
        self.first += others.first[: SHOWN - len(self.first)]

    def extend(self, differences: Iterable[Difference]) -> None:
        for difference in differences:
            self.add(difference)
