"""Verification: is a store what it says it is, and do examples materialize to what they must?

    report      what was looked at, and what is wrong
    stored      every generation's manifest, every byte of the newest one, the vocabulary
    recent      the mutable tier, and that nothing was lost between the tiers
    rederive    what examples must materialize to, by brute force from whole histories
    verify      all of it

Like `explain`, this judges the code that trains models and shares as little with it as it can.
"""

from latewood.verification.report import Difference, VerifyReport
from latewood.verification.verify import verify

__all__ = ["Difference", "VerifyReport", "verify"]
