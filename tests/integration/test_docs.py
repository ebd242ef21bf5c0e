"""Documentation that cannot go stale: its code runs, its commands, targets and links exist.

In README.md every python block is run; elsewhere those whose fence says ```python runnable. Each in a folder of its own.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer

from latewood.cli import app, main

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"\blatewood ([a-z]+)((?: +(?!`)[^\s`#|&;]+)*)")
IN_BACKTICKS = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")


def names(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[tuple[str, str]]:
    return [(found["info"].strip(), found["body"]) for found in FENCE.finditer(page.read_text())]


def runnable() -> list[tuple[str, str]]:
    return [
        (f"{names(page)}:{number}", body)
        for page in PAGES
        for number, (info, body) in enumerate(blocks(page))
        if info == "python runnable" or (info == "python" and page.name == "README.md")
    ]


def code_in(page: Path) -> list[str]:
    """What a page sets in type as code: blocks without a language or in a shell's, and words in backticks."""
    text = page.read_text()
    fenced = [body for info, body in blocks(page) if info in ("", "sh", "bash", "console")]
    return [*fenced, *IN_BACKTICKS.findall(FENCE.sub("", text))]


@pytest.mark.parametrize("code", [pytest.param(body, id=name) for name, body in runnable()])
def test_code_runs(code: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


def test_the_readme_has_ten_lines_to_run() -> None:
    ((_, code),) = [(name, code) for name, code in runnable() if name.startswith("README.md")]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10


def test_the_readmes_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "events").mkdir()
    events = {"uid": [42, 42, 7], "timestamp": [1_700_000_000, 1_700_000_060, 1_700_000_900], "item_id": [1, 2, 3]}
    pq.write_table(pa.table(events | {"like": [True, True, False]}), "events/2023.parquet")
    (block,) = [body for info, body in blocks(ROOT / "README.md") if info == "sh"]
    for line in block.splitlines():
        with pytest.raises(SystemExit) as left:
            main(shlex.split(line)[1:])
        assert left.value.code == 0, line
    assert pq.read_table("sequences.parquet")["history"].to_pylist()[0]["item_id"] == [1]


def commands() -> list[tuple[str, str, str]]:
    return [
        (names(page), verb, rest) for page in PAGES for code in code_in(page) for verb, rest in COMMAND.findall(code)
    ]


def test_commands_exist_with_their_options() -> None:
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert commands()
    for page, verb, rest in commands():
        assert verb in verbs, f"{page}: latewood {verb}"
        options = {option for parameter in verbs[verb].params for option in parameter.opts}
        for word in re.findall(r"--[a-z-]+", rest):
            assert word in options, f"{page}: latewood {verb} {word}"


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    make = re.compile(r"^make ([a-z]+)", re.MULTILINE)
    named = {(names(page), target) for page in PAGES for code in code_in(page) for target in make.findall(code)}
    assert {("README.md", "demo"), ("README.md", "test")} <= named
    assert {target for _, target in named} <= targets


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_links_lead_somewhere(page: Path) -> None:
    missing = [link for link in LINK.findall(FENCE.sub("", page.read_text())) if not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_files_that_are_named_exist(page: Path) -> None:
    """Paths in backticks that look like ours."""
    for path in re.findall(r"`((?:src|tests|docs|bench)/[\w./-]+)`", page.read_text()):
        assert (ROOT / path).exists(), f"{names(page)}: {path}"


def test_the_map_of_the_code_names_every_part() -> None:
    concepts = (ROOT / "docs" / "concepts.md").read_text()
    source = ROOT / "src" / "latewood"
    parts = {path.name for path in source.iterdir() if path.is_dir() and path.name != "__pycache__"}
    parts |= {path.stem for path in source.glob("*.py")} - {"__init__", "__main__"}
    drawing = concepts[concepts.index("src/latewood/\n") :]
    drawing = drawing[: drawing.index("```")]
    assert {part for part in parts if not re.search(rf"\b{part}\b", drawing)} == set()


def test_decisions_are_numbered_shaped_alike_and_listed() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    listed = (ROOT / "docs" / "README.md").read_text()
    for page in pages:
        assert re.fullmatch(r"\d{4}(-[a-z0-9]+)+\.md", page.name)
        text = page.read_text()
        title = re.match(r"# (\d+)\. (.+)\n", text)
        assert title, page.name
        assert f"| [{title[1]}](decisions/{page.name}) | {title[2]} |" in listed
        headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
        assert [name for name in headings if name != "Numbers"] == ["Problem", "Options", "Choice"], page.name
