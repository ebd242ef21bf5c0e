"""Loading: examples in an order, materialized ahead of the trainer, with a position that can be saved.

order ▸ steps, tokens ▸ feed ▸ together ▸ making ▸ prefetch. Which example stands where is a pure function of (seed, epoch,
index); a rank takes its share of each step; the feed reads many steps' examples at once; a thread materializes a few
batches ahead, and with `device` copies them. Stats say who waits for whom, `line` to people and `metrics` to Prometheus.
"""

from latewood.loading.loader import Loader
from latewood.loading.stats import LoaderStats

__all__ = ["Loader", "LoaderStats"]
