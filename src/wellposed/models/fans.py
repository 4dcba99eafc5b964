"""What each dimension of a weight is for: its fans, and the matrices that it is read as."""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple, SupportsIndex

from torch import Tensor

from wellposed.errors import WellposedError


def several(dims: int | tuple[int, ...]) -> tuple[int, ...]:
    """Dimensions as a tuple, whether one was given or several."""
    return (dims,) if isinstance(dims, int) else dims


@dataclass(frozen=True, repr=False)
class Axes:
    """What each dimension of a weight is for.

    A layer sums over its input dimensions and makes its output dimensions. Dimensions that are neither, and not
    ``batch``, are the receptive field of a kernel: they count towards both fans. The defaults are those of
    ``torch.nn.Linear`` and of ordinary convolutions.

    Args:
        out: The output dimension or dimensions; may be ``()``.
        in_: The input dimension or dimensions; may be ``()``.
        batch: Dimensions that hold independent weights, such as the experts of a mixture.
        groups: How many independent weights lie side by side along dimension ``grouped``: the groups of a convolution,
            the query, key and value of a packed projection, the gates of a recurrent layer.
        grouped: The dimension along which they lie; ``None`` is the first output dimension.
        in_stride: One tap of the kernel in ``in_stride`` meets an input at a given output: the product of a transposed
            convolution's strides. Divides fan_in.
        out_stride: One tap in ``out_stride`` meets an output at a given input: the product of a convolution's strides.
            Divides fan_out.

    Raises:
        WellposedError: If a dimension is named twice, or a count is not positive.

    Example:
        >>> transposed = Axes(out=1, in_=0)  # weights of shape (in, out), as in `x @ w`
        >>> experts = Axes(out=1, in_=2, batch=0)
        >>> packed = Axes(groups=3)  # query, key and value, stacked along the output dimension
        >>> fans((5, 7), transposed), fans((8, 64, 16), experts), fans((48, 16), packed)
        ((5, 7), (16, 64), (16, 16))
    """

    out: int | tuple[int, ...] = 0
    in_: int | tuple[int, ...] = 1
    batch: int | tuple[int, ...] = ()
    groups: int = 1
    grouped: int | None = None
    in_stride: int = 1
    out_stride: int = 1

    def __post_init__(self) -> None:
        for name in ("out", "in_", "batch"):
            value = getattr(self, name)
            try:
                plain = tuple(map(operator.index, value)) if isinstance(value, Sequence) else operator.index(value)
            except TypeError:
                raise WellposedError(
                    f"Axes was given {name}={value!r}; expected a dimension's number or a tuple of them"
                ) from None
            object.__setattr__(self, name, plain)
        for name in ("groups", "in_stride", "out_stride"):
            count = getattr(self, name)
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise WellposedError(f"Axes was given {name}={count!r}; expected a whole number of at least 1")
        named = (*several(self.out), *several(self.in_), *several(self.batch))
        if len(set(named)) != len(named):
            raise WellposedError(f"{self} names a dimension twice; each is for out, in_, batch or the receptive field")

    def __repr__(self) -> str:
        shown = [f for f in fields(self) if f.name in ("out", "in_") or getattr(self, f.name) != f.default]
        return f"Axes({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in shown)})"

    def resolve(self, shape: Sequence[SupportsIndex]) -> "Dims":
        """The dimensions of a tensor of ``shape``, counted from 0 and sorted by what they are for.

        Args:
            shape: The tensor's shape.

        Returns:
            The dimensions for ``out``, ``in_``, ``batch`` and the receptive field, and the grouped one (``None`` for
            one group).

        Raises:
            WellposedError: If the shape lacks a dimension that is named, or cannot be divided into the groups.

        Example:
            >>> Axes().resolve((64, 32, 3, 3))
            Dims(out=(0,), in_=(1,), batch=(), field=(2, 3), grouped=None)
        """
        sizes = tuple(map(operator.index, shape))
        n = len(sizes)

        def counted(dims: int | tuple[int, ...]) -> tuple[int, ...]:
            missing = [d for d in several(dims) if not -n <= d < n]
            if missing:
                raise WellposedError(
                    f"a tensor of shape {sizes} has no dimension {missing[0]}, which "
                    f"{self} names; give axes that fit the shape, such as Axes(out=(), in_=0), or an initializer that "
                    "needs no fans, such as Zeros() or Normal(0, 0.02)"
                )
            return tuple(d % n for d in several(dims))

        out, in_, batch = counted(self.out), counted(self.in_), counted(self.batch)
        named = (*out, *in_, *batch)
        if len(set(named)) != len(named):
            raise WellposedError(f"{self} names a dimension of the shape {sizes} twice; count all from the same end")
        field = tuple(d for d in range(n) if d not in named)
        if self.groups == 1:
            return Dims(out, in_, batch, field, None)
        if self.grouped is None and not out:
            raise WellposedError(
                f"{self} has groups but no output dimension; name the dimension they lie along: grouped="
            )
        grouped = out[0] if self.grouped is None else counted(self.grouped)[0]
        if grouped not in (*out, *in_):
            raise WellposedError(f"{self} groups dimension {grouped}; expected one of its output or input dimensions")
        if sizes[grouped] % self.groups:
            raise WellposedError(
                f"dimension {grouped} of a tensor of shape {sizes} does not divide into {self.groups} groups; "
                "give a number of groups that divides it"
            )
        return Dims(out, in_, batch, field, grouped)


LINEAR = Axes()


class Dims(NamedTuple):
    """The dimensions of one tensor, counted from 0 and sorted by what they are for."""

    out: tuple[int, ...]
    in_: tuple[int, ...]
    batch: tuple[int, ...]
    field: tuple[int, ...]
    grouped: int | None


class Matrices(NamedTuple):
    """How a weight is read as a stack of matrices, one for each member of a batch and each group.

    Attributes:
        split: The weight's shape with the grouped dimension split into groups and members.
        dims: The dimensions of ``split``; the grouped one numbers the groups.
        stack: How many matrices there are.
        rows: The outputs of one.
        columns: The inputs of one, times the receptive field.
    """

    split: tuple[int, ...]
    dims: Dims
    stack: int
    rows: int
    columns: int

    @property
    def numbering(self) -> tuple[int, ...]:
        """The dimensions of ``split`` that number the matrices."""
        return self.dims.batch if self.dims.grouped is None else (*self.dims.batch, self.dims.grouped)

    @property
    def order(self) -> tuple[int, ...]:
        """The permutation of ``split`` to batch, groups, output, input and receptive field."""
        return (*self.numbering, *self.dims.out, *self.dims.in_, *self.dims.field)

    def of(self, weight: Tensor) -> Tensor:
        """The matrices of a weight, of shape (stack, rows, columns)."""
        return weight.reshape(self.split).permute(self.order).reshape(self.stack, self.rows, self.columns)

    def weight(self, values: Tensor, shape: Sequence[int]) -> Tensor:
        """The weight whose matrices are ``values``, of shape (stack, rows, columns)."""
        inverse = sorted(range(len(self.order)), key=self.order.__getitem__)
        return values.reshape([self.split[d] for d in self.order]).permute(inverse).reshape(tuple(shape))


def matrices(shape: Sequence[int], axes: Axes = LINEAR) -> Matrices:
    """Read a weight as a stack of matrices (output, input times receptive field).

    Example:
        >>> matrices((6, 4, 3, 3), Axes(groups=2))[2:]
        (2, 3, 36)
    """
    dims = axes.resolve(shape)
    split = list(shape)
    if dims.grouped is not None:
        g = dims.grouped
        split[g : g + 1] = [axes.groups, split[g] // axes.groups]
        out, in_, batch, field = (tuple(d + (d >= g) for d in kind) for kind in dims[:4])
        dims = Dims(out, in_, batch, field, g)
    sizes = [math.prod(split[d] for d in kind) for kind in dims[:4]]
    stack = sizes[2] * (1 if dims.grouped is None else axes.groups)
    return Matrices(tuple(split), dims, stack, sizes[0], sizes[1] * sizes[3])


def fans(shape: Sequence[SupportsIndex], axes: Axes = LINEAR) -> tuple[float, float]:
    """fan_in and fan_out: how many terms the sums through a weight have, into one output and back into one input.

    ``fan_in = prod(in_) * prod(field) / in_stride`` and ``fan_out = prod(out) * prod(field) / out_stride``, with the
    sizes of ``shape`` and the grouped dimension counted for one group.

    Args:
        shape: The weight's shape.
        axes: What its dimensions are for.

    Returns:
        The pair (fan_in, fan_out): whole numbers, or fractions where a stride does not divide the kernel.

    Raises:
        WellposedError: If the axes do not fit the shape.

    Example:
        >>> fans((64, 32, 3, 3))  # Conv2d(32, 64, 3)
        (288, 576)
        >>> fans((32, 1, 3, 3), Axes(groups=32))  # the same, depthwise
        (9, 9)
        >>> fans((32, 64, 4, 4), Axes(out=1, in_=0, in_stride=4))  # ConvTranspose2d(32, 64, 4, stride=2)
        (128, 1024)

    Source: fan_in and fan_out as in Glorot & Bengio (2010); the sums of a strided convolution as in Dumoulin & Visin
    (2016).
    """
    dims = axes.resolve(shape)
    sizes = [operator.index(size) for size in shape]
    if dims.grouped is not None:
        sizes[dims.grouped] //= axes.groups
    field = math.prod(sizes[d] for d in dims.field)
    fan_in = _ratio(math.prod(sizes[d] for d in dims.in_) * field, axes.in_stride)
    fan_out = _ratio(math.prod(sizes[d] for d in dims.out) * field, axes.out_stride)
    return fan_in, fan_out


def _ratio(count: int, stride: int) -> float:
    return count // stride if count % stride == 0 else count / stride
