"""Damage to the immutable tier: every byte of every file of a store, one at a time, and what else can happen to files.

Whatever was done, reading the whole store either refuses it, with an error that names the file, or gives what it gave
before, to the bit. The mutable tier is another matter: see docs/protocol.md. All lengths and all kinds of flips, on a
larger store, are for `python tests/damage/exhaustive.py`.
"""

import faulthandler
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
import whole_store

import latewood as lw
from damage import (
    ANY_OF_OURS,
    Case,
    additions,
    flips,
    forged_documents,
    holes,
    other_files,
    swapped_parts,
    truncations,
    try_all,
)

KINDS = ["store.json", "manifests", "changes", "scrubs", "pins", "generations", "vocabulary"]
HANG_S = 120


class Whole(NamedTuple):
    place: Path
    examples: pa.Table
    store: lw.Store

    def files(self, kind: str) -> list[Path]:
        return [file for file in whole_store.files(self.place) if file.relative_to(self.place).parts[0] == kind]

    def read(self) -> str:
        return whole_store.read_store(self.place, self.examples)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("damage")
    whole_store.make(folder / "store", folder / "log")
    with lw.Store.open(folder / "store", read_only=True) as store:
        yield Whole(folder / "store", whole_store.read_examples(folder / "log"), store)


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """A kernel that does not end cannot be interrupted, only reported."""
    faulthandler.dump_traceback_later(HANG_S, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def test_the_store_has_one_of_everything(whole: Whole) -> None:
    assert all(whole.files(kind) for kind in KINDS)
    assert any(file.parent.name == "blanked" for file in whole.files("vocabulary"))
    (events,) = whole.store.refresh().scan(list(whole.store.schema))
    assert events.superseded_at is not None
    assert whole_store.FORGOTTEN not in events.user_ids.to_pylist()
    assert any(column.mask is not None for column in events.traits.values())
    assert (whole.examples["user_id"].to_pylist().count(1)) == 2


def survives(
    whole: Whole, kind: str, damage: Callable[[bytes], Iterator[Case]], *, probe: bool = True, **how: Any
) -> int:
    """How many cases there were; none went unseen, and nothing was harmless that changed a byte."""
    refused = 0
    for file in whole.files(kind):
        sound = file.read_bytes()
        cases = [case for case in damage(sound) if case.apply(sound) != sound]
        look = whole_store.probe_of(whole.store, file) if probe else None
        tally = try_all(file, cases, whole.read, probe=look, **how)
        assert [str(finding) for finding in tally.findings] == []
        if how.get("refusals") is not ANY_OF_OURS:
            assert tally.harmless == [], file
        refused += tally.refused
    return refused


@pytest.mark.parametrize("kind", KINDS)
def test_every_flipped_byte_is_refused(whole: Whole, kind: str) -> None:
    assert survives(whole, kind, flips) == sum(file.stat().st_size for file in whole.files(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_flips_are_refused_by_whoever_reads_all(whole: Whole, kind: str) -> None:
    """Without the short cut that the test before takes."""
    assert survives(whole, kind, partial(flips, patterns=[0xFF], every=97), probe=False)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_cut_short_or_overwritten_is_refused(whole: Whole, kind: str) -> None:
    assert survives(whole, kind, partial(truncations, every=5))
    assert survives(whole, kind, additions)
    assert survives(whole, kind, holes)


def test_parts_of_a_shard_that_changed_places_are_refused(whole: Whole) -> None:
    assert survives(whole, "generations", swapped_parts)


@pytest.mark.parametrize("kind", ["manifests", "changes", "vocabulary"])
def test_files_that_changed_places_are_refused(whole: Whole, kind: str) -> None:
    for file in whole.files(kind):
        tally = try_all(file, other_files(file, whole.files(kind)), whole.read)
        assert [str(finding) for finding in tally.findings] == []
        assert not tally.harmless
    shard, manifest = whole.files("generations")[0], whole.files("manifests")[0]
    assert try_all(shard, other_files(shard, [manifest]), whole.read).refused == 1


@pytest.mark.parametrize("kind", ["store.json", "manifests", "changes", "scrubs", "pins", "vocabulary"])
def test_forged_documents_are_refused_or_mean_what_they_say(whole: Whole, kind: str) -> None:
    """Their checksums are right, so only an adversary makes them: no crash, no hang, no error that is none of ours."""
    for file in whole.files(kind):
        if file.suffix == ".json":
            cases = list(forged_documents(file.read_bytes()))
            some = [*cases[:: 1 + len(cases) // 40], *cases[-6:]]
            probe = whole_store.probe_of(whole.store, file)
            tally = try_all(file, some, whole.read, ANY_OF_OURS, probe)
            assert [str(finding) for finding in tally.findings] == []
