"""What a run has found so far, kept in its JSON file: a run that is cut off goes on where it was.

The file is written anew after every suite, whole or not at all. Reports that it has are taken over by a run that asks only
for what is missing, if they were made with the same settings; a suite that failed counts as missing.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.report import Report
from bench.suites import SUITES

Entry = dict[str, Any]  # a report, as in the JSON
STANDARD_OUTPUT = Path("-")


class Saved:
    """Reports and failures, by suite. Args: target: the file; None or - for none: whoever asked for - prints `to_json`."""

    def __init__(self, target: Path | None, reports: Mapping[str, Entry] | None = None) -> None:
        self._target = None if target == STANDARD_OUTPUT else target
        self.reports = dict(reports or {})
        self.failures: dict[str, str] = {}

    def add(self, report: Report) -> None:
        """A suite has ended."""
        self.reports[report.suite] = report.to_json()
        self._write()

    def fail(self, suite: str, error: Exception) -> None:
        """A suite has failed, which does not lose the others."""
        self.failures[suite] = f"{type(error).__name__}: {error}"
        self._write()

    def to_json(self) -> dict[str, Any]:
        order = list(SUITES)
        return {
            "reports": [self.reports[name] for name in sorted(self.reports, key=order.index)],
            "failures": [{"suite": name, "error": error} for name, error in self.failures.items()],
        }

    def _write(self) -> None:
        if self._target is None:
            return
        beside = self._target.with_name(f".{self._target.name}.new")
        beside.write_text(json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n")
        beside.replace(self._target)


def take_over(target: Path, settings: Mapping[str, Any]) -> Saved:
    """What an earlier run left in its file, to go on with. Raises: ValueError: it was run with other settings."""
    if not target.exists():
        return Saved(target)
    reports = {report["suite"]: report for report in json.loads(target.read_text())["reports"]}
    for name, report in reports.items():
        for setting, value in settings.items():
            if report.get(setting) != value:
                raise ValueError(
                    f"{target} has {name} with {setting} {report.get(setting)!r} and not {value!r}: "
                    "go on with the same settings, or leave --only-missing out"
                )
    return Saved(target, {name: report for name, report in reports.items() if name in SUITES})
