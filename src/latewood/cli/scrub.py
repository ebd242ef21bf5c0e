"""`latewood scrub`: forget users, or events that meet a condition."""

from typing import Annotated

import typer

import latewood as lw
from latewood.cli.arguments import parse_user
from latewood.cli.output import Debug, Json, Mutable, Output, moment
from latewood.cli.where import parse_where
from latewood.errors import SchemaError


def scrub(
    store: Annotated[str, typer.Argument(help="The store.")],
    user: Annotated[list[str] | None, typer.Option(help="A user to forget whole; repeat it for more.")] = None,
    where: Annotated[
        str | None,
        typer.Option(
            help='Forget these events instead, as "item_id == 17". Of their users the rest is kept, but every example that '
            "was logged of them before is refused."
        ),
    ] = None,
    compact: Annotated[bool, typer.Option(help="Remove their bytes now; otherwise the next compaction does.")] = True,
    mutable: Mutable = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Forget users or events: what was logged of them is refused at once, their bytes are removed by compaction."""
    output = Output(json)
    if (user is None) == (where is None):
        raise SchemaError("say what to forget: either --user, once or more, or --where")
    with lw.Store.open(store, mutable=mutable) as opened:
        users = None if user is None else [parse_user(one, opened.schema.user_id) for one in user]
        receipt = opened.scrub(users, None if where is None else parse_where(where), compact=compact)
    values = receipt.to_json()
    if json:
        output.result(values)
        return
    if receipt.scrub_ts is None:
        output.console.print("nothing to forget: no event meets the condition")
        return
    out_of_reach = values.pop("out_of_reach")
    values |= {
        name: ", ".join(map(str, values[name])) or None for name in ("numbers", "purged_generations", "moved_pins")
    }
    values["scrub_ts"] = moment(receipt.scrub_ts, raw=False)
    output.result(values, "scrub")
    output.table(["out of reach"], [[place] for place in out_of_reach], "")
