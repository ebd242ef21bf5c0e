"""The shape of the code is a test: who may import whom, how long files are, what is exported.

As docs/concepts.md draws it: nouns import nothing above them; storage ◀ stripes ◀ immutable; materialize never sees the
mutable tier; loading, cli and testing sit on top. numba stays below the packages that have kernels, and `kernels` alone
decides how they are compiled.
"""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "latewood"

NOUNS = {
    "errors",
    "clock",
    "lists",
    "schema",
    "users",
    "columns",
    "events",
    "pointer",
    "projection",
    "conditions",
    "batch",
    "retention",
}
# box → the boxes it may import, besides itself and the nouns
ALLOWED: dict[str, set[str]] = {
    **{noun: set() for noun in NOUNS},
    "kernels": set(),
    "intake": {"mutable"},
    "storage": set(),
    "vocabulary": {"storage"},
    "stripes": {"kernels", "storage"},
    "immutable": {"kernels", "storage", "stripes"},
    "mutable": {"kernels"},
    "compaction": {"kernels", "storage", "vocabulary", "stripes", "immutable", "mutable"},
    "capture": {"histories", "intake", "kernels", "vocabulary", "stripes", "immutable", "mutable"},
    "examples": {"storage"},
    "materialize": {"kernels", "vocabulary", "stripes", "immutable"},
    "loading": {"kernels", "materialize", "examples", "progress"},
    "store": {
        *("storage", "vocabulary", "immutable", "mutable", "compaction", "capture", "materialize"),
        *("appending", "forgetting", "tiers", "vocab"),
    },
    "tiers": {"immutable", "mutable", "storage"},
    "appending": {"corrections", "immutable", "intake", "mutable", "vocabulary"},
    "corrections": {"intake", "immutable", "mutable"},
    "rebuilding": {"intake", "compaction", "histories", "immutable", "ingestion", "store"},
    "sealing": {"examples", "immutable", "materialize", "stripes"},
    "forgetting": {"intake", "storage", "vocabulary", "immutable", "compaction", "histories"},
    "histories": {"immutable", "mutable", "vocabulary"},
    "consistency": {"histories"},
    "key_index": set(),
    "vocab": {"histories", "key_index"},
    "items": {"key_index"},
    "splits": set(),
    "explain": {"capture", "consistency", "histories", "immutable", "intake", "materialize", "store", "stripes"},
    "verification": {
        *("consistency", "examples", "histories", "immutable", "materialize", "mutable", "storage", "store", "stripes"),
    },
    "exporting": {"examples", "files", "histories", "loading", "store"},
    "migration": {
        *("capture", "consistency", "examples", "histories", "immutable", "intake", "materialize", "store"),
        "verification",
    },
    "files": set(),
    "progress": set(),
    "ingestion": {"compaction", "files", "immutable", "intake", "mutable", "progress", "storage", "store", "tiers"},
}
TOP = {"cli", "testing", "demo", "__init__", "__main__"}  # may import anything
KERNELS = {"kernels", "stripes", "immutable", "mutable", "compaction", "capture", "materialize", "loading"}
LINES_MAX = 500


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def box_of(path: Path) -> str:
    relative = path.relative_to(SOURCE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def boxes_imported(path: Path) -> set[str]:
    parts = [name.split(".") for name in imported(path) if name.startswith("latewood.")]
    return {part[1] for part in parts if (SOURCE / part[1]).is_dir() or (SOURCE / f"{part[1]}.py").exists()}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_follow_the_layers(path: Path) -> None:
    box = box_of(path)
    if box in TOP:
        return
    assert box in ALLOWED, f"{box} is not on the map: add it to ALLOWED, and say why in docs/decisions"
    forbidden = boxes_imported(path) - ALLOWED[box] - NOUNS - {box}
    assert not forbidden, f"{path.relative_to(SOURCE)} may not import {', '.join(sorted(forbidden))}"


@pytest.mark.parametrize("box", sorted(ALLOWED))
def test_the_map_allows_no_more_than_is_used(box: str) -> None:
    paths = [path for path in modules() if box_of(path) == box]
    assert paths, f"{box} is on the map and not in the tree"
    unused = ALLOWED[box] - set().union(*map(boxes_imported, paths))
    assert not unused, f"{box} need not be allowed to import {', '.join(sorted(unused))}"


def test_the_oracle_shares_no_code_with_the_store() -> None:
    oracle = SOURCE / "testing" / "oracle.py"
    assert boxes_imported(oracle) == {"errors", "projection"}  # what is asked for, and how it is refused


def test_the_layers_have_no_cycle() -> None:
    done: set[str] = set()
    while len(done) < len(ALLOWED):
        ready = {box for box, below in ALLOWED.items() if box not in done and below <= done}
        assert ready, f"a cycle among {sorted(set(ALLOWED) - done)}"
        done |= ready


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_frameworks_are_imported_in_one_place(path: Path) -> None:
    roots = {name.split(".")[0] for name in imported(path)}
    relative = path.relative_to(SOURCE).as_posix()
    assert "torch" not in roots or relative in ("loading/torch.py", "loading/device.py")
    assert "prometheus_client" not in roots or relative == "loading/metrics.py"
    assert "jax" not in roots or relative == "loading/jax.py"
    assert not {"numba", "llvmlite"} & roots or box_of(path) in KERNELS
    decorators = {"numba.njit", "numba.jit", "numba.vectorize", "numba.extending.intrinsic"}
    assert not decorators & imported(path) or relative == "kernels.py"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_fit_on_a_few_screens(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LINES_MAX


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_modules_say_what_they_are(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"
    assert not {"core", "base", "common", "utils", "helpers", "manager"} & set(path.with_suffix("").parts[-3:])
