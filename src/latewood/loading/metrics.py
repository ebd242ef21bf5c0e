"""A loader's stats for Prometheus. The only import of prometheus_client in latewood.

Counters are of the newest iteration and begin anew with each, as those of a program that was started again do; `rate` and
`increase` know of that. What the trainer waits for is `rate(latewood_loader_wait_seconds_total[5m])`, a share of its time.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from latewood.loading.stats import LoaderStats

_PREFIX = "latewood_loader_"
_COUNTERS = {
    "batches": ("batches", "Batches given to the trainer."),
    "examples": ("examples", "Examples in them."),
    "events": ("events", "Events in them."),
    "made_events": ("made_events", "Events of all batches made, those that lie ready too."),
    "decoded_events": ("decoded_events", "Events decoded for them."),
    "elapsed_s": ("elapsed_seconds", "Time since the first batch was there."),
    "waited_s": ("wait_seconds", "Of that, the trainer waited for the loader."),
    "idle_s": ("idle_seconds", "Of that, the loader's thread waited for the trainer."),
}
_GAUGES = {
    "first_s": ("first_batch_seconds", "How long the trainer waited for the first batch."),
    "starvation": ("starvation_ratio", "The share of its time that the trainer waited, in this iteration."),
    "waste": ("waste_ratio", "The share of its time that the loader's thread waited."),
    "reuse": ("reuse_ratio", "How many events were made of each one that was decoded."),
    "users_per_batch": ("users_per_batch", "Users that differ, of a batch on average."),
}


class HasStats(Protocol):
    """A loader, or what stands in its place."""

    def stats(self) -> LoaderStats: ...


class LoaderCollector(Collector):
    """Loaders by name, for a registry: `REGISTRY.register(LoaderCollector({"train": loader}))`.

    They are asked when Prometheus asks, and training does no more than without. The label `loader` is the name, and `stage`
    what making batches took its time for.
    """

    def __init__(self, loaders: Mapping[str, HasStats]) -> None:
        self._loaders = dict(loaders)

    def describe(self) -> Iterable[Metric]:
        """The metrics without values, so that a registry refuses a second collector of them."""
        return _families()

    def collect(self) -> Iterable[Metric]:
        """The metrics of now."""
        families = _families()
        for name, loader in self._loaders.items():
            stats = loader.stats()
            *plain, stages = families
            for family, field in zip(plain, [*_COUNTERS, *_GAUGES], strict=True):
                family.add_metric([name], getattr(stats, field))
            for stage, seconds in stats.stages.items():
                stages.add_metric([name, stage], seconds)
        return families


def _families() -> list[CounterMetricFamily | GaugeMetricFamily]:
    """One of each counter and gauge, in their order, and last that of the stages."""
    counters = [CounterMetricFamily(_PREFIX + name, text, labels=["loader"]) for name, text in _COUNTERS.values()]
    gauges = [GaugeMetricFamily(_PREFIX + name, text, labels=["loader"]) for name, text in _GAUGES.values()]
    stages = CounterMetricFamily(_PREFIX + "stage_seconds", "What making batches took.", labels=["loader", "stage"])
    return [*counters, *gauges, stages]
