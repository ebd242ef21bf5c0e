"""Verify: the store itself in full, or examples by deriving them anew."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.batch import Batch
from latewood.consistency import read_consistently
from latewood.errors import ConflictError, LatewoodError, SchemaError, refuse_path
from latewood.examples import ExampleSource, open_examples
from latewood.histories import distinct_users, read_histories
from latewood.immutable import GenerationReader
from latewood.materialize import Materializer
from latewood.materialize.logged import Logged, read_heads
from latewood.mutable import MutableTier
from latewood.projection import Projection
from latewood.store import Store
from latewood.verification.recent import check_moved, check_recent, read_recent
from latewood.verification.rederive import differences, rederive
from latewood.verification.report import Difference, Findings, Tell, VerifyReport
from latewood.verification.stored import check_codes, check_manifests, check_shards

_AT_ONCE = 256  # examples whose users' whole histories are held
_MOVED_USERS = 1000


def verify(
    store: Store,
    examples: Any = None,
    *,
    sample: int | None = 1000,
    seed: int = 0,
    max_len: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Verify a store, or examples of it.

    Without examples: every manifest; every byte of the newest generation, against its checksums and against what the
    index says of it; the vocabularies; the mutable tier, unless the store is open read-only. With examples: a sample
    of them is derived anew by brute force and compared with what the materializer gives, value for value.

    Args:
        examples: a table, or files of examples; see `Loader`.
        sample: how many to derive, chosen by `seed`; None: all of them.
        max_len: the model's. With retention, what a shorter model is still served, a longer one is refused.
        progress: called with (done, total): events of shards, or examples.
    Returns: what was looked at, and all that is wrong: `report.ok` is whether nothing is.
    Raises: SchemaError: not examples at all. ConflictError: a live store whose generations are replaced too fast.
    """
    refuse_path(store, read_only=True)
    if sample is not None and sample < 0:
        raise SchemaError(f"sample is {sample}; it counts examples")
    rng, report = np.random.default_rng(seed), VerifyReport(store.refresh().generation.id)
    tell = progress or (lambda done, total: None)
    if examples is None:
        return _verify_store(store, rng, report, tell)
    return _verify_examples(store, open_examples(examples), sample, rng, report, max_len, tell)


def _verify_store(store: Store, rng: np.random.Generator, report: VerifyReport, tell: Tell) -> VerifyReport:
    findings, reader = Findings(), store.refresh()
    generation = reader.generation
    findings.extend(check_manifests(store, generation))
    damage = _check_shards(store, reader, tell)
    findings.extend(damage)
    if not damage:  # of damaged shards nothing more can be said
        findings.extend(_check_codes(store, reader))
    values = sum(len(store.vocabulary.values(trait.id)) for trait in store.schema if trait.coded)

    def check_tier(tier: MutableTier) -> tuple[int, list[Difference]]:
        store.scrubs.refresh()
        state, events = read_recent(tier, store)
        found = list(check_recent(store, state, events))
        if not damage:
            found += check_moved(store, events, _MOVED_USERS, rng)
        return len(events), found

    recent = 0
    if (tier := store.tier) is not None:
        recent, found = read_consistently(store, lambda: check_tier(tier), lambda checked: bool(checked[1]))
        findings.extend(found)
    return replace(
        report, generations=generation.id + 1, shards=sum(file.exists for file in generation.shards),
        users=generation.user_count, events=generation.event_count, values=values, recent=recent,
        difference_count=findings.count, differences=tuple(findings.first),
    )  # fmt: skip


def _check_shards(store: Store, reader: GenerationReader, tell: Tell) -> list[Difference]:
    """What is wrong with a generation's files. Raises: ConflictError: it was replaced, and one was collected unread."""
    wrong, gone = check_shards(reader, tell)
    if not gone or _is_newest(store, reader):
        return wrong + gone
    if wrong:  # found, and to be told: the next generation may have copied it
        return wrong
    raise _replaced(reader)


def _check_codes(store: Store, reader: GenerationReader) -> list[Difference]:
    """What is wrong with a generation's codes. Raises: ConflictError: it was replaced, and its values may be collected."""
    try:
        found = list(check_codes(store, reader))
    except FileNotFoundError:
        if _is_newest(store, reader):
            raise
    else:
        if not found or _is_newest(store, reader):
            return found
    raise _replaced(reader)


def _is_newest(store: Store, reader: GenerationReader) -> bool:
    return store.refresh().generation.id == reader.generation.id


def _replaced(reader: GenerationReader) -> ConflictError:
    return ConflictError(f"generation {reader.generation.id} was replaced while it was verified; try again")


def _verify_examples(
    store: Store,
    source: ExampleSource,
    sample: int | None,
    rng: np.random.Generator,
    report: VerifyReport,
    max_len: int | None,
    tell: Tell,
) -> VerifyReport:
    count = len(source)
    rows = np.arange(count) if sample is None or sample >= count else np.sort(rng.permutation(count)[:sample])
    found, materializer = _Checked(), Materializer(store, Projection(max_len=max_len), on_missing="mask")
    for start in range(0, len(rows), _AT_ONCE):
        part = rows[start : start + _AT_ONCE]
        found.join(_check(store, materializer, source.take(part), part))
        tell(start + len(part), len(rows))
    return replace(
        report, examples=count, sampled=len(rows), compared=found.compared, expired=found.refused["expired"],
        scrubbed=found.refused["scrubbed"], difference_count=found.findings.count,
        differences=tuple(found.findings.first),
    )  # fmt: skip


@dataclass(slots=True)
class _Checked:
    """What became of some examples."""

    compared: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    findings: Findings = field(default_factory=Findings)

    def join(self, others: "_Checked") -> None:
        self.compared += others.compared
        self.refused.update(others.refused)
        self.findings.join(others.findings)


def _check(store: Store, materializer: Materializer, table: pa.Table, rows: NDArray[np.int64]) -> _Checked:
    """Derive some examples anew, and compare them with what the materializer gives; as of one state of the store.

    Args: rows: where the examples stand, for messages.
    """

    def check() -> _Checked:
        checker = _Checker(store, materializer)
        checker.check(table, rows)
        return checker.found

    return read_consistently(store, check, lambda checked: bool(checked.findings.count))


class _Checker:
    """Derives examples anew, and compares them with what the materializer gives."""

    def __init__(self, store: Store, materializer: Materializer) -> None:
        self._store, self._materializer, self.found = store, materializer, _Checked()

    def check(self, table: pa.Table, rows: NDArray[np.int64]) -> None:
        """Args: rows: where the examples stand, for messages."""
        store, findings = self._store, self.found.findings
        try:
            heads = read_heads(table, store.schema, store.epoch)
            store.scrubs.refresh()
            scrubbed = heads.cutoff <= store.scrubs.scrubbed_at(heads.keys)
            logged = heads.read_recents(list(store.schema), store.vocabulary, scrubbed)
            batch = self._materializer(table)
        except LatewoodError as error:
            if len(rows) == 1:
                findings.add(Difference("example", f"example {rows[0]}", str(error)))
                return
            for i in range(len(rows)):  # one of them spoils it for all: find out which
                self.check(table.slice(i, 1), rows[i : i + 1])
            return
        self._compare(logged, batch, rows)

    def _compare(self, logged: Logged, batch: Batch, rows: NDArray[np.int64]) -> None:
        store, max_len = self._store, self._materializer.projection.max_len
        users, of = distinct_users(logged.keys)
        histories = read_histories(store, users, list(store.schema))
        scrubbed_at = store.scrubs.scrubbed_at(users)
        for i, row in enumerate(rows.tolist()):
            user = int(of[i])
            expected = rederive(logged, i, histories, user, int(scrubbed_at[user]), max_len, store.vocabulary.unified)
            if expected.refused is not None:
                self.found.refused[expected.refused] += 1
            elif expected.events is not None:
                self.found.compared += len(expected.events)
            where = f"example {row}, user {logged.user_ids[i].as_py()!r}"
            for message in differences(expected, batch, i, store.schema):
                self.found.findings.add(Difference("example", where, message))
