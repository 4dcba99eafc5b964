"""Which differences between scores a study states: those that its seeds tell from chance."""

from dataclasses import dataclass

from wellposed.study.estimate import Estimate, clear, difference
from wellposed.study.wording import Wording

Sentence = str | None


@dataclass(frozen=True)
class Judge:
    """Words scores, and tests differences between them for significance.

    Attributes:
        wording: How scores are written.
        step: The least difference that a score can show.
    """

    wording: Wording
    step: float

    def clear(self, change: Estimate) -> bool:
        """Whether the seeds tell a difference from chance."""
        return clear(change, self.step)

    def above(self, a: Estimate, b: Estimate) -> bool:
        """Whether a is clearly above b."""
        change = difference(a, b)
        return self.clear(change) and (change["mean"] or 0.0) > 0
