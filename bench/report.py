"""Results: as tables for people, as JSON for machines, and what misses its floor."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.timing import Speed

BUSY_BELOW = 0.95  # of the wall time


@dataclass(frozen=True, slots=True)
class Floor:
    """A ratio that a suite must reach."""

    contender: str
    peer: str
    ratio: float


@dataclass(frozen=True, slots=True)
class Line:
    """One contender in one cell: `ratio` is its events per second over the peer's."""

    max_len: int
    traits: int
    contender: str
    speed: Speed
    ratio: float
    processor_share: float
    floor: Floor | None = None

    @property
    def misses(self) -> bool:
        return self.floor is not None and self.ratio < self.floor.ratio

    def to_json(self) -> dict[str, Any]:
        return {
            "max_len": self.max_len,
            "traits": self.traits,
            "contender": self.contender,
            "events_per_s": self.speed.events_per_s,
            "ms_per_batch": self.speed.ms_per_batch,
            "events_per_batch": self.speed.amount.events / self.speed.amount.batches,
            "spread": self.speed.spread,
            "ratio": self.ratio,
            "floor": self.floor.ratio if self.floor else None,
            "processor_share": self.processor_share,
        }


@dataclass(frozen=True, slots=True)
class Storage:
    """What one side keeps on disk; `examples_bytes` is what is logged per example, whatever is shared."""

    side: str
    max_len: int | None  # None: any
    size_bytes: int
    events: int
    examples_bytes: int
    examples: int

    @property
    def bytes_per_event(self) -> float:
        return self.size_bytes / max(self.events, 1)

    @property
    def bytes_per_example(self) -> float:
        return self.examples_bytes / max(self.examples, 1)

    def to_json(self) -> dict[str, Any]:
        return {
            "side": self.side,
            "max_len": self.max_len,
            "size_bytes": self.size_bytes,
            "bytes_per_event": self.bytes_per_event,
            "bytes_per_example": self.bytes_per_example,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """One suite's results, with all that is needed to make them again."""

    suite: str
    peer: str
    machine: dict[str, Any]
    seed: int
    users: int
    events: int
    passes: int
    lines: list[Line]
    storage: list[Storage] = field(default_factory=list)
    compared: int = 0

    @property
    def missed(self) -> list[str]:
        """What is under its floor, in words."""
        return [
            f"{line.contender} at {line.max_len:,} events, {line.traits} traits: {line.ratio:.2f}x {line.floor.peer}, "
            f"under the floor of {line.floor.ratio:g}x"
            for line in self.lines
            if line.floor is not None and line.misses
        ]

    def to_json(self) -> dict[str, Any]:
        return {
            "suite": self.suite,
            "peer": self.peer,
            "machine": self.machine,
            "seed": self.seed,
            "users": self.users,
            "events": self.events,
            "passes": self.passes,
            "clock": "processor time, medians of interleaved passes",
            "compared": self.compared,
            "different": 0,
            "lines": [line.to_json() for line in self.lines],
            "storage": [row.to_json() for row in self.storage],
            "missed": self.missed,
        }


def show(console: Console, report: Report) -> None:
    """Print a report."""
    here = report.machine
    versions = ", ".join(f"{name} {number}" for name, number in here["versions"].items())
    console.print(f"\n[bold]{report.suite}[/]  {here['processor']}, {here['cores']} cores, {here['memory_gib']} GiB")
    console.print(f"{versions}; seed {report.seed}", highlight=False)
    console.print(
        f"{report.users:,} users, {report.events:,} events; one thread, processor time, medians of {report.passes} "
        f"interleaved passes; {report.compared:,} examples compared, none differs",
        highlight=False,
    )
    console.print(_speeds(report))
    if report.storage:
        console.print(_storage(report.storage))
    share = min(line.processor_share for line in report.lines)
    if share < BUSY_BELOW:
        console.print(f"[yellow]had the processor for {share:.0%} of the time: the machine was busy; measure again[/]")


def _speeds(report: Report) -> Table:
    names = ("events", "traits", "", "M events/s", "ms/batch", "spread", f"× {report.peer}", "floor")
    table = _table(names, left="")
    for i, line in enumerate(report.lines):
        last = i + 1 == len(report.lines) or _cell(report.lines[i + 1]) != _cell(line)
        ratio = f"{line.ratio:.2f}"
        if line.floor is not None:
            ratio = f"[{'red' if line.misses else 'green'}]{ratio}[/]"
        table.add_row(
            f"{line.max_len:,}", str(line.traits), line.contender, f"{line.speed.events_per_s / 1e6:,.1f}",
            f"{line.speed.ms_per_batch:.3f}", f"±{line.speed.spread / 2:.0%}", ratio,
            f"{line.floor.ratio:g}" if line.floor else "", end_section=last,
        )  # fmt: skip
    return table


def _storage(rows: Iterable[Storage]) -> Table:
    table = _table(("", "events", "stored MB", "bytes/event", "logged bytes/example"), left="")
    for row in rows:
        table.add_row(
            row.side, f"{row.max_len:,}" if row.max_len else "any", f"{row.size_bytes / 1e6:,.1f}",
            f"{row.bytes_per_event:.2f}", f"{row.bytes_per_example:,.1f}",
        )  # fmt: skip
    return table


def _table(names: Iterable[str], left: str) -> Table:
    table = Table()
    for name in names:
        table.add_column(name, justify="left" if name == left else "right", no_wrap=True)
    return table


def _cell(line: Line) -> tuple[int, int]:
    return line.max_len, line.traits
