"""A world: one disk, one log, one time, a few processes, and the model of what they should find."""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from latewood.immutable import Change, Generation, GenerationReader, Pin, Scrubs, StoreDescription
from latewood.immutable.pins import Pins
from latewood.mutable import Settings
from latewood.mutable.event_batch import EventBatch
from latewood.mutable.log import LogState
from latewood.retention import Retention
from latewood.schema import Schema
from latewood.storage import keys
from latewood.storage.documents import decode_document
from latewood.testing.simulation import laws
from latewood.testing.simulation.admission import take_batch
from latewood.testing.simulation.broken import require
from latewood.testing.simulation.chance import Chance
from latewood.testing.simulation.clock import SimulatedClock, WorldTime
from latewood.testing.simulation.host import Host
from latewood.testing.simulation.log import LogHandle, SimulatedLog
from latewood.testing.simulation.model import NUMBER, WORD, Model
from latewood.testing.simulation.plan import Plan
from latewood.testing.simulation.process import Asked, Process
from latewood.testing.simulation.scheduler import Scheduler
from latewood.testing.simulation.storage import SimulatedDisk, SimulatedStorage
from latewood.testing.simulation.store import SimulatedStore
from latewood.testing.simulation.trace import Trace
from latewood.users import user_keys

START = 1_000_000


class World:
    """Everything that a case consists of."""

    def __init__(self, plan: Plan, chance: Chance) -> None:
        self.plan, self.chance, self.trace = plan, chance, Trace()
        self.scheduler = Scheduler(chance.stream(1), plan.switching)
        self.time = WorldTime(START)
        self.disk, self.log = SimulatedDisk(self._created), SimulatedLog(self._committed)
        self.settings = Settings(max_ahead_us=plan.max_ahead_us, id_window_us=plan.id_window_us)
        schema, epoch = make_schema(plan.user_type, lists=plan.lists), bytes.fromhex(chance.token())
        self.model = Model(plan.user_type)
        self.generations: list[Generation] = []
        self.held: list[frozenset[int]] = []  # by generation: the versions it holds
        self.changes: list[Change] = []
        self.loading: dict[Host, Asked] = {}  # what each life of a process loaded last, whose put may come late
        self.pins_back: set[str] = set()  # by a power cut, as no unpin of them had returned: their files may be gone
        self.comparisons = 0
        self._numbers = 0
        self.processes = [self._process(i) for i in range(plan.writers + plan.readers)]
        # one that only looks: never interrupted, and nothing fails it
        self._onlooker = Host("world", Scheduler(chance.stream(3), 0.0), chance.stream(4), Trace())
        self._epoch = epoch
        self._book = Scrubs(SimulatedStorage(self.disk, self._onlooker), epoch)
        description = StoreDescription(epoch, schema, plan.shards, START, plan.retention)
        self.disk.objects[keys.STORE] = description.to_bytes()

    def _process(self, i: int) -> Process:
        is_reader = i >= self.plan.writers
        name = f"{'reader' if is_reader else 'writer'}-{i}"
        return Process(name, self, self.chance.stream(10 + i), read_only=is_reader, clock_error=self.plan.clock_error)

    @property
    def closed(self) -> int:
        """The durable log's closed time."""
        return self.log.head().tier.closed

    def others_loaded(self, host: Host, since: int) -> bool:
        """Whether a bulk load of another was under way at any time since there had been so many."""
        token, loader = self.log.head().tier.load_token, self.log.loader
        going_on = token is not None or (loader is not None and loader is not host and loader.alive)
        return going_on or any(other is not host for other in self.log.claims[max(0, since - 1) :])

    def next_number(self) -> int:
        """For the next row: no two are the same."""
        self._numbers += 1
        return self._numbers

    def look(self, *, read_only: bool = True) -> SimulatedStore:
        """The store as a process without faults finds it, now."""
        host = self._onlooker
        clock = SimulatedClock(self.time, host, self.chance, 0)
        log = None if read_only else LogHandle(self.log, host)
        return SimulatedStore.start(SimulatedStorage(self.disk, host), clock, log, self.settings)

    def hashes(self, users: Iterable[Any]) -> list[tuple[int, int]]:
        """How the records of scrubs name users."""
        keys_ = user_keys(pa.array(list(users), self.model.user_type))
        return [(int(first), int(second)) for first, second in self._book.hash(keys_).tolist()]

    def pin(self, name: str) -> Pin | None:
        """A pin as it is written down."""
        return Pins(SimulatedStorage(self.disk, self._onlooker), self._epoch).read(name)

    def scrubs_recorded(self) -> int:
        """How many scrubs every reader can know of."""
        return sum(key.startswith(f"{keys.SCRUBS}/") for key in self.disk.objects)

    def _committed(self, host: Host, before: LogState, after: LogState, batches: list[EventBatch]) -> None:
        laws.check_commit(self, before, after, batches)
        process = next((process for process in self.processes if process.host is host), None)
        for batch in batches:
            require(process is not None and process.asked is not None, "a commit that nobody asked for:", host.name)
            assert process is not None
            assert process.asked is not None
            take_batch(self, process, process.asked, before, batch)
        if after.scrub is not None and before.scrub is None:
            assert process is not None
            assert process.asked_scrub is not None
            laws.take_scrub(self, process.asked_scrub, before.tier, after.scrub)

    def _created(self, host: Host, key: str, data: bytes) -> None:
        if key.startswith(f"{keys.CHANGES}/"):
            self.changes.append(read_change(data))
        if keys.parse_manifest(key) is not None:
            self._published(host, Generation.from_json(data, key))

    def _published(self, host: Host, generation: Generation) -> None:
        laws.check_publication(self, generation)
        if generation.origin == "load":
            asked = self.loading[host]
            for row in asked.rows:
                assert row.ingest_ts is not None
                if row.event_ts < self.model.scrubbed_at(row.user):  # R16: as in an append
                    continue
                values = {asked.schema[name].id: value for name, value in row.values.items()}
                self.model.add(row, row.ingest_ts, values, loaded=True)
        reader = GenerationReader(SimulatedStorage(self.disk, self._onlooker), generation)
        stored = list(reader.scan([generation.schema[NUMBER]]))
        self.held.append(laws.check_contents(self, generation, stored))
        self.generations.append(generation)
        self.trace.note(host.name, f"published {generation}, {generation.origin}")


def read_change(data: bytes) -> Change:
    """What a change says."""
    body = decode_document(data, "change", "change", 1)
    retention = Retention.from_json(body["retention"])
    return Change(int(body["number"]), Schema.from_json(body["schema"]), int(body["shards"]), retention)


def make_schema(user_type: pa.DataType, *, lists: bool) -> Schema:
    """Few traits: one that tells events apart, one coded and nullable, one of small integers, and maybe lists."""
    fields = [
        pa.field(NUMBER, pa.int64(), nullable=False),
        pa.field(WORD, pa.string()),
        pa.field("kind", pa.int8()),
    ]
    if lists:
        fields += [pa.field("words", pa.list_(pa.string())), pa.field("pair", pa.list_(pa.int8(), 2))]
    return Schema(user_id=user_type, traits=pa.schema(fields))
