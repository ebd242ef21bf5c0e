"""Test tools for users as well: the Fat Row oracle, a comparison of tables bit for bit, a clock to set by hand.

Hypothesis strategies are in `latewood.testing.strategies`, which alone needs hypothesis.
"""

from latewood.testing.clock import ManualClock
from latewood.testing.compare import different_rows
from latewood.testing.oracle import Oracle, fat_rows

__all__ = ["ManualClock", "Oracle", "different_rows", "fat_rows"]
