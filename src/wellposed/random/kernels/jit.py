"""What every Numba kernel of the package shares: how it is compiled, and how it reaches a tensor's memory."""

import functools
import inspect
import threading
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.numpy_support import as_dtype


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of plain loops: no interpreter lock, IEEE arithmetic in the order written, cached on disk."""
    return _cached(functools.partial(numba.njit, nogil=True, error_model="numpy"), function)


def c_function(function: Callable[..., Any], signature: str = "void(int64)") -> int:
    """The address of a C function, compiled likewise, which can be called without the interpreter.

    Threads that ask for the same one at once wait for one compilation.
    """
    with _lock:
        return int(_compiled(function, signature).address)


_lock = threading.RLock()


@functools.cache  # code lives as long as what holds its address, which may be for ever
def _compiled(function: Callable[..., Any], signature: str) -> Any:
    return _cached(functools.partial(numba.cfunc, signature, error_model="numpy"), function)


def _cached(compiler: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile with a cache on disk.

    Numba takes a cached kernel for current when its own file is unchanged, though it may call others in files that are
    not. So the state of the source is made a part of the name that the cache goes by.
    """
    function.__qualname__ += f".{_state(Path(inspect.getfile(function)).parent)}"
    try:
        return cast(Callable[..., Any], compiler(cache=True)(function))
    except RuntimeError:  # no folder to cache in can be written to
        return cast(Callable[..., Any], compiler()(function))


@functools.cache
def _state(folder: Path) -> str:
    """A digest of the source that kernels in a folder are made from: the folder's own and the random numbers'."""
    sources = {*folder.glob("*.py"), *Path(__file__).parents[1].rglob("*.py")}
    return blake2b(b"".join(path.read_bytes() for path in sorted(sources)), digest_size=6).hexdigest()


@intrinsic
def pointer(_typing: Any, address: Any) -> Any:
    """The memory at an address, for ``numba.carray``."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


def stack_memory(size: int) -> Any:
    """An intrinsic for the address of so many bytes that last until the function returns; the heap takes longer."""

    @intrinsic
    def reserve(_typing: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
            with builder.goto_entry_block():
                memory = builder.alloca(ir.ArrayType(ir.IntType(8), size))
                memory.align = 64
            return builder.ptrtoint(memory, ir.IntType(64))

        return types.int64(), generate

    return reserve


def _atomic(operation: str) -> Any:
    """An intrinsic that changes the int64 at an address and returns what was there, in one step.

    No thread can come between. Who sees what was written sees all that was written before.
    """

    @intrinsic
    def change(_typing: Any, _address: Any, _number: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            number = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
            return builder.atomic_rmw(operation, number, args[1], "acq_rel")

        return types.int64(types.int64, types.int64), generate

    return change


fetch_add, exchange = _atomic("add"), _atomic("xchg")


@intrinsic
def call_int32(_typing: Any, _function: Any) -> Any:
    """What the C function without arguments that is at an address gives."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), []).as_pointer()
        return builder.sext(builder.call(builder.inttoptr(args[0], kind), []), ir.IntType(64))

    return types.int64(types.int64), generate


@intrinsic
def select(_typing: Any, _condition: Any, yes: Any, no: Any) -> Any:
    """``yes if condition else no`` with both computed: a branch can keep a loop from being vectorised."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.select(*args)

    return yes(types.boolean, yes, no), generate


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
