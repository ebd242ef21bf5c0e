"""What can happen to a file, and whether it shows.

Every kind of damage is a list of cases: edits of a file's bytes. Each is put in the place of one file of a whole store,
and then everything is read: either the damage is refused, by an error that says where, or what is read is, to the bit,
what was read before.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash
from parquet_pages import page_headers

from forged_shards import OFFSET, ForgedShard
from latewood.errors import CorruptionError, LatewoodError, SchemaError

Edit = tuple[int, int, bytes]  # bytes from start to stop give way to others
PATTERNS = (0xFF, 0x01, 0x80, 0x20)


class Case(NamedTuple):
    """One damage. The edits do not overlap, and ascend."""

    what: str
    edits: tuple[Edit, ...]

    def apply(self, data: bytes) -> bytes:
        parts, at = [], 0
        for start, stop, new in self.edits:
            parts += [data[at:start], new]
            at = stop
        return b"".join([*parts, data[at:]])


Damage = Callable[[bytes], Iterator[Case]]


def flips(data: bytes, patterns: Iterable[int] | None = None, every: int = 1) -> Iterator[Case]:
    """Every byte changed, one at a time: by each of the patterns, or by a bit that differs from place to place."""
    for place in range(0, len(data), every):
        yield from changes(data, place, patterns or (1 << (place // every % 8),))


def flipped_headers(data: bytes) -> Iterator[Case]:
    """Every byte of the headers of a Parquet file's pages, in every way: nothing covers them."""
    for header in page_headers(data):
        for place in header:
            yield from changes(data, place, range(1, 256))


def changes(data: bytes, place: int, patterns: Iterable[int]) -> Iterator[Case]:
    """One byte in several ways."""
    for pattern in patterns:
        yield Case(f"byte {place} ^ {pattern:#x}", ((place, place + 1, bytes([data[place] ^ pattern])),))


def truncations(data: bytes, every: int = 1) -> Iterator[Case]:
    """The first bytes only, for all lengths."""
    for size in range(0, len(data), every):
        yield Case(f"cut to {size} bytes", ((size, len(data), b""),))


def additions(data: bytes) -> Iterator[Case]:
    """More bytes than were written."""
    for more in (b"\0", b"\n", data, data[-24:], bytes(4096)):
        yield Case(f"{len(more)} bytes more", ((len(data), len(data), more),))


def holes(data: bytes, size: int = 512) -> Iterator[Case]:
    """Sectors that never reached the disk, and sectors that stand twice."""
    for start in range(0, len(data), size):
        stop = min(start + size, len(data))
        yield Case(f"zeros from {start} to {stop}", ((start, stop, bytes(stop - start)),))
        if start:
            again = data[start - size : start][: stop - start]
            yield Case(f"the bytes before {start} again", ((start, stop, again),))


def swapped_parts(data: bytes) -> Iterator[Case]:
    """Of a shard file: stripes, user records and sections of one size change places."""
    shard = ForgedShard(data)
    starts = (shard.entries & np.uint64(OFFSET)).tolist()
    stripes = [(64 + a, 64 + b) for a, b in itertools.pairwise(starts) if b > a]
    sections = [(start, start + size) for start, size, _ in shard.footer["sections"].values() if size]
    records = [(start, start + 40) for start in range(*sections[0], 40)]
    for parts in (stripes, sections, records):
        for (a, b), (c, d) in itertools.combinations(parts, 2):
            if b - a == d - c and data[a:b] != data[c:d]:
                yield Case(f"bytes {a} to {b} and {c} to {d} swapped", ((a, b, data[c:d]), (c, d, data[a:b])))


JUNK: tuple[Any, ...] = (None, True, -1, 0, 1, 2**31, 2**63, 1.5, 1e308, "", "x", "00", [], [0], [[0, 0]], {}, {"x": 1})


def forged_documents(data: bytes) -> Iterator[Case]:
    """Of a document: every value, however deep, replaced by junk or left out; the checksum is right again."""
    document = json.loads(data)
    document.pop("xxh3")
    for path in _paths(document):
        for junk in (*JUNK, ...):
            changed = json.loads(json.dumps(document))
            at = changed
            for key in path[:-1]:
                at = at[key]
            if junk is ...:
                del at[path[-1]]
            else:
                at[path[-1]] = junk
            text = json.dumps(changed, ensure_ascii=False)
            yield Case(f"{'.'.join(map(str, path))} = {junk!r}", ((0, len(data), sealed(text)),))
    for text in ("[" * 50_000, "{", "[", "null", '"x"', '{"a":' * 9_000):
        yield Case(f"the document {text[:9]}", ((0, len(data), sealed(text + "}")),))


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield (*path, key)
        yield from _paths(part, (*path, key))


def sealed(text: str) -> bytes:
    """A document with its checksum, whatever it says."""
    head = text[:-1].encode()
    return head + f', "xxh3": "{xxhash.xxh3_64_intdigest(head):016x}"}}\n'.encode()


def other_files(file: Path, others: Iterable[Path]) -> Iterator[Case]:
    """Another file of the kind in the place of this one."""
    size = file.stat().st_size
    for other in others:
        if other != file and other.read_bytes() != file.read_bytes():
            yield Case(f"{other.name} in its place", ((0, size, other.read_bytes()),))


# ---- what becomes of it


class Finding(NamedTuple):
    """Damage that went wrong: unseen, or seen in the wrong way."""

    file: str
    what: str
    outcome: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}: {self.outcome}"


class Tally(NamedTuple):
    """How many were refused, and which were harmless."""

    refused: int
    harmless: list[str]
    findings: list[Finding]


Read = Callable[[], str]
Refusals = tuple[type[Exception], ...]
REFUSALS: Refusals = (CorruptionError,)
ANY_OF_OURS: Refusals = (LatewoodError, FileNotFoundError)  # the latter: what a document names is not there


def try_all(
    file: Path,
    cases: Iterable[Case],
    read: Read,
    refusals: Refusals = REFUSALS,
    probe: Callable[[], object] | None = None,
) -> Tally:
    """Put each case in the place of a file, and read everything. The file is as before in the end.

    Args:
        refusals: what may be raised. Where any error of ours will do, the bytes are an adversary's, and may mean whatever
            they say.
        probe: reads only this file; what it refuses is not read again with all the rest.
    """
    sound, expected = file.read_bytes(), read()
    tally = Tally(0, [], [])
    try:
        for case in cases:
            file.write_bytes(case.apply(sound))
            outcome = "refused" if probe and _refuses(probe, file, refusals) else None
            outcome = outcome or outcome_of(file, read, expected, refusals)
            if outcome == "refused":
                tally = tally._replace(refused=tally.refused + 1)
            elif outcome == "harmless" or (outcome == "other values" and refusals is ANY_OF_OURS):
                tally.harmless.append(case.what)
            else:
                tally.findings.append(Finding(file.name, case.what, outcome))
    finally:
        file.write_bytes(sound)
    assert read() == expected
    return tally


def _refuses(probe: Callable[[], object], file: Path, refusals: Refusals) -> bool:
    try:
        probe()
    except refusals as error:
        return refusals is ANY_OF_OURS or file.name in str(error)
    except Exception:  # whether it is right is for the whole reading to say
        return False
    return False


def outcome_of(file: Path, read: Read, expected: str, refusals: Refusals) -> str:
    """ "refused", "harmless", or what went wrong."""
    try:
        found = read()
    except refusals as error:
        if refusals is ANY_OF_OURS or file.name in str(error):
            return "refused"
        return f"an error that does not name the file: {error!r}"
    except SchemaError as error:
        return "refused" if re.search(r"format|version", str(error)) else f"a wrong error: {error!r}"
    except Exception as error:
        return f"an error that is none of ours: {error!r}"
    return "harmless" if found == expected else "other values"
