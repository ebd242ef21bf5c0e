"""The demo: a year of real purchases replayed as a live system would see them, then three models trained from one log.

`purchases` is the data, `live` the serving side (append, capture, compact), `tenants` the training side with every
sequence compared with the oracle, `table` what is printed. The second part is for data that brings its own ingest times:
`two_clocks` backfills from it, `live_clocks` replays it live.
"""

from latewood.demo.live import Replay, replay
from latewood.demo.live_clocks import LiveReplay, replay_two_clocks
from latewood.demo.purchases import Purchases, load_purchases
from latewood.demo.table import show
from latewood.demo.tenants import TENANTS, compare_tenants
from latewood.demo.two_clocks import compare_two_clocks

__all__ = [
    "TENANTS",
    "LiveReplay",
    "Purchases",
    "Replay",
    "compare_tenants",
    "compare_two_clocks",
    "load_purchases",
    "replay",
    "replay_two_clocks",
    "show",
]
