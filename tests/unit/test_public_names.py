"""What `import latewood` gives, and what it does not cost."""

import subprocess
import sys
from types import ModuleType

import pytest

import latewood as lw

HEAVY = ("numba", "llvmlite", "lmdb", "torch", "obstore", "rich", "typer", "pandas", "polars", "hypothesis")


def test_all_is_sorted_and_complete() -> None:
    assert lw.__all__ == sorted(set(lw.__all__))
    assert dir(lw) == lw.__all__


@pytest.mark.parametrize("name", lw.__all__)
def test_every_name_is_there(name: str) -> None:
    value = getattr(lw, name)
    if isinstance(value, ModuleType):
        assert value.__name__ == f"latewood.{name}"
    else:
        assert value.__name__ == name
        assert value.__module__.startswith("latewood.")
        assert value.__doc__


def test_the_names_of_the_contract_are_public() -> None:
    verbs = {"anchors", "backfill", "col", "ingest", "testing"}
    nouns = {
        "Batch",
        "Capture",
        "Generation",
        "Loader",
        "Materializer",
        "Projection",
        "Schema",
        "Store",
        "AppendReceipt",
    }
    assert verbs | nouns <= set(lw.__all__)
    assert {name for name in vars(lw.errors) if name.endswith("Error")} <= set(lw.__all__)  # type: ignore[attr-defined]


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Stor'"):
        lw.Stor  # noqa: B018


def run(code: str) -> set[str]:
    """The modules loaded after some code, in a fresh interpreter."""
    code += "; import sys; print(*sorted(name.split('.')[0] for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_costs_nothing_heavy() -> None:
    assert not run("import latewood") & {*HEAVY, "pyarrow", "numpy"}


def test_nouns_load_no_kernels_and_no_backends() -> None:
    assert not run("import latewood as lw; lw.Schema, lw.Projection, lw.Batch, lw.col, lw.SchemaError") & set(HEAVY)


def test_a_trainer_loads_no_framework() -> None:
    loaded = run("import latewood as lw; lw.Store, lw.Loader, lw.Materializer")
    assert "numba" in loaded
    # pandas is left out: pyarrow.dataset imports it where it is installed
    assert not loaded & {"torch", "jax", "ray", "polars", "hypothesis", "typer"}
