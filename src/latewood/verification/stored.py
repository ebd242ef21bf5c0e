"""The immutable tier: that manifests follow from one another, and that the newest generation is what its manifest says."""

from collections.abc import Iterator

import numpy as np

from latewood.clock import show_ts
from latewood.errors import LatewoodError
from latewood.events import Events
from latewood.immutable import Generation, GenerationReader
from latewood.schema import Trait
from latewood.storage import keys
from latewood.store import Store
from latewood.stripes import Shard
from latewood.users import shard_of
from latewood.verification.report import Difference, Tell


def check_manifests(store: Store, newest: Generation) -> Iterator[Difference]:
    """Every manifest can be read, and each follows from those before it."""
    before: Generation | None = None
    for number in range(newest.id + 1):
        where = keys.manifest(number)
        try:
            generation = store.catalog.load(number)
        except (LatewoodError, OSError) as error:
            yield Difference("manifest", where, str(error))
            before = None
            continue
        for problem in _problems(generation, before):
            yield Difference("manifest", where, problem)
        before = generation


def _problems(generation: Generation, before: Generation | None) -> Iterator[str]:
    parent = generation.parent
    if generation.id and (parent is None or not 0 <= parent < generation.id):
        yield f"its parent is {parent}, which is none before it"
    if before is None:
        return
    if generation.watermark < before.watermark:
        yield f"its watermark {show_ts(generation.watermark)} is before that of the one before it"
    if generation.origin != "rollback" and parent != before.id:
        yield f"its parent is {parent}, not the one before it"
    if generation.scrubs < before.scrubs:
        yield f"it applied {generation.scrubs} scrubs, the one before it {before.scrubs}"
    if generation.origin != "rollback" and before.expired and not generation.expired:
        yield "retention took events before, which it does not say any more"


def check_shards(reader: GenerationReader, tell: Tell) -> tuple[list[Difference], list[Difference]]:
    """Every byte of every shard is what was written, and says of itself what is so.

    Returns: what is wrong with the files that are there, which is so whatever was published meanwhile; and which files
        are gone, as those of an older generation may be.
    """
    wrong: list[Difference] = []
    gone: list[Difference] = []
    done = 0
    for number, file in enumerate(reader.generation.shards):
        done += file.event_count
        try:
            shard = reader.shard(number)
            if shard is None:
                continue
            shard.verify()
            tell(done, reader.generation.event_count)
        except (LatewoodError, OSError) as error:
            kind = gone if isinstance(error, FileNotFoundError) else wrong
            kind.append(Difference("shard", file.key, str(error)))
            continue
        wrong += [Difference("shard", file.key, message) for message in _untrue(reader.generation, number, shard)]
    return wrong, gone


def _untrue(generation: Generation, number: int, shard: Shard) -> Iterator[str]:
    """What a whole shard says of itself that is not so."""
    file = generation.shards[number]
    found = (shard.size_bytes, shard.event_count, shard.user_count)
    if found != (file.size_bytes, file.event_count, file.user_count):
        yield f"has (bytes, events, users) {found}, its manifest says otherwise"
    if shard.latest_ingest is not None and shard.latest_ingest >= generation.watermark:
        latest, watermark = show_ts(shard.latest_ingest), show_ts(generation.watermark)
        yield f"has an event ingested {latest}, not before the watermark {watermark}"
    if (shard_of(shard.keys.hash, len(generation.shards)) != number).any():
        yield "has a user of another shard"


def check_codes(store: Store, reader: GenerationReader) -> Iterator[Difference]:
    """Every coded value of every stored event stands in the vocabulary."""
    coded = [trait for trait in reader.generation.schema if trait.coded]
    largest = {trait.id: -1 for trait in coded}
    for events in reader.scan(coded) if coded else ():
        for trait in coded:
            largest[trait.id] = max(largest[trait.id], largest_code(events, trait))
    for trait in coded:
        yield from check_values(store, trait, largest[trait.id])


def check_values(store: Store, trait: Trait, largest: int) -> Iterator[Difference]:
    """Every value up to the largest code in use stands in the vocabulary, whoever added it."""
    try:
        store.vocabulary.values(trait.id, at_least=largest + 1)
    except LatewoodError as error:
        yield Difference("vocabulary", f"trait {trait.name!r}", str(error))


def largest_code(events: Events, trait: Trait) -> int:
    """The largest code in use, -1 where there is none."""
    column = events.traits.get(trait.id)
    return -1 if column is None else int(np.max(column.known, initial=-1))
