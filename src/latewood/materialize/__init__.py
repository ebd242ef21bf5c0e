"""Materialize: examples + projection → the exact sequences that the requests saw.

    store             what is needed of one
    look_up           the examples' pointers, in the generation that answers them: the first half ▸ resolved
    view              the projection, as the store's schema of now understands it
    logged, recents   what the examples say: pointers and recent events, checked
    regular           the same of examples as capture writes them, in one go
    suppress          which stored rows the recent events took the place of
    retained          which pointers retention left enough of
    choose            which stored rows and recent events compete for each output
    merge             where recent events belong among stored ones
    split             what is decoded straight to where it belongs
    plan              what is decoded once and shared, and where it goes
    fetch             the bytes, to where kernels can read them
    assemble          what is copied to complete each output
    decode            trait by trait, straight into the output
    pieces            instead of choose to decode, where users come seldom twice: everything straight to its place
    straight          all of that in two calls, where an example is one run of stored rows and nothing else
    streams           instead, where conditions choose: compile ▸ find the events that meet them ▸ pick their columns
    window            histories that are decoded once for many batches
    ids               integers instead of their codes, where they are wanted
    checks            how often checksums are checked
    buffers           memory that is used again
    statistics        what it cost
    materializer      all of it, in order

Never imports the mutable tier: an example carries its recent events.
"""

from latewood.materialize.checks import Verify
from latewood.materialize.materializer import Materializer
from latewood.materialize.resolved import Resolved, Shown
from latewood.materialize.statistics import Statistics
from latewood.materialize.store import MaterializeStore, require_store, schema_for
from latewood.materialize.window import Window

__all__ = [
    "MaterializeStore",
    "Materializer",
    "Resolved",
    "Shown",
    "Statistics",
    "Verify",
    "Window",
    "require_store",
    "schema_for",
]
