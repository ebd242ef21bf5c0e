"""Migration: a team's Fat Rows beside what the store gives for the same requests, and every difference by its kind.

    mapping     where their files have what: columns, lists, fields of structs
    values      two columns made comparable: exactly, and but for representation
    match       which of their events is which of ours
    classify    why the rest has no counterpart
    report      counts and examples, to be shown
    shadow      all of it

Differences are the rule: most pipelines leak late events, cut lists, and lose a bit of a float. The point is to know
which, and how many, before anything is switched over.
"""

from latewood.migration.report import ShadowReport
from latewood.migration.shadow import shadow

__all__ = ["ShadowReport", "shadow"]
