"""Initializers that look at a weight as a whole: orthogonal, identity and sparse ones."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from wellposed import random
from wellposed.errors import WellposedError
from wellposed.init.initializers.initializer import Initializer
from wellposed.models.fans import LINEAR, Axes, Dims
from wellposed.random.box import Box, layout
from wellposed.random.key import Key
from wellposed.random.shards import local_block


class Matrices(NamedTuple):
    """How a weight is read as a stack of matrices, one for each member of a batch and each group.

    Attributes:
        split: The weight's shape with the grouped dimension split into groups and members.
        order: The permutation of ``split`` to batch, groups, output, input and receptive field.
        stack: How many matrices there are.
        rows: The outputs of one.
        columns: The inputs of one, times the receptive field.
    """

    split: tuple[int, ...]
    order: tuple[int, ...]
    stack: int
    rows: int
    columns: int

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
    if dims.grouped is None:
        named = Dims(dims.out, dims.in_, dims.batch, dims.field, None)
        groups: tuple[int, ...] = ()
    else:
        g = dims.grouped
        split[g : g + 1] = [axes.groups, split[g] // axes.groups]
        out, in_, batch, field = (tuple(d + (d >= g) for d in group) for group in dims[:4])
        named = Dims(out, in_, batch, field, None)
        groups = (g,)
    sizes = [math.prod(split[d] for d in group) for group in named[:4]]
    order = (*named.batch, *groups, *named.out, *named.in_, *named.field)
    return Matrices(tuple(split), order, sizes[2] * math.prod(split[d] for d in groups), sizes[0], sizes[1] * sizes[3])


class Whole(Initializer):
    """An initializer that makes a weight as a whole; a box of it is cut out."""

    def fill_(self, tensor: Tensor, key: Key, *, axes: Axes = LINEAR, box: Box | None = None) -> Tensor:
        """Fill a tensor in place; of a box, the whole is made first and is let go."""
        if not tensor.is_floating_point():
            raise WellposedError(
                f"{self} was given a tensor of dtype {tensor.dtype}, which cannot hold its values; use a float dtype"
            )
        local, box = local_block(tensor, box)
        layout(local.shape, box)
        shape = tuple(tensor.shape) if box is None else box.shape
        offset = (0,) * len(shape) if box is None else box.offset
        if 0 not in shape:
            self._check(shape, axes)
        if local.is_meta or local.numel() == 0:
            return tensor
        block = tuple(slice(o, o + n) for o, n in zip(offset, local.shape, strict=True))
        with torch.no_grad():
            local.copy_(self._whole(shape, axes, key, local)[block])
        return tensor

    def _check(self, shape: tuple[int, ...], axes: Axes) -> None:
        axes.resolve(shape)

    @abstractmethod
    def _whole(self, shape: tuple[int, ...], axes: Axes, key: Key, like: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Orthogonal(Whole):
    """A (semi-)orthogonal matrix, uniformly distributed (Haar), times ``gain``.

    A weight is read as a matrix of outputs times inputs and receptive field, one for each member of a batch and each
    group. Its rows are orthonormal where they are the fewer, else its columns.

    Args:
        gain: The factor, at least 0.

    Raises:
        WellposedError: If the gain is negative or not finite.

    Example:
        >>> import wellposed as wp
        >>> q = wp.init.Orthogonal()((3, 5), wp.Key(0), dtype=torch.float64)
        >>> torch.allclose(q @ q.T, torch.eye(3, dtype=torch.float64))
        True

    Source: Saxe et al. (2014); the distribution, Mezzadri (2007). The last bits are those of the linear algebra library
    that torch was built with.
    """

    gain: float = 1.0

    def __post_init__(self) -> None:
        _check_gain(self, self.gain)

    def _whole(self, shape: tuple[int, ...], axes: Axes, key: Key, like: Tensor) -> Tensor:
        m = matrices(shape, axes)
        return m.weight(haar(m.stack, m.rows, m.columns, key, like).mul_(self.gain), shape)

    def std_for(self, shape: Sequence[int], axes: Axes = LINEAR) -> float:
        """The standard deviation of an entry: gain / sqrt(the longer side of the matrix)."""
        m = matrices(shape, axes)
        return self.gain / math.sqrt(max(m.rows, m.columns, 1))


@dataclass(frozen=True)
class DeltaOrthogonal(Whole):
    """A convolution that is an orthogonal matrix at the centre of its kernel and 0 elsewhere.

    Args:
        gain: The factor, at least 0.

    Raises:
        WellposedError: If the gain is negative or not finite; when it is used, if the weight has no receptive field or
            fewer outputs than inputs, which no kernel of this kind can carry.

    Example:
        >>> import wellposed as wp
        >>> wp.init.DeltaOrthogonal()((8, 4, 3, 3), wp.Key(0))[:, :, 1, 1].norm().round()
        tensor(2.)

    Source: Xiao et al. (2018).
    """

    gain: float = 1.0

    def __post_init__(self) -> None:
        _check_gain(self, self.gain)

    def _check(self, shape: tuple[int, ...], axes: Axes) -> None:
        dims, m = axes.resolve(shape), matrices(shape, axes)
        field = math.prod(shape[d] for d in dims.field)
        if not dims.field or m.rows * field < m.columns:
            raise WellposedError(
                f"{self} was given a weight of shape {shape} with {axes}; expected a kernel with at least as many "
                "outputs as inputs: use Orthogonal()"
            )

    def _whole(self, shape: tuple[int, ...], axes: Axes, key: Key, like: Tensor) -> Tensor:
        m, field = matrices(shape, axes), [shape[d] for d in axes.resolve(shape).field]
        inputs = m.columns // math.prod(field)
        centre = haar(m.stack, m.rows, inputs, key, like).mul_(self.gain)
        kernel = centre.new_zeros(m.stack, m.rows, inputs, *field)
        place: tuple[Any, ...] = (..., *((size - 1) // 2 for size in field))
        kernel[place] = centre
        return m.weight(kernel, shape)

    def std_for(self, shape: Sequence[int], axes: Axes = LINEAR) -> float:
        """The root mean square of the entries, zeros included."""
        m = matrices(shape, axes)
        field = math.prod(shape[d] for d in axes.resolve(shape).field)
        return self.gain / math.sqrt(max(m.rows, 1) * max(field, 1))


@dataclass(frozen=True)
class Identity(Whole):
    """The identity matrix times ``gain``; of a weight that is not square, as much of it as there is.

    Args:
        gain: The factor.

    Raises:
        WellposedError: If the gain is not finite; when it is used, if the weight has a receptive field.

    Example:
        >>> import wellposed as wp
        >>> wp.init.Identity()((2, 3), wp.Key(0))
        tensor([[1., 0., 0.],
                [0., 1., 0.]])
    """

    keyed: ClassVar[bool] = False
    gain: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.gain):
            raise WellposedError(f"{self} was given; expected a finite gain")

    def _check(self, shape: tuple[int, ...], axes: Axes) -> None:
        if axes.resolve(shape).field:
            raise WellposedError(
                f"{self} was given a kernel of shape {shape}; use Dirac(), which has one at its centre"
            )

    def _whole(self, shape: tuple[int, ...], axes: Axes, key: Key, like: Tensor) -> Tensor:
        m = matrices(shape, axes)
        one = torch.eye(m.rows, m.columns, dtype=like.dtype, device=like.device).mul_(self.gain)
        return m.weight(one.expand(m.stack, m.rows, m.columns), shape)

    def std_for(self, shape: Sequence[int], axes: Axes = LINEAR) -> float:
        """The standard deviation over all entries."""
        m = matrices(shape, axes)
        share = min(m.rows, m.columns) / max(m.rows * m.columns, 1)
        return abs(self.gain) * math.sqrt(share * (1 - share))


@dataclass(frozen=True)
class Dirac(Whole):
    """A convolution that hands its input on: 1 at the centre of the kernel from input i to output i, 0 elsewhere.

    Args:
        groups: Into how many groups the outputs are divided, each of which gets all inputs anew. Axes that have groups
            of their own need none here.

    Raises:
        WellposedError: If groups is not positive; when it is used, if the weight has no receptive field or the
            outputs do not divide into the groups.

    Example:
        >>> import wellposed as wp
        >>> wp.init.Dirac()((2, 2, 3), wp.Key(0))[0]
        tensor([[0., 1., 0.],
                [0., 0., 0.]])

    Source: torch.nn.init.dirac_, whose values these are.
    """

    keyed: ClassVar[bool] = False
    groups: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.groups, bool) or not isinstance(self.groups, int) or self.groups < 1:
            raise WellposedError(f"{self} was given; expected a whole number of groups of at least 1")

    def _check(self, shape: tuple[int, ...], axes: Axes) -> None:
        m = matrices(shape, axes)
        if not axes.resolve(shape).field or m.rows % self.groups:
            raise WellposedError(
                f"{self} was given a weight of shape {shape}; expected a kernel whose outputs divide into "
                f"{self.groups} groups, or use Identity()"
            )

    def _whole(self, shape: tuple[int, ...], axes: Axes, key: Key, like: Tensor) -> Tensor:
        m, field = matrices(shape, axes), [shape[d] for d in axes.resolve(shape).field]
        inputs, members = m.columns // max(math.prod(field), 1), m.rows // self.groups
        kernel = torch.zeros(m.stack, self.groups, members, inputs, *field, dtype=like.dtype, device=like.device)
        d = torch.arange(min(members, inputs), device=like.device)
        place: tuple[Any, ...] = (slice(None), slice(None), d, d, *(size // 2 for size in field))
        kernel[place] = 1
        return m.weight(kernel, shape)

    def std_for(self, shape: Sequence[int], axes: Axes = LINEAR) -> float:
        """The standard deviation over all entries."""
        m = matrices(shape, axes)
        field = math.prod(shape[d] for d in axes.resolve(shape).field)
        ones = self.groups * min(m.rows // self.groups, m.columns // max(field, 1))
        share = ones / max(m.rows * m.columns, 1)
        return math.sqrt(share * (1 - share))


@dataclass(frozen=True)
class Sparse(Whole):
    """Entries normal, of which a fixed share of each column, chosen by the key, is 0.

    Args:
        sparsity: The share of zeros in each column (of the outputs of one input), in [0, 1], rounded up.
        std: The standard deviation of the others.

    Raises:
        WellposedError: If the sparsity is not in [0, 1], or std is negative or not finite.

    Example:
        >>> import wellposed as wp
        >>> int((wp.init.Sparse(0.5)((10, 4), wp.Key(0)) == 0).sum())
        20

    Source: Martens (2010).
    """

    sparsity: float
    std: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity <= 1 or not 0 <= self.std < math.inf:
            raise WellposedError(f"{self} was given; expected a sparsity in [0, 1] and a finite std of at least 0")

    def _zeros(self, rows: int) -> int:
        return math.ceil(self.sparsity * rows)

    def _whole(self, shape: tuple[int, ...], axes: Axes, key: Key, like: Tensor) -> Tensor:
        m = matrices(shape, axes)
        stack = torch.empty(m.stack, m.rows, m.columns, dtype=like.dtype, device=like.device)
        random.normal_(stack, key, 0.0, self.std)
        rank = random.uniform(tuple(stack.shape), key.fold("zeros"), dtype=torch.float64, device=like.device)
        first = rank.argsort(dim=1)[:, : self._zeros(m.rows)]
        return m.weight(stack.scatter_(1, first, 0.0), shape)

    def std_for(self, shape: Sequence[int], axes: Axes = LINEAR) -> float:
        """The standard deviation of an entry, zeros included."""
        rows = matrices(shape, axes).rows
        return self.std * math.sqrt(1 - self._zeros(rows) / rows) if rows else self.std


def haar(count: int, rows: int, columns: int, key: Key, like: Tensor) -> Tensor:
    """Matrices with orthonormal rows or columns, whichever are the fewer, uniformly distributed.

    The orthogonal factor of a normal matrix is uniform once the triangular one has a positive diagonal. Its k-th
    reflection is that of a normal vector which the reflections before it do not touch, so the vectors are drawn as they
    are and nothing is factorised.

    Args:
        count: How many.
        rows: Of each.
        columns: Of each.
        key: The stream of the normal numbers that they are made from.
        like: A tensor of the device; float64 is computed in float64, all else in float32.

    Returns:
        Of shape (count, rows, columns), float64 or float32.

    Source: Stewart (1980); Mezzadri (2007).
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    long, short = max(rows, columns), min(rows, columns)
    vectors = random.normal((count, long, short), key, dtype=dtype, device=like.device).tril_()
    first = vectors.diagonal(dim1=-2, dim2=-1).to(torch.float64)
    image = -torch.linalg.vector_norm(vectors, dim=-2, dtype=torch.float64).copysign(first)
    empty = image == 0  # the vector of one entry that may be exactly 0: any sign will do
    first, image = first.masked_fill(empty, 1.0), image.masked_fill(empty, -1.0)
    weights = ((image - first) / image).to(dtype)
    vectors /= (first - image).to(dtype).unsqueeze(-2)
    q: Tensor = torch.linalg.householder_product(vectors, weights)
    q *= image.sign().to(dtype).unsqueeze(-2)
    return q if rows >= columns else q.mT


def _check_gain(initializer: Initializer, gain: float) -> None:
    if not 0 <= gain < math.inf:
        raise WellposedError(f"{initializer} was given; expected a finite gain of at least 0")
