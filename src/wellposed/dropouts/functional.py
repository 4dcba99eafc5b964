"""``dropout`` as a pure function of its input, a key and a call number."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.rnn import PackedSequence

from wellposed._torch import PLAIN_TYPES
from wellposed.arguments import integer
from wellposed.dropouts.masks import Mask, check_probability, stream_tensor
from wellposed.dropouts.operator import thin, thin_by_operator
from wellposed.dropouts.sharding.blockwise import Placed, blockwise, thin_blocks
from wellposed.errors import WellposedError
from wellposed.random.box import Box
from wellposed.random.key import Key
from wellposed.random.shards import is_sharded

_DTYPES = frozenset((torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64, torch.complex128))


def dropout(
    x: Tensor,
    p: float | Tensor = 0.5,
    *,
    key: Key,
    call: int = 0,
    dims: int | Sequence[int] | None = None,
    box: Box | None = None,
    training: bool = True,
) -> Tensor:
    """Set elements to zero with probability p and scale the others by 1 / (1 - p), so that the mean stays.

    An element is dropped iff its word is below round(p * 2^32), the very elements that ``random.bernoulli`` draws at
    the same key and call; so those dropped at a smaller p are among those dropped at a larger one. The product is taken
    in float32 (float64 for float64) and rounded once. The backward pass draws the mask again: nothing is stored for it.

    Args:
        x: A tensor of any shape and strides: float32, float64, bfloat16, float16, complex64 or complex128. A complex
            element is dropped or kept whole.
        p: The probability that an element is dropped; 0 and 1 are exact. A scalar tensor lets a compiled graph take a
            new p without a recompilation; a vector holds one p for each index of dimension 0.
        key: The key of the stream that the mask is drawn from.
        call: Which draw of the stream, in [0, 2^64).
        dims: The dimensions that the mask varies over; elements that differ in others only are dropped together.
            ``None`` means all.
        box: Where ``x`` lies in a larger tensor: its mask is then that part of the larger tensor's mask.
        training: Whether to drop anything; if not, ``x`` itself is returned.

    Returns:
        A tensor of ``x``'s shape and dtype; ``x`` itself where there is nothing to drop.

    Raises:
        WellposedError: If p is not in [0, 1], key or call is not one, ``dims`` names a dimension that is not there or
            twice, or ``x`` is not of such a dtype or does not fit into the box.

    Example:
        >>> import wellposed as wp
        >>> dropout(torch.ones(6), 0.5, key=wp.Key(0))
        tensor([0., 2., 2., 2., 2., 0.])
        >>> dropout(torch.ones(2, 3), 0.5, key=wp.Key(0), dims=1)
        tensor([[0., 2., 2.],
                [0., 2., 2.]])

    Source: Srivastava et al. (2014); scaling while training: Hinton et al. (2012), inverted.
    """
    if not isinstance(p, Tensor):
        p = check_probability("dropout", p)
    if type(key) is not Key:
        raise WellposedError(f"dropout was given key={key!r} of type {type(key).__name__}; expected a wp.Key")
    if type(call) is not int:
        call = integer(call, "dropout(call)", 0, 2**64)
    if not 0 <= call < 2**64:
        raise WellposedError(f"dropout was given call={call}; expected an integer in [0, 2^64)")
    check_input("dropout", x)
    if dims is not None:
        dims = counted_dims(dims, x.dim())
    if not training:
        return x
    if is_sharded(x) and box is not None:
        raise WellposedError(f"dropout was given a DTensor with {box}; give no box, since a DTensor knows its place")
    if isinstance(p, Tensor):
        return _with_tensor(x, p, key, call, dims, box)
    if p == 0.0:
        return x
    if is_sharded(x):
        return thin_blocks(x, Mask(p, key.seed, call, dims), Placed())
    if x.is_complex():
        parts, dims, box = _parts(x, dims, box)
        return torch.view_as_complex(thin(parts, Mask(p, key.seed, call, dims, box)))
    check_kind("dropout", x)
    return thin(x, Mask(p, key.seed, call, dims, box))


def _with_tensor(x: Tensor, p: Tensor, key: Key, call: int, dims: tuple[int, ...] | None, box: Box | None) -> Tensor:
    if p.requires_grad:
        raise WellposedError(
            "dropout was given a p that requires a gradient, which a mask of zeros and ones does not have; "
            "detach it, or learn p with wp.ConcreteDropout"
        )
    if p.is_meta and not x.is_meta:
        raise WellposedError("dropout was given a p on the meta device, which has no value; expected one with a value")
    if p.dim() > 1 or (p.dim() == 1 and (x.dim() == 0 or len(p) != x.shape[0])):
        raise WellposedError(
            f"dropout was given p of shape {tuple(p.shape)} for an input of shape {tuple(x.shape)}; "
            "expected a scalar or one p for each index of dimension 0"
        )
    stream = stream_tensor(key.seed, call)
    if is_sharded(x):
        if is_sharded(p):
            raise WellposedError("dropout was given a p that is a DTensor; give it as a whole, p.full_tensor()")
        return _with_rates(x, p, stream, dims)
    if x.is_complex():
        parts, dims, box = _parts(x, dims, box)
        return torch.view_as_complex(thin_by_operator(parts, stream, p, dims, box))
    return thin_by_operator(x, stream, p, dims, box)


def _with_rates(x: Tensor, p: Tensor, stream: Tensor, dims: tuple[int, ...] | None) -> Tensor:
    """A DTensor, thinned block by block, each with those rates of its samples."""
    if x.is_complex():
        raise WellposedError("dropout was given a complex DTensor and p in a tensor; give p as a number")

    def part(x: Tensor, box: Box) -> Tensor:
        rates = p if p.dim() == 0 else p[box.offset[0] : box.offset[0] + x.shape[0]]
        return thin_by_operator(x, stream, rates, dims, box)

    return blockwise(x, part, part, Placed())


def _parts(x: Tensor, dims: tuple[int, ...] | None, box: Box | None) -> tuple[Tensor, tuple[int, ...], Box | None]:
    """A complex tensor as a real one with a further dimension, over which no mask varies."""
    box = None if box is None else Box((*box.shape, 2), (*box.offset, 0))
    return torch.view_as_real(x.resolve_conj()), tuple(range(x.dim())) if dims is None else dims, box


def check_input(name: str, x: Tensor) -> None:
    """Refuse a tensor of a dtype that dropout cannot scale, such as integers."""
    if getattr(x, "dtype", None) not in _DTYPES or not isinstance(x, Tensor) or x.is_nested:
        if isinstance(x, torch.fx.Proxy):
            raise WellposedError(
                f"{name} was given a torch.fx.Proxy, which has no values to drop; trace with {name} for a leaf (a "
                "Tracer whose is_leaf_module says so; leaf_modules in torchvision's tracer_kwargs), or outside training"
            )
        rank_of(name, x)
        check_array(name, x)
        raise WellposedError(
            f"{name} was given a {x.dtype} tensor; "
            "expected float32, float64, bfloat16, float16, complex64 or complex128"
        )


def check_kind(name: str, x: Tensor) -> None:
    """Refuse the subclasses of tensors whose elements are not those of one array, or lie with several processes."""
    if type(x) in PLAIN_TYPES:
        return
    check_array(name, x)
    if is_sharded(x):
        raise WellposedError(
            f"{name} was given a DTensor of shape {tuple(x.shape)}, of which it cannot draw a shard's part of the "
            "mask; give it the whole, full_tensor(), or use wp.Dropout, which can"
        )


def check_array(name: str, x: Tensor) -> None:
    """Refuse tensors whose elements are not those of one array, or that have none yet."""
    if is_lazy(x):
        raise WellposedError(f"{name} was given a {type(x).__name__}, which has no shape yet; initialize it first")
    if x.is_nested or type(x).__name__ == "MaskedTensor":
        kind = "nested tensor" if x.is_nested else "MaskedTensor"
        raise WellposedError(
            f"{name} was given a {kind}, whose elements are not those of one array; give it the tensor "
            "of its values, or a padded one"
        )
    if x.layout is not torch.strided:
        raise WellposedError(f"{name} was given a tensor of layout {x.layout}; expected a dense one, as of to_dense()")


def rank_of(name: str, x: Tensor) -> int:
    """The number of dimensions of a tensor.

    Raises:
        WellposedError: If it is no tensor, or one whose elements are not those of one array.
    """
    if isinstance(x, Tensor | torch.fx.Proxy):
        if isinstance(x, Tensor) and (type(x) not in PLAIN_TYPES or x.layout is not torch.strided or x.is_nested):
            check_array(name, x)
        return x.dim()
    advice = ""
    if isinstance(x, PackedSequence):
        advice = ": pad it by torch.nn.utils.rnn.pad_packed_sequence, drop, and pack it again"
    raise WellposedError(f"{name} was given an object of type {type(x).__name__}; expected a tensor{advice}")


def check_beside(name: str, module: nn.Module, *inputs: Tensor) -> None:
    """Refuse inputs that are no tensors of one array, and DTensors for a module whose parameters are none."""
    for x in inputs:
        rank_of(name, x)
        if is_sharded(x) and not any(map(is_sharded, module.parameters())):
            raise WellposedError(
                f"{name} was given a DTensor of shape {tuple(x.shape)}, and its parameters are not DTensors; give it "
                "the whole or the local tensor, full_tensor() or to_local(), or distribute the module"
            )


def check_real(name: str, x: Tensor) -> None:
    """Refuse a tensor of a dtype that is not floating-point."""
    check_input(name, x)
    if type(x) not in PLAIN_TYPES:
        check_array(name, x)
    if x.is_complex():
        raise WellposedError(f"{name} was given a {x.dtype} tensor; expected float32, float64, bfloat16 or float16")


def counted_dims(dims: int | Sequence[int], rank: int) -> tuple[int, ...]:
    """Dimensions counted from the first, in order.

    Raises:
        WellposedError: If one is out of range or named twice.
    """
    if type(dims) is int:
        given: tuple[int, ...] = (dims,)
    else:
        each = tuple(dims) if isinstance(dims, Sequence) else (dims,)
        given = tuple(d if type(d) is int else integer(d, "dims", -(2**63), 2**63) for d in each)
    counted = sorted({d % rank if -rank <= d < rank else rank for d in given})
    if len(counted) < len(given) or rank in counted:
        raise WellposedError(
            f"dims was given as {dims} for a tensor of {rank} dimensions; "
            f"expected different numbers in [{-rank}, {rank})"
        )
    return tuple(counted)
