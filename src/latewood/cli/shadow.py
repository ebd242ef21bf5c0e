"""`latewood shadow`: a team's Fat Rows beside what the store gives for the same requests, and what differs how."""

from typing import Annotated, Any

import typer

import latewood as lw
from latewood.cli.output import NO_INPUT, Debug, Json, Mutable, Output, ReadOnly
from latewood.errors import SchemaError

_OF_THE_ROW = ("user_id", "request_ts", "cutoff")


def shadow(
    store: Annotated[str, typer.Argument(help="The store.")],
    rows: Annotated[list[str], typer.Argument(help=f"Files, folders or globs of Fat Rows. {NO_INPUT}")],
    pairs: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            help="Where they have what, NAME=PATH: user_id, request_ts, event_ts and traits; a path is a list column, or a "
            "field as in history.item_id. As `latewood export` writes them, if left out.",
        ),
    ] = None,
    unit: Annotated[str, typer.Option(help="Of integer times: s, ms or us.")] = "us",
    max_len: Annotated[int | None, typer.Option(min=0, help="What their lists are cut at, if they are.")] = None,
    sample: Annotated[int, typer.Option(min=0, help="How many rows to compare; 0 for all.")] = 1000,
    seed: Annotated[int, typer.Option(help="Chooses them.")] = 0,
    examples: Annotated[int, typer.Option(min=0, help="How many differences of each kind to show.")] = 3,
    read_only: ReadOnly = False,
    mutable: Mutable = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare existing Fat Rows with the store, and tell leaks, cuts, lost and changed events apart."""
    output, mapping = Output(json), parse_mapping(pairs or [])
    with lw.Store.open(store, read_only=read_only, mutable=mutable) as opened, output.progress("comparing") as bar:
        report = lw.shadow(
            opened, rows, mapping, unit=unit, max_len=max_len, sample=sample or None, seed=seed, examples=examples,
            progress=bar.update,
        )  # fmt: skip
    if json:
        output.result(report.to_json())
    else:
        _show(output, report, f"Fat Rows beside {store}")


def parse_mapping(pairs: list[str]) -> dict[str, Any]:
    """NAME=PATH, several, as `lw.shadow` takes them. Raises: SchemaError: not a pair, or a name given twice."""
    mapping: dict[str, Any] = {}
    history: dict[str, str] = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        into = mapping if name in _OF_THE_ROW else history
        if not (name and equals and path) or name in into:
            raise SchemaError(f"--map {pair!r}: NAME=PATH, each name once")
        into[name] = path
    return mapping | ({"history": history} if history else {})


def _show(output: Output, report: "lw.ShadowReport", title: str) -> None:
    output.result(
        {
            "rows compared": f"{report.compared:,} of {report.rows:,}",
            "the same": _share(report.same, report.compared),
            "the same but for types": _share(report.same_but_type, report.compared),
            "leaking": _share(report.leaking, report.compared),
            "events there": report.their_events,
            "events here": report.our_events,
            "traits compared": ", ".join(report.traits) or "none",
            "traits not compared": ", ".join(report.not_compared) or "none",
        },
        title,
    )
    if not report.kinds:
        output.console.print("no differences")
        return
    table = [
        (
            kind.kind,
            f"{kind.events:,}",
            f"{kind.rows:,}",
            kind.words,
            ", ".join(f"{t}: {n:,}" for t, n in kind.by_trait.items()),
        )
        for kind in report.kinds
    ]
    output.table(["kind", "events", "rows", "what it is", "in traits"], table, "differences")
    shown = [(kind.kind, str(example)) for kind in report.kinds for example in kind.examples]
    if shown:
        output.table(["kind", "for example"], shown, "a few of them")


def _share(count: int, of: int) -> str:
    return f"{count:,} ({count / max(of, 1):.1%})"
