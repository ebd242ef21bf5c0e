"""What materializing cost, in the units in which late materialization is judged."""

from dataclasses import astuple, dataclass


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
        return Statistics(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))
