"""Recent events as an example carries them: one struct of lists per example, with plain values.

The lists are both clocks, the ordinal (the event's place among equals) and every trait of the live schema, named by its
label, which no change of names touches. Plain values, not codes: an example log outlives the store's vocabulary and is
read by people. One more list, `supersedes`, has the places of those stored events that a correction or deletion took the
place of, which was recent itself, whether or not the new version is in range (docs/protocol.md R13).
"""

import pyarrow as pa

from latewood.pointer import PLACE_TYPE
from latewood.schema import TIME_TYPE, Schema

SUPERSEDES = "supersedes"


def recent_type(schema: Schema) -> pa.StructType:
    """The type of the `recent` column."""
    clocks = [("event_ts", TIME_TYPE), ("ingest_ts", TIME_TYPE), ("ordinal", pa.int32())]
    traits = [(trait.label, trait.value_type) for trait in schema]
    fields = [*clocks, *traits, (SUPERSEDES, PLACE_TYPE)]
    return pa.struct([pa.field(name, pa.list_(type_), nullable=False) for name, type_ in fields])
