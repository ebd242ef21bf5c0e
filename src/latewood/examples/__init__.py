"""Examples at rest: the log they are written to, the view they are read through, and Fat Rows, the baseline.

An example is one request with its features, labels, recent events and pointer. Any table that has them will do; the
log is only the layout that a trainer reads fastest.

log, encode   the log's layout, and its files' bytes       files           where files lie
footer        checksums that Parquet does not have         checked         files that look at them
source        examples by row, wherever they lie           rewrite         a log's examples changed in place
align         files of different times as one              fat_rows        the baseline
"""

from latewood.examples.fat_rows import FatRows, FatRowWriter, write_fat_rows
from latewood.examples.log import ExampleLog
from latewood.examples.rewrite import rewrite_log
from latewood.examples.source import ExampleSource, open_examples

__all__ = ["ExampleLog", "ExampleSource", "FatRowWriter", "FatRows", "open_examples", "rewrite_log", "write_fat_rows"]
