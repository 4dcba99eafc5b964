"""What every Numba kernel of the package shares: how it is compiled, and how it reaches a tensor's memory."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import numba
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.numpy_support import as_dtype


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of plain loops: no interpreter lock, IEEE arithmetic in the order written, cached on disk."""
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return cast(Callable[..., Any], numba.njit(cache=True, **options)(function))
    except RuntimeError:  # no folder to cache in can be written to
        return cast(Callable[..., Any], numba.njit(**options)(function))


@intrinsic
def pointer(_typing: Any, address: Any) -> Any:
    """The memory at an address, for ``numba.carray``."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


def _bitcast(source: Any, target: Any) -> Any:
    """An intrinsic that reads the bits of one scalar type as another."""

    @intrinsic
    def read(_typing: Any, _value: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            return builder.bitcast(args[0], context.get_value_type(target))

        return target(source), generate

    return read


int32_bits = _bitcast(types.float32, types.int32)
float32_from_bits = _bitcast(types.int32, types.float32)
int64_bits = _bitcast(types.float64, types.int64)
float64_from_bits = _bitcast(types.int64, types.float64)


def polynomial(coefficients: Sequence[float], kind: Any) -> Any:
    """An intrinsic for the sum of coefficients[k] * x^k by Horner's rule, x a scalar of a Numba float type.

    The multiplications and additions are written out one by one: a loop over an array of coefficients would keep the
    caller's loop from being vectorised.
    """
    exact = [float(as_dtype(kind).type(c)) for c in coefficients]

    @intrinsic
    def evaluate(_typing: Any, _x: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            constants = [context.get_constant(kind, c) for c in exact]
            total = constants.pop()
            while constants:
                total = builder.fadd(builder.fmul(total, args[0]), constants.pop())
            return total

        return kind(kind), generate

    return evaluate
