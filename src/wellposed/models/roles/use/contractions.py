"""Views of parameters on their way into an operation: which dimensions it sums over, and the axes that follow."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from wellposed._torch import tree_leaves
from wellposed.models.fans import Axes


@dataclass(frozen=True)
class Made:
    """What was made from the model's input, or from a parameter that has entered already.

    Attributes:
        tables: The embeddings whose rows it holds as they are, or sums of them.
        summed: Whether other signals were added to them.
    """

    tables: frozenset[str] = frozenset()
    summed: bool = False


@dataclass(frozen=True, eq=False)
class View:
    """What was made from a parameter alone, on its way into the forward pass.

    Attributes:
        name: The parameter's path.
        shape: Its shape.
        tensor: A tensor without memory whose strides tell which of the parameter's dimensions it has where; ``None``
            where they cannot be told any more.
        offset: What was added to it.
        curved: Whether it went through a function that is not linear.
        gathered: Whether entries of it were picked by an index.
        beside: What lies in the same tensor, where several parameters were joined.
    """

    name: str
    shape: tuple[int, ...]
    tensor: Tensor | None
    offset: float = 0.0
    curved: bool = False
    gathered: bool = False
    beside: "tuple[View, ...]" = ()

    @classmethod
    def of(cls, name: str, parameter: Tensor) -> "View":
        """A whole parameter."""
        return cls(name, tuple(parameter.shape), marked(parameter.shape))


@dataclass(frozen=True)
class Contraction:
    """What an operation does with the dimensions of one of its operands.

    Attributes:
        out: Those that it leaves in its result.
        in_: Those that it sums over.
        field: Those that are a kernel's.
        left: Whether the operand stands on the left, where inputs stand as a rule.
        stride: The product of a convolution's strides.
        groups: The groups of a convolution.
        transposed: Whether the convolution is a transposed one.
    """

    out: tuple[int, ...]
    in_: tuple[int, ...]
    field: tuple[int, ...] = ()
    left: bool = False
    stride: int = 1
    groups: int = 1
    transposed: bool = False


_MATRIX = frozenset(("matmul", "mm", "bmm", "mv", "dot", "inner", "addmm", "addbmm", "baddbmm", "addmv", "grouped_mm"))


def contracted(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[tuple[Any, Contraction]]:
    """The operands of a product that stand for parameters, and what it does with their dimensions.

    Args:
        name: The operation's plain name.
        args: Its arguments; those that stand for parameters have a ``tensor`` and a ``shape``.
        kwargs: Its keyword arguments.

    Returns:
        Each such operand, if it is one that the operation sums over.
    """
    values = [*args, *kwargs.values()]
    if name == "linear":
        return _kept(_get(args, kwargs, 1, "weight"), lambda n: Contraction(tuple(range(n - 1)), (n - 1,)))
    if name == "bilinear":
        return _kept(_get(args, kwargs, 2, "weight"), lambda n: Contraction((0,), (1, 2)))
    if name.startswith("conv"):
        return _kept(_get(args, kwargs, 1, "weight"), lambda n: _convolution(name, n, args, kwargs))
    if name == "einsum":
        return _einsum(values)
    if name == "tensordot":
        return _tensordot(args, kwargs)
    if name.lstrip("_") in _MATRIX:  # the grouped product goes by a name of torch's own, too
        left, right = values[1:3] if name.startswith(("add", "baddbmm")) else values[:2]
        on_the_right = _by_rows if name == "inner" else _by_columns
        return [*_kept(left, lambda n: replace(_by_rows(n), left=True)), *_kept(right, on_the_right)]
    return []


def _by_rows(n: int) -> Contraction:
    return Contraction((n - 2,) if n > 1 else (), (n - 1,))


def _by_columns(n: int) -> Contraction:
    return Contraction((n - 1,), (n - 2,)) if n > 1 else Contraction((), (0,))


def axes(shape: Sequence[int], view: Tensor, contraction: Contraction) -> Axes:
    """The axes of a parameter of which a view is contracted.

    Dimensions of the parameter that the operation neither sums over nor makes, such as an expert's that was picked, are
    independent weights.

    Args:
        shape: The parameter's shape.
        view: Its view, made from :func:`marked`.
        contraction: What is done with the view's dimensions.

    Returns:
        The axes.
    """
    n = len(shape)
    base = marked(shape)
    in_ = _covered(base, view, contraction.in_)
    out = tuple(d for d in _covered(base, view, contraction.out) if d not in in_)
    field = _covered(base, view, contraction.field)
    batch = tuple(d for d in range(n) if d not in (*in_, *out, *field) and shape[d] > 1)
    strides = {"in_stride" if contraction.transposed else "out_stride": contraction.stride}
    grouped = {"grouped": in_[0]} if contraction.transposed and contraction.groups > 1 and in_ else {}
    return Axes(_plain(out), _plain(in_), _plain(batch), contraction.groups, **strides, **grouped)


def marked(shape: Sequence[int]) -> Tensor:
    """A tensor without memory whose even strides tell its dimensions; a copy of it has an odd one."""
    strides, step = [], 2
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return torch.empty_strided(tuple(shape), strides[::-1], device="meta")


def is_view(tensor: Tensor) -> bool:
    """Whether a tensor is a view of a marked one."""
    return all(step % 2 == 0 for size, step in zip(tensor.shape, tensor.stride(), strict=True) if size > 1)


def _covered(base: Tensor, view: Tensor, dims: Sequence[int]) -> tuple[int, ...]:
    """The dimensions of a parameter that lie in dimensions of its view: their strides overlap."""
    if (view.shape, view.stride()) == (base.shape, base.stride()):
        return tuple(dims)

    def overlap(d: int, v: int) -> bool:
        first, last = base.stride(d), base.stride(d) * base.shape[d]
        return max(first, view.stride(v)) < min(last, view.stride(v) * view.shape[v])

    return tuple(d for d in range(base.ndim) if any(overlap(d, v) for v in dims if v < view.ndim))


def _plain(dims: tuple[int, ...]) -> int | tuple[int, ...]:
    return dims[0] if len(dims) == 1 else dims


def _kept(operand: Any, made: Any) -> list[tuple[Any, Contraction]]:
    if not hasattr(operand, "tensor"):
        return []
    n = len(operand.shape) if operand.tensor is None else operand.tensor.ndim
    return [(operand, made(n))] if n else []


def _get(args: Sequence[Any], kwargs: Mapping[str, Any], place: int, name: str, default: Any = None) -> Any:
    return args[place] if len(args) > place else kwargs.get(name, default)


def _convolution(name: str, n: int, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Contraction:
    transposed, field = "transpose" in name, tuple(range(2, n))
    stride, groups = _get(args, kwargs, 3, "stride", 1), _get(args, kwargs, 6, "groups", 1)
    steps = [step for step in tree_leaves(stride) if isinstance(step, int)]
    product = math.prod(steps) if len(steps) == len(field) else (steps[0] if steps else 1) ** len(field)
    out, in_ = ((1,), (0,)) if transposed else ((0,), (1,))
    return Contraction(out, in_, field, False, product, groups if isinstance(groups, int) else 1, transposed)


def _einsum(values: Sequence[Any]) -> list[tuple[Any, Contraction]]:
    equation, *operands = values
    if not isinstance(equation, str):
        return []
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = list(operands[0])
    given, arrow, result = equation.replace(" ", "").replace("...", "").partition("->")
    terms = given.split(",")
    if not arrow:
        letters = "".join(terms)
        result = "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1))
    found = []
    for i, (term, operand) in enumerate(zip(terms, operands, strict=False)):
        others = "".join(terms[:i] + terms[i + 1 :])
        in_ = tuple(d for d, letter in enumerate(term) if letter not in result)
        out = tuple(d for d, letter in enumerate(term) if letter in result and letter not in others)
        if in_:
            found += _kept(operand, lambda n, out=out, in_=in_, i=i: Contraction(out, in_, left=i == 0))
    return found


def _tensordot(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[tuple[Any, Contraction]]:
    dims = _get(args, kwargs, 2, "dims", 2)
    found = []
    for i, operand in enumerate(args[:2]):

        def made(n: int, i: int = i) -> Contraction:
            if isinstance(dims, int):
                in_ = tuple(range(n - dims, n)) if i == 0 else tuple(range(dims))
            else:
                in_ = tuple(d % n for d in tree_leaves(dims[i]))
            return Contraction(tuple(d for d in range(n) if d not in in_), in_, left=i == 0)

        found += _kept(operand, made)
    return found
