"""Capture: from requests to examples, that is to recent events and a pointer to the rest (docs/protocol.md R8, R10, R11).

requests    what comes in, checked         capture     as the store knows it now: the serving read
recents     recent events ↔ Arrow          backfill    as the store knew it at each request's time
examples    the rows that both make            anchors     events as requests for what preceded them
places      which event an anchor is           counting    how many events each of many requests sees
"""

from latewood.capture.anchors import anchors
from latewood.capture.backfill import backfill
from latewood.capture.capture import Capture, capture
from latewood.capture.examples import read_examples
from latewood.capture.recents import recent_type, recents_to_arrow
from latewood.capture.requests import Requests, read_requests
from latewood.capture.store import CaptureStore

__all__ = [
    "Capture",
    "CaptureStore",
    "Requests",
    "anchors",
    "backfill",
    "capture",
    "read_examples",
    "read_requests",
    "recent_type",
    "recents_to_arrow",
]
