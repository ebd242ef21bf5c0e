"""`python -m bench [suite]`: run suites, print their tables, exit with 1 where a ratio is under its floor."""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from bench import loader, machine, scan, sources
from bench.histories import SEED, Histories, draw_histories
from bench.report import Report, show

SUITES = ("loader", "scan")
USERS = 10_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run. Returns: the exit code."""
    args = _parse(arguments)
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    # a log file has no width of its own, and tables need one
    console = Console(stderr=str(args.json) == "-", width=None if sys.stdout.isatty() else 120)
    with tempfile.TemporaryDirectory(prefix="latewood-bench-") as scratch, console.status("") as status:
        tell: Callable[[str], Any] = status.update
        tell(f"drawing the histories of {args.users:,} users")
        histories = draw_histories(args.users, seed=args.seed, **_catalogue(args.tiny))
        tell(f"ingesting {histories.event_count:,} events")
        with sources.write_store(histories, Path(scratch) / "store") as store:
            reports = [_run(suite, args, histories, store, Path(scratch), tell) for suite in args.suites]
    for report in reports:
        show(console, report)
    _write(reports, args.json)
    missed = [line for report in reports for line in report.missed]
    for line in missed:
        console.print(f"[red]{line}[/]", highlight=False)
    return 1 if missed and not args.no_floors else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure latewood beside its peers.")
    parser.add_argument("suites", nargs="*", metavar="suite", help=f"of {', '.join(SUITES)}; default: loader")
    parser.add_argument("--users", type=int, default=USERS, help="10,000 users, the default, are about 19 M events")
    parser.add_argument("--passes", type=int, default=7, help="timed passes, of which the medians count")
    parser.add_argument("--lengths", type=int, nargs="+", help="events per example (default: the suite's)")
    parser.add_argument("--batches", type=int, help="batches of 512 per pass (default: the suite's)")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--json", type=Path, help="also write the figures there; - is standard output")
    parser.add_argument(
        "--yardstick", type=Path, help="scan: a folder with limits.py, whose C++ stripes run beside ours"
    )
    parser.add_argument("--tiny", action="store_true", help="small catalogues, short histories: for tests")
    parser.add_argument("--no-floors", action="store_true", help="exit with 0 even where a ratio is under its floor")
    args = parser.parse_args(arguments)
    if unknown := [suite for suite in args.suites if suite not in SUITES]:
        parser.error(f"there is no suite {unknown[0]!r}; there are: {', '.join(SUITES)}")
    if min(args.users, args.passes) < 1:
        parser.error("--users and --passes must be at least 1")
    args.suites = args.suites or ["loader"]
    return args


def _catalogue(tiny: bool) -> dict[str, int]:
    return {"longest": 2_000, "items": 10_000, "authors": 1_000} if tiny else {}


def _run(
    suite: str, args: argparse.Namespace, histories: Histories, store: Any, scratch: Path, tell: Callable[[str], Any]
) -> Report:
    about = {
        "machine": machine.describe(), "seed": args.seed, "users": histories.user_count,
        "events": histories.event_count, "passes": args.passes,
    }  # fmt: skip
    if suite == "loader":
        lines, stored, compared = loader.run(
            histories, store, scratch, lengths=args.lengths or loader.LENGTHS, passes=args.passes,
            batches=args.batches or loader.BATCHES, tell=tell,
        )  # fmt: skip
        return Report(suite=suite, peer=loader.PEER, lines=lines, storage=stored, compared=compared, **about)
    lines, compared = scan.run(
        histories, store, scratch, lengths=args.lengths or scan.LENGTHS, passes=args.passes, batches=args.batches,
        yardstick=args.yardstick, tell=tell,
    )  # fmt: skip
    return Report(suite=suite, peer=scan.PEER, lines=lines, compared=compared, **about)


def _write(reports: Sequence[Report], target: Path | None) -> None:
    if target is None:
        return
    text = json.dumps([report.to_json() for report in reports], indent=2)
    if str(target) == "-":
        print(text)
    else:
        target.write_text(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
