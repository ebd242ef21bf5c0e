"""Stripes: bytes ↔ columns. The file format of the long history, its kernels, the shard writer and reader.

A shard file holds users in key order; of each user, column by column, stripes of 256 consecutive events.

    layout      where every byte lies          encode, pack      columns → stripes
    writer      UserRun → file                 decode, unpack    stripes → columns
    shard       file → checked address table   checksum          XXH64 of blocks
    runs        the arguments                  identity          the event hash of docs/protocol.md R18
    validate    every invariant, on opening    verify            everything, on demand
    superseded  the hidden column              addresses         memory by address, for kernels
    lists       stripes of lists → columns     items             their items ↔ bytes
    gather      items from a pool, compact     search            which rows meet conditions
    pick        values of single rows          running           sums of steps, for pick
    unroll      whole stripes, fast            widths            code for every width
    match       values in an interval, for search
    located     where ranges lie, for decode
"""

from latewood.stripes.decode import Output, decode_column, decode_columns
from latewood.stripes.gather import gather_items, gather_lists
from latewood.stripes.identity import identities, identity
from latewood.stripes.layout import (
    BLOCK_STRIPES,
    DELAY,
    EVENT_TS,
    FIRST_TRAIT,
    NEVER_CLEAN,
    ORDINAL,
    STRIPE_EVENTS,
    StripeColumn,
    column_index,
    columns_of,
    fields_of,
    superseded_index,
)
from latewood.stripes.lists import DecodedLists, ListsOutput, decode_list_column, decode_lists
from latewood.stripes.runs import Carried, Ranges, ShardSummary, UserRun, plain
from latewood.stripes.shard import Shard, Tables
from latewood.stripes.superseded import superseded_column, superseded_times
from latewood.stripes.writer import ShardWriter

__all__ = [
    "BLOCK_STRIPES",
    "DELAY",
    "EVENT_TS",
    "FIRST_TRAIT",
    "NEVER_CLEAN",
    "ORDINAL",
    "STRIPE_EVENTS",
    "Carried",
    "DecodedLists",
    "ListsOutput",
    "Output",
    "Ranges",
    "Shard",
    "ShardSummary",
    "ShardWriter",
    "StripeColumn",
    "Tables",
    "UserRun",
    "column_index",
    "columns_of",
    "decode_column",
    "decode_columns",
    "decode_list_column",
    "decode_lists",
    "fields_of",
    "gather_items",
    "gather_lists",
    "identities",
    "identity",
    "plain",
    "superseded_column",
    "superseded_index",
    "superseded_times",
]
