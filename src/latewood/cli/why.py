"""`latewood why`: why an event is, or is not, in the sequence of a request."""

from typing import Annotated, Any

import numpy as np
import typer

import latewood as lw
from latewood.cli.arguments import MOMENT, parse_moment, parse_user
from latewood.cli.output import Debug, Json, Mutable, Output, ReadOnly, moment
from latewood.errors import SchemaError

_TIMES = ("event_ts", "request_ts", "cutoff", "ingest_ts", "superseded_at", "horizon", "scrubbed_at", "before", "after")
_WHEN = f"{MOMENT}."


def why(
    store: Annotated[str, typer.Argument(help="The store.")],
    event_ts: Annotated[str, typer.Option(help=f"When the event happened: {_WHEN}")],
    user: Annotated[str | None, typer.Option(help="Whose request it is.")] = None,
    request_ts: Annotated[str | None, typer.Option(help=f"When the request was made: {_WHEN}")] = None,
    examples: Annotated[
        str | None, typer.Option(help="Instead of a user and a time: where examples were logged.")
    ] = None,
    row: Annotated[int, typer.Option(min=0, help="Which of the examples, counted from 0.")] = 0,
    cutoff: Annotated[str | None, typer.Option(help="What was learned of before it counts; as in a backfill.")] = None,
    max_len: Annotated[int | None, typer.Option(min=0, help="The model's, to learn what it cuts off.")] = None,
    read_only: ReadOnly = False,
    mutable: Mutable = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Tell why an event is in a request's sequence, or why not."""
    output = Output(json)
    with lw.Store.open(store, read_only=read_only, mutable=mutable) as opened:
        asked: dict[str, Any] = {"example": _example(examples, row)} if examples is not None else {}
        if user is not None:
            asked["user_id"] = parse_user(user, opened.schema.user_id)
        for name, value in (("request_ts", request_ts), ("cutoff", cutoff)):
            if value is not None:
                asked[name] = parse_moment(value, f"--{name.replace('_', '-')}")
        verdicts = lw.why(opened, event_ts=parse_moment(event_ts, "--event-ts"), max_len=max_len, **asked)
    if json:
        output.result({"verdicts": [verdict.to_json() for verdict in verdicts]})
        return
    for verdict in verdicts:
        _show(output, verdict)


def _example(examples: str, row: int) -> Any:
    from latewood.examples import open_examples

    source = open_examples(examples)
    if row >= len(source):
        raise SchemaError(f"--row {row}: {source.name} has {len(source):,} examples, counted from 0")
    return source.take(np.array([row]))


def _show(output: Output, verdict: "lw.Verdict") -> None:
    facts = {name: value for name, value in verdict.to_json().items() if value is not None}
    for name in _TIMES:
        if name in facts:
            facts[name] = moment(facts[name], raw=False)
    output.result(facts, f"{verdict.kind}: {verdict.message}")
