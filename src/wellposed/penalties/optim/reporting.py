"""A report of a penalty's value, zeros and NaN steps, parameter by parameter."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from wellposed.penalties.optim.selection import columns


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
class PenaltyReport:
    """What a penalty has come to; prints as a table.

    Args:
        rows: One row for each penalised parameter.
        step: How many steps the optimizer has taken with it.
    """

    rows: tuple[ReportRow, ...]
    step: int

    def __iter__(self) -> Iterator[ReportRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def to_dict(self) -> dict[str, Any]:
        """The report in plain numbers and text, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        head = ("parameter", "shape", "penalty", "value", "zeros", "NaN steps")
        body = [
            (r.name, str(r.shape), r.penalty, f"{r.value:.6g}", f"{r.zeros} of {r.elements}", str(r.nan_steps))
            for r in self
        ]
        total = sum(r.value for r in self), sum(r.zeros for r in self), sum(r.elements for r in self)
        end = ("total", "", "", f"{total[0]:.6g}", f"{total[1]} of {total[2]}", "")
        return "\n".join([f"after {self.step} steps", *columns(head, *body, end)])
