"""How many terms a product of two signals sums over."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

_THIRD = {"addmm", "baddbmm", "addbmm"}  # what is added to the product comes first


def terms(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int | None:
    """How many terms each entry of a product is the sum of.

    Args:
        name: The operation's plain name.
        args: Its arguments, with tensors of any memory.
        kwargs: Its keyword arguments.

    Returns:
        The number; ``None`` where the tensors' shapes are not known.

    Example:
        >>> import torch
        >>> q, k = torch.empty(2, 8, 5, 64), torch.empty(2, 8, 7, 64)
        >>> terms("matmul", [q, k.mT], {}), terms("einsum", ["bhqd,bhkd->bhqk", q, k], {}), terms("matmul", [None], {})
        (64, 64, None)
    """
    values = [*args, *kwargs.values()]
    if name == "einsum":
        return _of_equation(values)
    tensors = [value for value in values if isinstance(value, Tensor)]
    place = 1 if name in _THIRD else 0
    return tensors[place].shape[-1] if len(tensors) == 2 + place and tensors[place].ndim else None


def _of_equation(values: Sequence[Any]) -> int | None:
    equation, *operands = [*values[:1], *(values[1] if isinstance(values[1], list | tuple) else values[1:])]
    if not isinstance(equation, str) or "->" not in equation:
        return None
    inputs, output = equation.replace(" ", "").replace("...", "").split("->")
    sizes: dict[str, int] = {}
    for labels, operand in zip(inputs.split(","), operands, strict=False):
        if not isinstance(operand, Tensor):
            return None
        sizes |= dict(zip(reversed(labels), reversed(operand.shape), strict=False))  # dots stand for the first ones
    product = 1
    for label in set(sizes) - set(output):
        product *= sizes[label]
    return product
