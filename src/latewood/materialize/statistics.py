"""What materializing cost, in the units in which late materialization is judged."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Statistics:
    """Sums over one batch or many; they add up with `+`."""

    batches: int = 0
    examples: int = 0
    events: int = 0  # in the output
    decoded_events: int = 0  # rows decoded for it, per trait; fewer where examples share, more where rows are invisible
    stripes: int = 0  # touched, over all traits
    lookup_bytes: int = 0  # their encoded bytes

    def __add__(self, other: "Statistics") -> "Statistics":
        # spelled out: `astuple` copies deeply, which was a tenth of a small batch's time
        return Statistics(
            self.batches + other.batches,
            self.examples + other.examples,
            self.events + other.events,
            self.decoded_events + other.decoded_events,
            self.stripes + other.stripes,
            self.lookup_bytes + other.lookup_bytes,
        )
