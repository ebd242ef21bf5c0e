"""`latewood alter`: change what a store is like, from the next compaction on."""

from typing import Annotated, Any

import typer

import latewood as lw
from latewood.cli.arguments import parse_days
from latewood.cli.init import TYPES_IN_WORDS, groups_of
from latewood.cli.output import Debug, Json, Mutable, Output
from latewood.errors import SchemaError
from latewood.schema import DEFAULT_GROUP


def alter(
    store: Annotated[str, typer.Argument(help="The store.")],
    add: Annotated[
        list[str] | None,
        typer.Option(help=f"NAME:TYPE or GROUP/NAME:TYPE; repeat it for more. Types: {TYPES_IN_WORDS}."),
    ] = None,
    drop: Annotated[list[str] | None, typer.Option(help="A trait, with all its values.")] = None,
    rename: Annotated[list[str] | None, typer.Option(help="OLD:NEW.")] = None,
    shards: Annotated[int | None, typer.Option(help="Files per generation.")] = None,
    max_age_days: Annotated[
        float | None, typer.Option(help="Keep events of this many days, and let the older ones go.")
    ] = None,
    max_events: Annotated[int | None, typer.Option(help="Keep the newest this many events of every user.")] = None,
    keep_all: Annotated[bool, typer.Option("--keep-all", help="Keep everything: no retention any more.")] = False,
    preview: Annotated[bool, typer.Option("--preview", help="Only say what would change.")] = False,
    mutable: Mutable = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Add, drop or rename traits, set the retention or the number of shards, from the next compaction on."""
    changes: dict[str, Any] = {"drop": drop or [], "rename": dict(map(_renamed, rename or [])), "shards": shards}
    if keep_all or max_age_days is not None or max_events is not None:
        if keep_all and not (max_age_days is None and max_events is None):
            raise SchemaError("--keep-all goes with neither --max-age-days nor --max-events")
        age = None if max_age_days is None else parse_days(max_age_days, "--max-age-days")
        changes["retention"] = None if keep_all else lw.Retention(age, max_events)
    output = Output(json)
    with lw.Store.open(store, mutable=mutable) as opened:
        group = next((trait.group for trait in opened.schema), DEFAULT_GROUP)
        alteration = opened.alter(add=groups_of(add or [], group), **changes, preview=preview)
    lines = alteration.lines()
    if json:
        output.result({"changes": lines, "written": not preview and bool(lines)})
    else:
        title = "only a preview:\n" if preview and lines else ""
        output.console.print(f"{title}{alteration}", highlight=False, markup=False, soft_wrap=True)


def _renamed(text: str) -> tuple[str, str]:
    old, colon, new = text.partition(":")
    if not colon:
        raise SchemaError(f"--rename {text!r}: expected OLD:NEW")
    return old, new
