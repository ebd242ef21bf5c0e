"""The demo: a year of real purchases replayed as a live system would see them, then three models trained from one log.

`purchases` is the data, `live` the serving side (append, capture, compact), `tenants` the training side with every
sequence compared with the oracle, `table` what is printed; `two_clocks` is the second part, for data that brings its own
ingest times.
"""

from latewood.demo.live import Replay, replay
from latewood.demo.purchases import Purchases, load_purchases
from latewood.demo.table import show
from latewood.demo.tenants import TENANTS, compare_tenants
from latewood.demo.two_clocks import compare_two_clocks

__all__ = [
    "TENANTS",
    "Purchases",
    "Replay",
    "compare_tenants",
    "compare_two_clocks",
    "load_purchases",
    "replay",
    "show",
]
