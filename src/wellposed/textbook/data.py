"""Two small sets of real data, so that the chapter runs with nothing to fetch."""

import gzip
from importlib.resources import files
from typing import NamedTuple

import torch
from torch import Tensor


class Data(NamedTuple):
    """A table split into what is given and what is asked.

    Args:
        x: Inputs, of shape (rows, columns).
        y: Targets, of shape (rows,).
        names: What the columns of ``x`` hold.
    """

    x: Tensor
    y: Tensor
    names: tuple[str, ...]


def digits() -> Data:
    """Handwritten digits: 1797 pictures of 8 by 8 pixels, and which digit each shows.

    Returns:
        ``x`` of shape (1797, 64), grey levels in [0, 1], row by row; ``y`` of whole numbers 0 to 9.

    Example:
        >>> digits().x.shape, digits().y[:5]
        (torch.Size([1797, 64]), tensor([0, 1, 2, 3, 4]))

    Source: Alpaydin and Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning Repository,
    doi 10.24432/C50P49, CC BY 4.0; the part for testing.
    """
    lines = gzip.decompress((files(__package__) / "data" / "digits.csv.gz").read_bytes()).decode().splitlines()
    table = torch.tensor([[int(entry) for entry in line.split(",")] for line in lines])
    names = tuple(f"row {i} column {j}" for i in range(8) for j in range(8))
    return Data(table[:, :-1] / 16, table[:, -1], names)


def diabetes() -> Data:
    """442 patients: age, sex, body mass index, blood pressure and six blood values, and how far their diabetes went.

    Returns:
        ``x`` of shape (442, 10), in the units of the source, float64; ``y``, a measure of the progression after a year.

    Example:
        >>> diabetes().x.shape, diabetes().names[:4]
        (torch.Size([442, 10]), ('age', 'sex', 'bmi', 'bp'))

    Source: Efron, Hastie, Johnstone and Tibshirani (2004), Least angle regression, doi 10.1214/009053604000000067.
    """
    head, *lines = (files(__package__) / "data" / "diabetes.csv").read_text().splitlines()
    table = torch.tensor([[float(entry) for entry in line.split(",")] for line in lines], dtype=torch.float64)
    return Data(table[:, :-1], table[:, -1], tuple(head.split(",")[:-1]))
