"""What Prometheus reads is what the loader says."""

import pytest

from latewood.loading import LoaderStats

pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")

from prometheus_client import CollectorRegistry, generate_latest

from latewood.loading.metrics import LoaderCollector


class Loader:
    """Its stats, as they would be in the middle of an epoch."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def stats(self) -> LoaderStats:
        stages = {"examples": 1.5, "plan": 2.5}
        return LoaderStats(self.batches, 20, 300, 12, 0.5, 8.0, 2.0, 4.0, stages, made_events=400, decoded_events=100)


def test_every_figure_is_there_under_its_loader() -> None:
    registry, train = CollectorRegistry(), Loader(3)
    registry.register(LoaderCollector({"train": train, "test": Loader(5)}))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"latewood_loader_{name}", {"loader": "train", **labels})

    assert value("batches_total") == 3
    assert registry.get_sample_value("latewood_loader_batches_total", {"loader": "test"}) == 5
    found = {name: value(f"{name}_total") for name in ("examples", "events", "made_events", "decoded_events")}
    assert found == {"examples": 20, "events": 300, "made_events": 400, "decoded_events": 100}
    times = [value(f"{name}_seconds_total") for name in ("elapsed", "wait", "idle")]
    assert times == [8.0, 2.0, 4.0]
    assert [value("stage_seconds_total", stage=stage) for stage in ("examples", "plan", "copy")] == [1.5, 2.5, None]
    gauges = ("first_batch_seconds", "starvation_ratio", "waste_ratio", "reuse_ratio", "users_per_batch")
    assert [value(name) for name in gauges] == [0.5, 0.25, 0.5, 4.0, 4.0]
    train.batches = 4
    assert value("batches_total") == 4


def test_the_text_names_each_metric_once() -> None:
    registry = CollectorRegistry()
    registry.register(LoaderCollector({"train": Loader(1), "test": Loader(1)}))
    text = generate_latest(registry).decode()
    helped = [line.split()[2] for line in text.splitlines() if line.startswith("# HELP")]
    assert len(helped) == len(set(helped)) == 14
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(LoaderCollector({"more": Loader(1)}))
