"""Capture: from requests to examples, that is to recent events and a pointer to the rest (docs/protocol.md R8, R10, R11).

requests    what comes in, checked         capture     as the store knows it now: the serving read
examples    both tiers, read as one            backfill    as the store knew it at each request's time
message     the columns that are added         anchors     events as requests for what preceded them
plan, body  ... their layout, their bytes      counting    how many events each of many requests sees
recents     ... the type of recent events      places      which event an anchor is
                                               sequences   each user's events of a period as targets of one example
                                               grouping    many requests of a user as one example
"""

from latewood.capture.anchors import anchors
from latewood.capture.backfill import backfill
from latewood.capture.capture import Capture, capture
from latewood.capture.examples import read_examples
from latewood.capture.grouping import groups, requests_in
from latewood.capture.recents import recent_type
from latewood.capture.requests import Requests, read_requests
from latewood.capture.sequences import sequences, target_mask
from latewood.capture.store import CaptureStore

__all__ = [
    "Capture",
    "CaptureStore",
    "Requests",
    "anchors",
    "backfill",
    "capture",
    "groups",
    "read_examples",
    "read_requests",
    "recent_type",
    "requests_in",
    "sequences",
    "target_mask",
]
