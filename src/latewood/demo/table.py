"""What the demo prints: the paper's Table 1, measured here, with the paper's figures beside them."""

from typing import Any

from rich.console import Console
from rich.table import Table


def show(console: Console, result: dict[str, Any]) -> None:
    """Print the result of `compare_tenants` and of the replay before it."""
    verdict = "[green]none differs[/]" if result["different"] == 0 else f"[red]{result['different']:,} DIFFER[/]"
    console.print(
        f"\n{result['compared']:,} sequences compared with the oracle: {verdict}. "
        f"{result['late_kept_out']:,} times a late purchase lay inside a request's past but was not known yet, "
        "and was kept out."
    )
    for name, tenant in result["tenants"].items():
        console.print(_tenant_table(name, tenant))
    stored = result["stored_bytes"]
    console.print(
        f"stored: latewood {_mb(stored['latewood'])} (histories {_mb(stored['store'])}, examples "
        f"{_mb(stored['examples'])}), Fat Rows {_mb(stored['fat_row'])}: {stored['fat_row'] / stored['latewood']:.1f}x"
    )
    if stored["fat_row"] < stored["latewood"]:
        console.print("So few days make short histories, whose copies cost little; the year shows more.")


def _tenant_table(name: str, tenant: dict[str, Any]) -> Table:
    fat, ours, paper = tenant["fat_row"], tenant["latewood"], tenant["paper_per_cent"]
    read, write = fat["primary_read_bytes"], tenant["primary_write_bytes"]
    table = Table("", "Fat Rows", "latewood", "change", "the paper", title=f"tenant {name}", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"

    def row(what: str, theirs: float, mine: float, change: float, key: str, unit: str) -> None:
        figures = (_mb(theirs), _mb(mine)) if unit == "bytes" else (f"{theirs:,.2f} ms", f"{mine:,.2f} ms")
        table.add_row(what, *figures, f"{change:+.1f} %", f"{paper[key]:+.1f} %")

    row(
        "primary write",
        write["fat_row"],
        write["latewood"],
        _change(write["latewood"], write["fat_row"]),
        "primary_write",
        "bytes",
    )
    row(
        "primary read",
        read,
        ours["primary_read_bytes"],
        _change(ours["primary_read_bytes"], read),
        "primary_read",
        "bytes",
    )
    # a lookup is read in addition, so it is given in per cent of what Fat Rows read
    for what, key in (("lookup, log order (streaming)", "lookup_log"), ("lookup, user order (batch)", "lookup_user")):
        row(what, 0, tenant[f"{key}_bytes"], 100 * tenant[f"{key}_bytes"] / read, key, "bytes")
    mine, theirs = ours["load_ms_per_batch"], fat["load_ms_per_batch"]
    row("load, per batch of 512", theirs, mine, _change(mine, theirs), "load_ms", "ms")
    speed = (fat["examples_per_s"], ours["examples_per_s"])
    table.add_row("examples per second", *(f"{s:,.0f}" for s in speed), f"{speed[1] / speed[0]:.1f}x", "")
    return table


def _change(mine: float, theirs: float) -> float:
    return 100 * (mine / theirs - 1)


def _mb(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:,.1f} MB" if size_bytes else "-"
