"""`python -m bench.document results.json docs/benchmarks.md`: the page of results, from the JSON of a run.

The page says of every suite what it does (its docstring), shows its lines, and begins with all targets, met or not. Plots
lie in a folder beside the page that has its name.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.plots import Bar, bars, curves
from bench.report import number
from bench.suites import load

Entry = dict[str, Any]  # a report or a line, as in the JSON

_BARS = ("loader", "scan", "build", "append", "compact")  # suites whose speeds are plotted
_SPEEDS = ("M events/s", "examples/s")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page and its plots. Returns: the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.document", description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path, help="what `python -m bench all --json FILE` wrote")
    parser.add_argument("page", type=Path, help="the page to write")
    args = parser.parse_args(arguments)
    write(json.loads(args.results.read_text())["reports"], args.page)
    return 0


def write(reports: Sequence[Entry], page: Path) -> None:
    """Write the page of some reports, and the plots."""
    folder = page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    plots = {name: text for name, text in _plots(reports).items() if text}
    for name, text in plots.items():
        (folder / f"{name}.svg").write_text(text)
    sections = [_head(reports[0]), _targets(reports, _image(folder, "targets", plots))]
    sections += [_section(report, _image(folder, report["suite"], plots)) for report in reports]
    page.write_text("\n".join(sections))


def _head(report: Entry) -> str:
    machine = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    warning = "\n**A tiny run, for tests: the figures mean nothing.**\n" if report["tiny"] else ""
    return f"""# Benchmarks

Every suite compares the outputs of all sides before it times any, and every ratio has both sides in the same run. Figures
are of one machine; ratios travel better. `make benchmarks` runs everything again and writes this page; `make bench` is the
quick part. What each word means is in [concepts](concepts.md).
{warning}
- Machine: {machine["processor"]}, {machine["cores"]} cores, {machine["memory_gib"]} GiB; {machine["system"]}; data on
  {machine["filesystem"]}.
- Versions: {versions}.
- Seed {report["seed"]}, {report["users"]:,} users, {report["passes"]} passes.
"""


def _targets(reports: Sequence[Entry], image: str) -> str:
    rows = [
        f"| {report['suite']} | {line['cell']} | {line['contender']} | {_figure(line)} | {_ratio(line)} "
        f"| {line['target']} | {'yes' if line['target_met'] else '**no**'} |"
        for report, line in _judged(reports)
    ]
    head = ["| suite | cell | | figure | ratio | target | met |", "|---|---|---|---:|---:|---:|---|"]
    return "\n".join(["## Targets", "", *image.splitlines(), *head, *rows, ""])


def _judged(reports: Sequence[Entry]) -> list[tuple[Entry, Entry]]:
    """All lines with a target that were measured, each with its report."""
    return [(report, line) for report in reports for line in report["lines"] if line["target_met"] is not None]


def _section(report: Entry, image: str) -> str:
    prose = (load(report["suite"]).__doc__ or "").strip().partition("\n")[2].strip()
    compared = f" {report['compared']:,} outputs were compared, none differs." if report["compared"] else ""
    head = ["| cell | contender | figure | ratio | target |", "|---|---|---:|---:|---:|"]
    lines, rows = report["lines"], []
    for i, line in enumerate(lines):
        cell = line["cell"] if i == 0 or lines[i - 1]["cell"] != line["cell"] else ""
        contender = f"{line['contender']}: {line['note']}" if line["figure"] is None else line["contender"]
        rows.append(f"| {cell} | {contender} | {_figure(line)} | {_ratio(line)} | {line['target'] or ''} |")
    about = f"*{report['clock'][0].upper()}{report['clock'][1:]}.{compared}*"
    title = f"## {report['suite']}: {report['about']}"
    return "\n".join([title, "", prose, "", about, "", *image.splitlines(), *head, *rows, ""])


def _figure(line: Entry) -> str:
    return "" if line["figure"] is None else f"{number(line['figure'])} {line['unit']}"


def _ratio(line: Entry) -> str:
    if line["ratio"] is None:
        return ""
    return "peer" if line["peer"] == line["contender"] else f"{line['ratio']:,.3g}x {line['peer']}"


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
        if not reached or not wanted:
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
