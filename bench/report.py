"""Results: lines with both sides of a ratio, as tables for people and as JSON for machines, and what misses its bound.

A line is one contender in one cell. Its `ratio` is always its own figure over the peer's, in the same unit, so that at
least 2x of a speed and at most 1.25x of a time are both read as they stand. A *target* is what we aim for, and is
reported where it is missed; a *floor* is what must not be lost again, and fails the run.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.timing import Measurement, Speed

BUSY_BELOW = 0.95  # of the wall time
ONE_THREAD = "one thread, processor time, medians of interleaved passes"
WALL = "wall time, medians of interleaved passes"

RATES: dict[str, Callable[[Speed], float]] = {  # what is said of a speed, by unit
    "M events/s": lambda speed: speed.events_per_s / 1e6,
    "examples/s": lambda speed: speed.amount.examples / speed.seconds,
    "ms/batch": lambda speed: speed.ms_per_batch,
    "ns/event": lambda speed: 1e9 / speed.events_per_s,
    "µs/example": lambda speed: 1e6 * speed.seconds / speed.amount.examples,
}


@dataclass(frozen=True, slots=True)
class Bound:
    """At least, or at most, `value`; of the ratio, or of the figure itself."""

    value: float
    at_most: bool = False
    of_figure: bool = False

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.value:g}{'' if self.of_figure else 'x'}"

    def holds(self, reached: float) -> bool:
        return reached <= self.value if self.at_most else reached >= self.value


def at_least(ratio: float) -> Bound:
    """Of the ratio to the peer."""
    return Bound(ratio)


def at_most(ratio: float) -> Bound:
    """Of the ratio to the peer."""
    return Bound(ratio, at_most=True)


@dataclass(frozen=True, slots=True)
class Line:
    """One contender in one cell; `figure` is None where it was not measured, and `note` says why."""

    cell: str
    contender: str
    figure: float | None
    unit: str
    ratio: float | None = None
    peer: str | None = None
    target: Bound | None = None
    floor: Bound | None = None
    spread: float | None = None  # of the passes, as a share of the median
    processor_share: float | None = None  # of the wall time, while this was measured
    note: str = ""
    details: Mapping[str, float] = field(default_factory=dict)

    def misses(self, bound: Bound | None) -> bool:
        """Whether a bound was given and is not kept. What was not measured misses nothing."""
        if bound is None:
            return False
        reached = self.figure if bound.of_figure else self.ratio
        return reached is not None and not bound.holds(reached)

    def complaint(self, bound: Bound, what: str) -> str:
        """In words, how a bound is missed."""
        reached = f"{self.figure:.4g} {self.unit}" if bound.of_figure else f"{self.ratio:.4g}x {self.peer}"
        return f"{self.contender}, {self.cell}: {reached} misses the {what} of {bound}"

    def to_json(self) -> dict[str, Any]:
        return {
            "cell": self.cell,
            "contender": self.contender,
            "figure": self.figure,
            "unit": self.unit,
            "ratio": self.ratio,
            "peer": self.peer,
            "target": str(self.target) if self.target else None,
            "target_met": None if self.target is None or self.figure is None else not self.misses(self.target),
            "floor": str(self.floor) if self.floor else None,
            "spread": self.spread,
            "processor_share": self.processor_share,
            "note": self.note,
            "details": dict(self.details),
        }


def compare(
    cell: str,
    figures: Mapping[str, float],
    unit: str,
    peer: str,
    *,
    targets: Mapping[str, Bound] | None = None,
    notes: Mapping[str, str] | None = None,
    details: Mapping[str, Mapping[str, float]] | None = None,
) -> list[Line]:
    """One line per contender, each beside the peer. Args: targets, notes, details: by contender."""
    targets, notes, details = targets or {}, notes or {}, details or {}
    return [
        Line(
            cell, name, figure, unit, figure / figures[peer] if figures[peer] else None, peer, targets.get(name),
            note=notes.get(name, ""), details=details.get(name, {}),
        )
        for name, figure in figures.items()
    ]  # fmt: skip


def speed_lines(
    cell: str,
    measured: Measurement,
    unit: str,
    peer: str,
    *,
    targets: Mapping[str, Bound] | None = None,
    floors: Mapping[str, Bound] | None = None,
    notes: Mapping[str, str] | None = None,
) -> list[Line]:
    """One line per contender of a measurement. Args: unit: one of RATES. targets, floors, notes: by contender."""
    rate, targets, floors, notes = RATES[unit], targets or {}, floors or {}, notes or {}
    base = rate(measured.speeds[peer])
    return [
        Line(
            cell, name, rate(speed), unit, rate(speed) / base, peer, targets.get(name), floors.get(name),
            speed.spread, measured.processor_share, notes.get(name, ""), _details(speed),
        )
        for name, speed in measured.speeds.items()
    ]  # fmt: skip


def absent(cell: str, contender: str, why: str) -> Line:
    """A contender that could not be measured."""
    return Line(cell, contender, None, "", note=why)


def _details(speed: Speed) -> dict[str, float]:
    return {
        "seconds": speed.seconds,
        "events_per_s": speed.events_per_s,
        "ms_per_batch": speed.ms_per_batch,
        "events_per_batch": speed.amount.events / speed.amount.batches,
        "examples": speed.amount.examples,
    }


@dataclass(frozen=True, slots=True)
class Results:
    """What a suite found. `compared` examples were compared with what is right before anything was timed."""

    lines: list[Line]
    compared: int = 0
    clock: str = ONE_THREAD


@dataclass(frozen=True, slots=True)
class Report:
    """One suite's results, with all that is needed to make them again."""

    suite: str
    about: str
    machine: dict[str, Any]
    settings: dict[str, Any]
    results: Results

    @property
    def failed(self) -> list[str]:
        """What is under its floor, in words."""
        return [
            line.complaint(line.floor, "floor") for line in self.results.lines if line.floor and line.misses(line.floor)
        ]

    @property
    def missed(self) -> list[str]:
        """What misses its target, in words."""
        lines = self.results.lines
        return [line.complaint(line.target, "target") for line in lines if line.target and line.misses(line.target)]

    def to_json(self) -> dict[str, Any]:
        return {
            "suite": self.suite,
            "about": self.about,
            "machine": self.machine,
            **self.settings,
            "clock": self.results.clock,
            "compared": self.results.compared,
            "different": 0,  # a difference ends the run
            "lines": [line.to_json() for line in self.results.lines],
            "missed": self.missed,
            "failed": self.failed,
        }


def show(console: Console, report: Report) -> None:
    """Print a report."""
    here, settings, lines = report.machine, report.settings, report.results.lines
    versions = ", ".join(f"{name} {number}" for name, number in here["versions"].items())
    console.print(f"\n[bold]{report.suite}[/]: {report.about}", highlight=False)
    console.print(
        f"{here['processor']}, {here['cores']} cores, {here['memory_gib']} GiB, {here['filesystem']}; {versions}; "
        f"seed {settings['seed']}, {settings['users']:,} users, {settings['passes']} passes; {report.results.clock}",
        highlight=False,
    )
    if report.results.compared:
        console.print(f"{report.results.compared:,} examples compared, none differs", highlight=False)
    console.print(_table(lines))
    for note in dict.fromkeys(f"{line.contender}: {line.note}" for line in lines if line.note):
        console.print(f"  {note}", highlight=False, markup=False)
    share = min((line.processor_share for line in lines if line.processor_share is not None), default=1.0)
    if share < BUSY_BELOW and report.results.clock == ONE_THREAD:
        console.print(f"[yellow]had the processor for {share:.0%} of the time: the machine was busy; measure again[/]")


def _table(lines: Iterable[Line]) -> Table:
    table, lines = Table(), list(lines)
    for name in ("", "contender", "figure", "unit", "spread", "× peer", "target", "floor"):
        left = name in ("", "contender", "unit")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for i, line in enumerate(lines):
        first = i == 0 or lines[i - 1].cell != line.cell
        last = i + 1 == len(lines) or lines[i + 1].cell != line.cell
        table.add_row(
            line.cell if first else "", line.contender, number(line.figure), line.unit,
            "" if line.spread is None else f"±{line.spread / 2:.0%}", _ratio(line),
            str(line.target or ""), str(line.floor or ""), end_section=last,
        )  # fmt: skip
    return table


def _ratio(line: Line) -> str:
    if line.peer == line.contender:
        return "peer"
    text = "" if line.ratio is None else f"{line.ratio:,.3g}"
    if line.floor is None and line.target is None:
        return text
    color = "red" if line.misses(line.floor) else "yellow" if line.misses(line.target) else "green"
    return f"[{color}]{text}[/]" if text else ""


def number(figure: float | None) -> str:
    """A figure as people read it."""
    if figure is None:
        return "-"
    return f"{figure:,.0f}" if abs(figure) >= 1_000 else f"{figure:.4g}"
