"""A report of a penalty's value, zeros and NaN steps, parameter by parameter."""

from dataclasses import dataclass

from wellposed.tabular import Table, Tabular


@dataclass(frozen=True)
class ReportRow:
    """One parameter.

    Args:
        name: Its name.
        shape: Its shape.
        penalty: The penalty, in words.
        value: The penalty's value at the parameter, times the schedule's factor.
        zeros: How many elements are exactly 0.
        elements: How many there are.
        nan_steps: At how many steps NaN was met.
    """

    name: str
    shape: tuple[int, ...]
    penalty: str
    value: float
    zeros: int
    elements: int
    nan_steps: int


@dataclass(frozen=True)
class PenaltyReport(Tabular[ReportRow]):
    """What a penalty has come to; prints as a table.

    Args:
        rows: One row for each penalised parameter.
        step: How many steps the optimizer has taken with it.
    """

    rows: tuple[ReportRow, ...]
    step: int

    def table(self) -> Table:
        """The rows as a table of text, and their sum."""
        head = ("parameter", "shape", "penalty", "value", "zeros", "NaN steps")
        body = [
            (r.name, str(r.shape), r.penalty, f"{r.value:.6g}", f"{r.zeros} of {r.elements}", str(r.nan_steps))
            for r in self
        ]
        total = sum(r.value for r in self), sum(r.zeros for r in self), sum(r.elements for r in self)
        end = f"total: {total[0]:.6g}, {total[1]} zeros of {total[2]}"
        return Table(f"after {self.step} steps", head, body, [end], measured=("value",))
