"""Explain: why an event is, or is not, in the sequence of a request.

    request     what was asked, as of when: from a request's times, or from a logged example
    verdict     the answer, for people and as facts
    why         from the raw rows of both tiers to verdicts, compared with what a model would be given

The answer comes from the rows themselves, by the rules of docs/protocol.md, and never through the code that trains
models: so it explains that code's mistakes too.
"""

from latewood.explain.verdict import Kind, Verdict
from latewood.explain.why import why

__all__ = ["Kind", "Verdict", "why"]
