"""What an ingest loaded: counted while the events stream past, and printed for people."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Console

from latewood.clock import DAY_US, HOUR_US, look_like_another_unit, show_ts
from latewood.events import Events
from latewood.immutable import GenerationReader, read_newest
from latewood.store import Store


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingest loaded, and what the store holds after it. Units: times in µs since epoch, UTC."""

    events: int  # loaded now
    first_ts: int | None  # of those events
    last_ts: int | None
    late_hour_share: float  # of those events, learned more than an hour after they happened
    late_day_share: float
    early_share: float  # of those events, learned before they happened
    users: int  # of the whole store
    length_p50: int
    length_p90: int
    length_p99: int
    length_max: int
    size_bytes: int
    generation: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Tally:
    """Counts while the events stream past."""

    def __init__(self) -> None:
        self.events = self.late_hour = self.late_day = self.early = 0
        self.first: int | None = None
        self.last: int | None = None

    def add(self, events: Events) -> None:
        if not len(events):
            return
        delay = events.ingest_ts - events.event_ts
        self.events += len(delay)
        self.late_hour += int(np.count_nonzero(delay > HOUR_US))
        self.late_day += int(np.count_nonzero(delay > DAY_US))
        self.early += int(np.count_nonzero(delay < 0))
        low, high = int(events.event_ts.min()), int(events.event_ts.max())
        self.first = low if self.first is None else min(low, self.first)
        self.last = high if self.last is None else max(high, self.last)

    def report(self, store: Store) -> IngestReport:
        """The report, of the newest generation: the one that was loaded, or what it has become meanwhile."""
        reader, lengths = read_newest(store, GenerationReader.history_lengths)
        quantiles = np.quantile(lengths, [0.5, 0.9, 0.99, 1.0]) if len(lengths) else np.zeros(4)
        p50, p90, p99, longest = quantiles.astype(int).tolist()
        return IngestReport(
            events=self.events,
            first_ts=self.first,
            last_ts=self.last,
            late_hour_share=self.late_hour / max(self.events, 1),
            late_day_share=self.late_day / max(self.events, 1),
            early_share=self.early / max(self.events, 1),
            users=len(lengths),
            length_p50=p50,
            length_p90=p90,
            length_p99=p99,
            length_max=longest,
            size_bytes=reader.generation.size_bytes,
            generation=reader.generation.id,
        )


def doubt_of_report(report: IngestReport) -> str | None:
    """What to say of integer times without a unit that all lie where seconds and milliseconds end up."""
    if report.first_ts is None or report.last_ts is None or not look_like_another_unit(report.first_ts, report.last_ts):
        return None
    return (
        "all times lie in early 1970: were they meant as unit='s' or unit='ms'? "
        "Then delete this store before you load them again, or it holds every event twice"
    )


def show(console: Console, store: Store, report: IngestReport) -> None:
    """Print a report."""
    first, last = report.first_ts, report.last_ts
    span = "no time at all" if first is None or last is None else f"{show_ts(first)} to {show_ts(last)}"
    per_event = report.size_bytes / max(store.generation.event_count, 1)
    p50, p90, p99, longest = report.length_p50, report.length_p90, report.length_p99, report.length_max
    hour, day = f"{report.late_hour_share:.1%}", f"{report.late_day_share:.1%}"
    lines = [
        f"loaded {report.events:,} events, {span}; the store has {report.users:,} users",
        f"history length: median {p50:,}, p90 {p90:,}, p99 {p99:,}, max {longest:,}",
        f"late: {hour} of events were learned over an hour after they happened, {day} over a day",
        f"stored: {report.size_bytes:,} bytes, {per_event:.1f} per event, generation {report.generation}",
    ]
    if report.early_share:
        lines.insert(3, f"early: {report.early_share:.1%} of events were learned before they happened")
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
