"""`python -m bench [suite …]`: run suites, print their tables, exit with 1 where a ratio is under its floor."""

import argparse
import json
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from bench import machine
from bench.histories import SEED
from bench.report import Report, show
from bench.saved import STANDARD_OUTPUT, Saved, take_over
from bench.session import PASSES, TINY_USERS, USERS, Session, Settings
from bench.suites import SUITES, load

DEFAULT = "loader"


def main(arguments: Sequence[str] | None = None, prog: str = "python -m bench") -> int:
    """Run. Args: prog: what the caller is called, for its help. Returns: the exit code."""
    args = _parse(arguments, prog)
    # a log file has no width of its own, and tables need one
    console = Console(stderr=str(args.json) == "-", width=None if sys.stdout.isatty() else 150)
    before = pa.cpu_count(), pa.io_thread_count()
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    try:
        _run_all(args, console)
    finally:
        pa.set_cpu_count(before[0])
        pa.set_io_thread_count(before[1])
    saved: Saved = args.saved
    if args.json == STANDARD_OUTPUT:
        print(json.dumps(saved.to_json()))
    missed, failed = (
        [line for report in saved.reports.values() for line in report[kind]] for kind in ("missed", "failed")
    )
    broken = [f"suite {name} failed: {error}" for name, error in saved.failures.items()]
    for color, lines in (("yellow", missed), ("red", failed + broken)):
        for line in lines:
            console.print(line, style=color, highlight=False, markup=False, soft_wrap=True)
    return 1 if broken or (failed and not args.no_floors) else 0


def _parse(arguments: Sequence[str] | None, prog: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Measure latewood beside its peers.",
        epilog="suites: " + "; ".join(f"{name}: {what}" for name, what in SUITES.items()),
    )
    parser.add_argument(
        "suites", nargs="*", metavar="suite", help=f"of {', '.join(SUITES)}, or all; default: {DEFAULT}, its quick part"
    )
    parser.add_argument("--users", type=int, help=f"default: {USERS:,}, which are about 19 M events")
    parser.add_argument("--passes", type=int, help=f"timed passes, of which the medians count; default: {PASSES}")
    parser.add_argument("--lengths", type=int, nargs="+", help="events per example (default: the suite's)")
    parser.add_argument("--batches", type=int, help="batches of 512 per pass (default: the suite's)")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument(
        "--json", type=Path, help="also write the figures there, after every suite; - is standard output, at the end"
    )
    parser.add_argument(
        "--only-missing",
        action="store_true",
        help="go on with a run that was cut off: leave out what --json has already",
    )
    parser.add_argument("--folder", type=Path, help="make the data under it (default: the system's for such)")
    parser.add_argument(
        "--yardstick", type=Path, help="a folder with limits.py, whose C++ stripes run beside ours in scan"
    )
    parser.add_argument("--tiny", action="store_true", help="little data and one pass, for tests: figures mean nothing")
    parser.add_argument("--no-floors", action="store_true", help="exit with 0 even where a ratio is under its floor")
    args = parser.parse_args(arguments)
    if unknown := [suite for suite in args.suites if suite not in (*SUITES, "all")]:
        parser.error(f"there is no suite {unknown[0]!r}; there are: {', '.join(SUITES)}")
    if min(args.users or 1, args.passes or 1, args.batches or 1, *(args.lengths or [1])) < 1:
        parser.error("--users, --passes, --batches and --lengths must be at least 1")
    if args.only_missing and args.json in (None, STANDARD_OUTPUT):
        parser.error("--only-missing needs --json FILE, which has what is not missing")
    args.quick = not args.suites
    args.suites = list(SUITES) if "all" in args.suites else args.suites or [DEFAULT]
    try:
        args.saved = take_over(args.json, _settings(args).describe()) if args.only_missing else Saved(args.json)
    except ValueError as error:
        parser.error(str(error))
    return args


def _settings(args: argparse.Namespace) -> Settings:
    return Settings(
        users=args.users or (TINY_USERS if args.tiny else USERS), passes=args.passes or (1 if args.tiny else PASSES),
        seed=args.seed, lengths=args.lengths, batches=args.batches, yardstick=args.yardstick, tiny=args.tiny,
        quick=args.quick,
    )  # fmt: skip


def _run_all(args: argparse.Namespace, console: Console) -> None:
    """Run suite after suite on the same data, show each one's results as they come, and save them."""
    saved: Saved = args.saved
    with (
        tempfile.TemporaryDirectory(prefix="latewood-bench-", dir=args.folder) as folder,
        console.status("") as status,
    ):
        session = Session(_settings(args), Path(folder), status.update)
        try:
            for name in args.suites:
                if name in saved.reports:
                    continue
                try:
                    report = _run(name, session)
                except Exception as error:
                    console.print(traceback.format_exc(), highlight=False, markup=False)
                    saved.fail(name, error)
                    continue
                saved.add(report)
                show(console, report)
        finally:
            session.close()


def _run(name: str, session: Session) -> Report:
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=session.folder) as folder:
        tell: Callable[[str], Any] = session.tell
        tell(f"{name}: {SUITES[name]}")
        results = load(name).run(session, Path(folder))
        return Report(name, SUITES[name], machine.describe(session.folder), session.settings.describe(), results)


if __name__ == "__main__":
    sys.exit(main())
