"""Which differences between scores a study states: those that its seeds tell from chance."""

from dataclasses import dataclass

from wellposed.study.estimate import Estimate, clear, difference
from wellposed.study.results.summary import Summary
from wellposed.study.training.measures import BALANCED
from wellposed.study.training.splits import PARTS
from wellposed.study.wording import Wording

_PRINTED = 1e-3  # scores are printed to so many
Sentence = str | None


@dataclass(frozen=True)
class Judge:
    """Words scores, and tests differences between them for significance.

    Attributes:
        wording: How scores are written.
        step: The least difference that a score can show.
        rows: How many training rows penalties and p are compared on.
    """

    wording: Wording
    step: float
    rows: int = 0

    def clear(self, change: Estimate) -> bool:
        """Whether the seeds tell a difference from chance."""
        return clear(change, self.step)

    def above(self, a: Estimate, b: Estimate) -> bool:
        """Whether a is clearly above b."""
        change = difference(a, b)
        return self.clear(change) and (change["mean"] or 0.0) > 0


def judge_of(results: Summary) -> Judge:
    """The judge of a study's scores, from what ``results.json`` holds of its data."""
    data, few = results["data"], results["design"]["regimes"]["few"]
    rows = min(data["counts"]) * len(data["counts"]) if data["measure"] == BALANCED else data["rows"]
    return Judge(Wording(data["measure"]), max(1 / (PARTS["test"] * rows), _PRINTED), few["rows"])
