"""The first hour's way in: files or tables of old interactions → a store, in bounded memory.

    source     files or a table → batches          blame      which row a refused batch is refused for
    mapping    their columns → the store's         report     what was loaded
    load       all of it together

Reads Parquet, CSV, Arrow files or tables batch by batch, infers the schema and prints it as code to paste, and bulk-loads
straight into a generation. When each event was *learned* is never guessed: the caller names a column or an assumed delay
(docs/protocol.md R8).
"""

from latewood.ingestion.load import ingest, ingest_with_report
from latewood.ingestion.report import IngestReport

__all__ = ["IngestReport", "ingest", "ingest_with_report"]
