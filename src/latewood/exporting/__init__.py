"""Exporting: the ways out of a store, in bounded memory.

events      everything that was put in, as one file that `lw.ingest` reads back
fat_rows    materialized examples, for whoever still trains on Fat Rows
"""

from latewood.exporting.events import export_events
from latewood.exporting.fat_rows import FatRowsExport, export_fat_rows

__all__ = ["FatRowsExport", "export_events", "export_fat_rows"]
