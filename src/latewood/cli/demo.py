"""`latewood demo`: a year of real purchases as a live system, then three models trained from one log."""

import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from latewood.cli.output import Debug, Json, Output
from latewood.errors import LatewoodError


def demo(
    folder: Annotated[Path | None, typer.Option(help="Keep what the demo makes in this new folder.")] = None,
    days: Annotated[int | None, typer.Option(help="Replay only the year's first so many days.")] = None,
    seed: Annotated[int, typer.Option(help="Of which purchases are late, and by how much.")] = 0,
    events: Annotated[
        Path | None, typer.Option(help="Instead: a Parquet file with two clocks, to backfill from.")
    ] = None,
    user: Annotated[str, typer.Option(help="With --events: the column of the user id.")] = "user_id",
    time: Annotated[str, typer.Option(help="With --events: when it happened.")] = "ts",
    ingest_time: Annotated[str, typer.Option(help="With --events: when it was learned of.")] = "ingest_ts",
    unit: Annotated[str, typer.Option(help="With --events: of both columns: s, ms or us.")] = "s",
    live: Annotated[
        bool, typer.Option("--live", help="With --events: replay it as it was learned, and compact every night.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Replay real purchases live, train three tenants, compare every sequence with an oracle."""
    output = Output(json)
    if folder is not None and folder.exists():
        raise LatewoodError(f"{folder} exists; the demo wants a new folder")
    place = Path(tempfile.mkdtemp(prefix="latewood-demo-")) if folder is None else folder
    place.mkdir(parents=True, exist_ok=True)
    try:
        if events is not None:
            two_clocks = _live if live else _two_clocks
            result = two_clocks(
                output, events, place, user=user, time=time, ingest_time=ingest_time, unit=unit, seed=seed
            )
        else:
            result = _purchases(output, place, days, seed)
    finally:
        if folder is None:
            shutil.rmtree(place)
    if result["different"]:
        raise LatewoodError(f"{result['different']} of {result['compared']} sequences differ from the oracle")


def _purchases(output: Output, place: Path, days: int | None, seed: int) -> dict[str, Any]:
    from latewood.demo import compare_tenants, load_purchases, replay, show

    with output.progress("replaying the year, day by day", total=days or 365, announce=True) as bar:
        purchases = load_purchases(days, seed)
        year = replay(purchases, place, advance=bar.advance)
    output.console.print(
        f"replayed {len(year.events):,} purchases ({int(year.late.sum()):,} of them late) in {year.commits:,} commits, "
        f"captured {len(purchases.requests):,} baskets, compacted {year.compactions} times",
        highlight=False,
        soft_wrap=True,
    )
    with output.progress("writing Fat Rows, comparing with the oracle", total=8, announce=True) as bar:
        result = compare_tenants(purchases, year, place, advance=bar.step)
    result |= {"events": len(year.events), "late_events": int(year.late.sum()), "requests": len(purchases.requests)}
    if output.as_json:
        output.result(result)
    else:
        show(output.console, result)
    return result


def _live(output: Output, events: Path, place: Path, **settings: Any) -> dict[str, Any]:
    from latewood.demo import replay_two_clocks

    with output.progress("replaying it live, tick by tick", announce=True) as bar:
        result: dict[str, Any] = replay_two_clocks(events, place, bar.advance, **settings)
    output.result(result, "two clocks, live")
    return result


def _two_clocks(output: Output, events: Path, place: Path, **columns: Any) -> dict[str, Any]:
    from latewood.demo import compare_two_clocks

    result = compare_two_clocks(events, place, output.console, **columns)
    output.result(result, "two clocks")
    if not output.as_json:
        output.console.print(
            f"{result['late_kept_out']:,} events fell inside a pointer's time range but were learned too late for its "
            f"request, and were kept out ({result['requests_with_late']:,} of {result['requests']:,} requests have some).",
            soft_wrap=True,
        )
    return result
