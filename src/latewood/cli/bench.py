"""`latewood bench`: measure beside the peers, on this machine.

The suites are not part of the library: they lie in `bench/` of a clone, and in the package's `suites` where it was
installed from a wheel, and import the library as its users do. This verb finds them and hands over.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

import latewood
from latewood.cli.output import Debug, Json
from latewood.errors import LatewoodError


def bench(
    suites: Annotated[
        list[str] | None,
        typer.Argument(
            help="Of loader, scan, training, lists, checks, streams, paper, build, append, capture, compact, memory, "
            "startup, scale; or all."
        ),
    ] = None,
    users: Annotated[int | None, typer.Option(help="How many to draw; 10,000 have about 19 M events.")] = None,
    passes: Annotated[int | None, typer.Option(help="Timed passes, of which the medians count.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the generated data.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Make the data under it: what it lies on counts.")] = None,
    yardstick: Annotated[Path | None, typer.Option(help="A folder whose C++ stripes run beside ours in scan.")] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="Little data and one pass: figures mean nothing.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure beside Fat Rows and other peers; without a suite, the quick part of loader."""
    given = {"users": users, "passes": passes, "seed": seed, "folder": folder, "yardstick": yardstick}
    options = [f"--{name}={value}" for name, value in given.items() if value is not None]
    flags = [*(["--tiny", "--no-floors"] if tiny else []), *(["--json=-"] if json else [])]
    sys.path.insert(0, str(_folder()))
    code = import_module("bench.__main__").main([*(suites or []), *options, *flags], prog="latewood bench")
    if code:
        raise typer.Exit(code)


def _folder() -> Path:
    """What the package `bench` lies in. Raises: LatewoodError: it was not installed with the library."""
    package = Path(latewood.__file__).parent
    for folder in (package / "suites", package.parents[1]):
        if (folder / "bench" / "__main__.py").exists():
            return folder
    raise LatewoodError(f"the benchmark suites are not beside {package}; in a clone, run python -m bench")
