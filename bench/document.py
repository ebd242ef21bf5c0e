"""`python -m bench.document results.json docs/benchmarks.md`: the page of results, from the JSON of a run.

The page begins with how to read it and with all targets, met or not, and says then of every suite what it does (its
docstring) and shows its lines. Why a target is missed is written by hand, in a file beside the page, and taken over
whenever the page is written anew. Plots lie in a folder beside the page that has its name.
"""

import argparse
import json
import sys
import tomllib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from bench.plots import Bar, bars, curves
from bench.report import number
from bench.suites import SUITES, load

Entry = dict[str, Any]  # a report or a line, as in the JSON
Judged = tuple[Entry, Entry]  # a report, and a line of it that has a target

_BARS = ("loader", "training", "scan", "lists", "build", "append", "compact")  # suites whose speeds are plotted
_SPEEDS = ("M events/s", "examples/s")
_SPREAD_WORTH_SAYING = 0.1  # half of it, as ±


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page and its plots. Returns: the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.document", description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path, help="what `python -m bench all --json FILE` wrote")
    parser.add_argument("page", type=Path, help="the page to write")
    parser.add_argument(
        "--reasons", type=Path, help="why targets are missed (default: PAGE-reasons.toml beside the page)"
    )
    args = parser.parse_args(arguments)
    found = json.loads(args.results.read_text())
    reasons = read_reasons(args.reasons or args.page.with_name(f"{args.page.stem}-reasons.toml"))
    write(found["reports"], args.page, reasons, found.get("failures", ()))
    for key in unused(found["reports"], reasons):
        print(f"no missed target is called {key!r} any more: take its reason away", file=sys.stderr)
    return 0


def read_reasons(path: Path) -> dict[str, str]:
    """Reasons by pattern, none if there is no file. Raises: TypeError: one is no text."""
    reasons = tomllib.loads(path.read_text()) if path.exists() else {}
    for key, reason in reasons.items():
        if not isinstance(reason, str):
            raise TypeError(f'{path}: {key!r} is no text; a line is "suite / cell / contender" = "the reason"')
    return reasons


def unused(reports: Sequence[Entry], reasons: Mapping[str, str]) -> list[str]:
    """Patterns of reasons that belong to no missed target, of suites that there are results of."""
    names = [_name(report, line) for report, line in _judged(reports) if not line["target_met"]]
    absent = set(SUITES) - {report["suite"] for report in reports}
    here = [key for key in reasons if key.partition(" / ")[0] not in absent]
    return [key for key in here if not any(fnmatchcase(name, key) for name in names)]


def write(
    reports: Sequence[Entry], page: Path, reasons: Mapping[str, str] | None = None, failures: Sequence[Entry] = ()
) -> None:
    """Write the page of some reports, and the plots.

    Args: reasons: why targets are missed, by "suite / cell / contender" or a pattern of it. failures: of suites that ended
        in an error.
    """
    folder = page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    plots = {name: text for name, text in _plots(reports).items() if text}
    for name, text in plots.items():
        (folder / f"{name}.svg").write_text(text)
    sections = [_head(reports, failures), _targets(reports, _image(folder, "targets", plots), reasons or {})]
    sections += [_section(report, _image(folder, report["suite"], plots)) for report in reports]
    page.write_text("\n".join(sections))


def _name(report: Entry, line: Entry) -> str:
    """What a line is called where it is explained."""
    return f"{report['suite']} / {line['cell']} / {line['contender']}"


def _head(reports: Sequence[Entry], failures: Sequence[Entry]) -> str:
    tiny = any(report["tiny"] for report in reports)
    warnings = ["**A tiny run, for tests: the figures mean nothing.**"] if tiny else []
    there = {report["suite"] for report in reports}
    if missing := [name for name in SUITES if name not in there]:
        warnings.append(f"**Not all of it: there are no results of {', '.join(missing)}.**")
    warnings += [f"**Suite {one['suite']} failed: {one['error']}**" for one in failures]
    return "\n\n".join([_INTRODUCTION, *warnings, "\n".join(_made_on(reports))]) + "\n"


_INTRODUCTION = """# Benchmarks

What latewood costs beside what else one could do: Fat Rows in Parquet, LMDB, DuckDB, Polars, plain arrays, the memory
itself. What each word means is in [concepts](concepts.md).

How to read it:

- A **suite** is a group of measurements, a **cell** one of its settings, such as "4,096 events, 3 traits". In a cell every
  contender does the same work on the same data. Before anything is timed, what each gives is compared with the raw data,
  bit by bit; a difference ends the suite.
- **Fat Rows** are examples that carry their whole history, as most teams write them: the peer wherever nothing else is
  named. Of M events/s and examples/s, an event has all traits of its cell, and an example all events of its history, up
  to as many as the cell says.
- A **ratio** is a contender's figure over that of the peer it names, both measured in the same run, taking turns pass by
  pass, medians of the passes. Of speeds more is better, of times, bytes and memory less. Figures are of one machine; ratios
  travel better.
- A **target** is what was aimed for before it was measured. `≥ 6x` wants the ratio to be at least that, `≤ 1.25x` at most;
  one without x is of the figure itself. Where a target is missed the table below says so, and why.
- Speeds are of one thread and its processor time, unless the suite says otherwise under its description. A **spread** of
  ±10 % or more of the passes around their median is shown: such a figure is from a noisy machine.

`make benchmarks` runs everything again and writes this page (most of an hour; `RESUME=1` goes on where it was cut off);
`make bench` is the quick part, and `python -m bench SUITE` one suite."""


def _made_on(reports: Sequence[Entry]) -> list[str]:
    """Where the results are from; suites that were run elsewhere, or with other versions, are told apart."""
    places: dict[str, list[str]] = {}
    for report in reports:
        places.setdefault(_place(report), []).append(report["suite"])
    if len(places) == 1:
        return list(places)
    return [f"{', '.join(suites)}:\n\n{place}\n" for place, suites in places.items()]


def _place(report: Entry) -> str:
    machine = report["machine"]
    versions = dict(machine["versions"])
    commit = f" at commit {machine['commit']}" if machine.get("commit") else ""
    own = f"latewood {versions.pop('latewood', '')}{commit}"
    others = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"""- Machine: {machine["processor"]}, {machine["cores"]} cores, {machine["memory_gib"]} GiB;
  {machine["system"]}; data on {machine["filesystem"]}.
- Versions: {own}; {others}.
- Data: seed {report["seed"]}, {report["users"]:,} users, {report["passes"]} passes."""


def _targets(reports: Sequence[Entry], image: str, reasons: Mapping[str, str]) -> str:
    judged = _judged(reports)
    rows = [
        f"| {report['suite']} | {line['cell']} | {line['contender']}: {_figure(line)} | {_other_side(report, line)} "
        f"| {_plain_ratio(line)} | {_target(line)} | {'yes' if line['target_met'] else '**no**'} |"
        for report, line in judged
    ]
    missed = [(report, line) for report, line in judged if not line["target_met"]]
    head = ["| suite | cell | this side | the other side | ratio | target | met |", "|---|---|---|---|---:|---:|---|"]
    summary = f"{len(judged) - len(missed)} of {len(judged)} targets are met."
    return "\n".join(["## Targets", "", summary, "", *image.splitlines(), *head, *rows, "", *_missed(missed, reasons)])


def _missed(missed: Sequence[Judged], reasons: Mapping[str, str]) -> list[str]:
    """The missed ones with their reasons, those of one reason together."""
    if not missed:
        return []
    by_reason: dict[str, list[str]] = {}
    for report, line in missed:
        name = _name(report, line)
        reason = next((reason for key, reason in reasons.items() if fnmatchcase(name, key)), "no reason is known yet.")
        reached = _plain_ratio(line) or _figure(line)
        by_reason.setdefault(reason, []).append(f"{report['suite']}, {line['cell']} ({reached} of {_target(line)})")
    lines = [f"- {'; '.join(names)}: {reason}" for reason, names in by_reason.items()]
    return ["Missed, and why:", "", *lines, ""]


def _judged(reports: Sequence[Entry]) -> list[Judged]:
    """All lines with a target that were measured, each with its report."""
    return [(report, line) for report in reports for line in report["lines"] if line["target_met"] is not None]


def _other_side(report: Entry, line: Entry) -> str:
    """The peer and its figure, in the same cell."""
    if line["peer"] is None or line["peer"] == line["contender"]:
        return ""
    of_cell = [other for other in report["lines"] if other["cell"] == line["cell"]]
    figure = next((_figure(other) for other in of_cell if other["contender"] == line["peer"]), "")
    return f"{line['peer']}: {figure}"


def _section(report: Entry, image: str) -> str:
    prose = (load(report["suite"]).__doc__ or "").strip().partition("\n")[2].strip()
    compared = f" {report['compared']:,} outputs were compared, none differs." if report["compared"] else ""
    head = ["| cell | contender | figure | ratio | target | met |", "|---|---|---:|---:|---:|---|"]
    lines, rows = report["lines"], []
    for i, line in enumerate(lines):
        cell = line["cell"] if i == 0 or lines[i - 1]["cell"] != line["cell"] else ""
        contender = f"{line['contender']}: {line['note']}" if line["figure"] is None else line["contender"]
        met = {None: "", True: "yes", False: "**no**"}[line["target_met"]]
        figure = _figure(line) + _spread(line)
        rows.append(f"| {cell} | {contender} | {figure} | {_ratio(line)} | {_target(line)} | {met} |")
    about = f"*{report['clock'][0].upper()}{report['clock'][1:]}.{compared}*"
    title = f"## {report['suite']}: {report['about']}"
    return "\n".join([title, "", prose, "", about, "", *image.splitlines(), *head, *rows, ""])


def _figure(line: Entry) -> str:
    return "" if line["figure"] is None else f"{number(line['figure'])} {line['unit']}"


def _spread(line: Entry) -> str:
    share = (line.get("spread") or 0) / 2
    return f" (±{share:.0%})" if share >= _SPREAD_WORTH_SAYING else ""


def _ratio(line: Entry) -> str:
    if line["ratio"] is None:
        return ""
    return "peer" if line["peer"] == line["contender"] else f"{line['ratio']:,.3g}x {line['peer']}"


def _plain_ratio(line: Entry) -> str:
    """Empty where the target is of the figure itself."""
    return f"{line['ratio']:,.3g}x" if line["ratio"] is not None and line["target"].endswith("x") else ""


def _target(line: Entry) -> str:
    """With its unit, where it is of the figure itself."""
    target: str = line["target"] or ""
    return target if not target or target.endswith("x") else f"{target} {line['unit']}"


def _image(folder: Path, name: str, plots: dict[str, str]) -> str:
    return f"![{name}]({folder.name}/{name}.svg)\n\n" if name in plots else ""


def _plots(reports: Sequence[Entry]) -> dict[str, str]:
    plots = {"targets": _target_plot(reports)}
    for report in reports:
        if report["suite"] in _BARS:
            plots[report["suite"]] = _speed_plot(report)
        elif report["suite"] == "scale":
            plots["scale"] = _growth_plot(report)
    return plots


def _target_plot(reports: Sequence[Entry]) -> str:
    """How far from its target each judged line is: right of the mark, it is met."""
    rows = []
    for report, line in _judged(reports):
        sign, _, bound = line["target"].partition(" ")
        reached = line["ratio"] if bound.endswith("x") else line["figure"]
        wanted = float(bound.removesuffix("x"))
        if not reached or not wanted:  # nothing that a logarithm can show
            continue
        margin = reached / wanted if sign == "≥" else wanted / reached
        label = f"{report['suite']}: {line['cell']}"
        rows.append(Bar(label[:62], margin, f"{reached:.3g} of {line['target']}", 2 if line["target_met"] else 1))
    return bars("What was reached, in multiples of the target", rows, "times the target", mark=1.0) if rows else ""


def _speed_plot(report: Entry) -> str:
    """All speeds of a suite, colored by cell, in its most frequent unit."""
    lines = [line for line in report["lines"] if line["unit"] in _SPEEDS and line["figure"]]
    if not lines:
        return ""
    units = [line["unit"] for line in lines]
    unit = max(set(units), key=units.count)
    lines = [line for line in lines if line["unit"] == unit]
    cells = list(dict.fromkeys(line["cell"] for line in lines))
    rows = [
        Bar(
            f"{line['cell']}: {line['contender']}"[:62],
            line["figure"],
            number(line["figure"]),
            cells.index(line["cell"]),
        )
        for line in lines
    ]
    return bars(f"{report['suite']}: {report['about']}"[:120], rows, unit)


def _growth_plot(report: Entry) -> str:
    """Cost against size, both relative to the smallest size of each axis."""
    series: dict[str, list[tuple[float, float]]] = {}
    for line in report["lines"]:
        size, smallest = (float(name.replace(",", "")) for name in (line["contender"], line["peer"]))
        series.setdefault(line["cell"], []).append((size / smallest, line["ratio"]))
    return curves("What grows, and how", series, ("times the smallest size", "times its cost"))


if __name__ == "__main__":
    sys.exit(main())
