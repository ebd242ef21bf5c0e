"""Every object key of a store, formed and parsed in one place.

    store.json                                        what the store is: schema, epoch, shard count
    vocabulary/<trait id>/<seq>.arrow                 values of a trait, in the order of their codes
    vocabulary/blanked/<number>.json                  codes whose values were forgotten
    vocabulary/unused/<generation>-<uuid>.json        codes to be blanked once that attempt is published
    manifests/<generation>.json                       one per generation, never deleted
    generations/<generation>/<uuid>/shard-<i>.stripes its data; the uuid is the attempt's that wrote it
    changes/<number>.json                             what the next generation is to be like: schema, shards, retention
    scrubs/<number>.json                              who was to be forgotten
    pins/<name>.json                                  a generation whose data a run still needs
    probes/<uuid>                                     there for a moment, to see that put-if-absent is honoured

Numbers are padded with zeros, so that keys sort as what they number. Parsers return None for any other key.
"""

import re

STORE = "store.json"
VOCABULARY = "vocabulary"
MANIFESTS = "manifests"
GENERATIONS = "generations"
CHANGES = "changes"
SCRUBS = "scrubs"
PINS = "pins"
UNUSED = f"{VOCABULARY}/unused"
PROBES = "probes"

_CHUNK = re.compile(rf"{VOCABULARY}/(\d+)/(\d{{8}})\.arrow")
_MANIFEST = re.compile(rf"{MANIFESTS}/(\d{{10}})\.json")
_PIN = re.compile(rf"{PINS}/([A-Za-z0-9][A-Za-z0-9._-]*)\.json")
_UNUSED = re.compile(rf"{UNUSED}/(\d{{10}})-([^/]+)\.json")
_ATTEMPT_FILE = re.compile(rf"{GENERATIONS}/(\d{{10}})/([^/]+)/.+")


def vocabulary_folder(trait_id: int) -> str:
    return f"{VOCABULARY}/{trait_id}"


def vocabulary_chunk(trait_id: int, seq: int) -> str:
    return f"{VOCABULARY}/{trait_id}/{seq:08d}.arrow"


def parse_vocabulary_chunk(key: str) -> tuple[int, int] | None:
    """The trait id and the sequence number."""
    match = _CHUNK.fullmatch(key)
    return (int(match[1]), int(match[2])) if match else None


def blanked(number: int) -> str:
    return f"{VOCABULARY}/blanked/{number:08d}.json"


def unused(generation: int, uuid: str) -> str:
    return f"{UNUSED}/{generation:010d}-{uuid}.json"


def parse_unused(key: str) -> tuple[int, str] | None:
    """The generation and the uuid of the attempt."""
    match = _UNUSED.fullmatch(key)
    return (int(match[1]), match[2]) if match else None


def manifest(generation: int) -> str:
    return f"{MANIFESTS}/{generation:010d}.json"


def parse_manifest(key: str) -> int | None:
    """The generation's id."""
    match = _MANIFEST.fullmatch(key)
    return int(match[1]) if match else None


def change(number: int) -> str:
    return f"{CHANGES}/{number:08d}.json"


def scrub(number: int) -> str:
    return f"{SCRUBS}/{number:08d}.json"


def pin(name: str) -> str:
    """Names are letters, digits, dots, dashes and underscores, and begin with none of the marks."""
    return f"{PINS}/{name}.json"


def parse_pin(key: str) -> str | None:
    """The pin's name."""
    match = _PIN.fullmatch(key)
    return match[1] if match else None


def attempt_folder(generation: int, uuid: str) -> str:
    """Where one attempt to build a generation writes: a name of its own, so that no loser overwrites the winner."""
    return f"{GENERATIONS}/{generation:010d}/{uuid}"


def shard(generation: int, uuid: str, index: int) -> str:
    return f"{attempt_folder(generation, uuid)}/shard-{index:05d}.stripes"


def parse_attempt_file(key: str) -> tuple[int, str] | None:
    """The generation and the uuid of the attempt that wrote this file, whatever the file is."""
    match = _ATTEMPT_FILE.fullmatch(key)
    return (int(match[1]), match[2]) if match else None


def probe(uuid: str) -> str:
    return f"{PROBES}/{uuid}"


def check_key(key: str) -> str:
    """The key itself. Raises: ValueError: it has an empty or dotted segment, a backslash or a control character."""
    if (
        not key
        or key[0] in "./"
        or key[-1] == "/"
        or "//" in key
        or "/." in key
        or "\\" in key
        or not key.isprintable()
    ):
        raise ValueError(f"{key!r} is not an object key: segments are not empty, and no dot leads one")
    return key


def check_prefix(prefix: str) -> str:
    """A folder to list, without a trailing slash; "" is the root."""
    folder = prefix.removesuffix("/")
    return check_key(folder) if prefix else ""
