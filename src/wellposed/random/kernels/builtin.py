"""Functions that the interpreter calls as it calls its own, through the C interface of Python.

What a small tensor costs is the way to the kernel: each attribute is a step of the interpreter, and Numba takes a
dozen arguments apart. A builtin does all of it as compiled code: measured, a fill of eight elements takes a third of
the time.

An object is its address here, and 0 stands for an exception that has been set.
"""

import ctypes
import functools
import sys
from collections.abc import Callable
from typing import Any

import torch
from llvmlite import ir
from llvmlite.binding import add_symbol
from numba import float64, int32, int64, types, void
from numba.extending import intrinsic, register_jitable

from wellposed.random import libtorch
from wellposed.random.kernels.jit import c_function, stack_memory

_TYPE = object.__basicsize__ // 8 - 1  # where an object's type stands: last in what all objects begin with
_FIRST_ITEM = tuple.__basicsize__ // 8  # where a tuple's items begin
_FAST = 0x0080  # METH_FASTCALL: called with the address and the number of the arguments

retain = types.ExternalFunction("Py_IncRef", void(int64))
to_int = types.ExternalFunction("PyLong_AsLongLong", int64(int64))
to_float = types.ExternalFunction("PyFloat_AsDouble", float64(int64))
forget = types.ExternalFunction("PyErr_Clear", void())
raise_no_memory = types.ExternalFunction("PyErr_NoMemory", int64())
raised = types.ExternalFunction("PyErr_Occurred", int64())
raised_is = types.ExternalFunction("PyErr_ExceptionMatches", int32(int64))
save_thread = types.ExternalFunction("PyEval_SaveThread", int64())
restore_thread = types.ExternalFunction("PyEval_RestoreThread", void(int64))
release = types.ExternalFunction("Py_DecRef", void(int64))
attribute = types.ExternalFunction("PyObject_GetAttr", int64(int64, int64))
_call = types.ExternalFunction("PyObject_Vectorcall", int64(int64, int64, int64, int64))
new_tuple = types.ExternalFunction("PyTuple_New", int64(int64))
new_int = types.ExternalFunction("PyLong_FromLongLong", int64(int64))
set_item = types.ExternalFunction("PyTuple_SetItem", int32(int64, int64, int64))  # keeps what it is given
tuple_size = types.ExternalFunction("PyTuple_Size", int64(int64))
list_size = types.ExternalFunction("PyList_Size", int64(int64))
_list_item = types.ExternalFunction("PyList_GetItem", int64(int64, int64))  # not retained
_set_list_item = types.ExternalFunction("PyList_SetItem", int32(int64, int64, int64))  # keeps what it is given
_variable = types.ExternalFunction("PyContextVar_Get", int32(int64, int64, int64))


class _Definition(ctypes.Structure):
    """``PyMethodDef``."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("document", ctypes.c_char_p),
    )


_new = ctypes.pythonapi.PyCFunction_NewEx
_new.restype, _new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
_new_method = ctypes.pythonapi.PyInstanceMethod_New
_new_method.restype, _new_method.argtypes = ctypes.py_object, (ctypes.py_object,)
_kept: list[Any] = []  # what lives as long as the functions, which is for ever


_FIELDS = (
    "aoti_torch_get_layout",
    "aoti_torch_get_device_type",
    "aoti_torch_is_contiguous",
    "aoti_torch_get_dtype",
    "aoti_torch_get_numel",
    "aoti_torch_get_data_ptr",
    "aoti_torch_get_dim",
    "aoti_torch_get_sizes",
    "aoti_torch_get_strides",
)
_MAKERS = ("aoti_torch_empty_strided", "torch_from_blob", "aoti_torch_delete_tensor_object")
LAYOUT, DEVICE, CONTIGUOUS, DTYPE, SIZE, DATA = range(1, 7)  # where ``describe`` writes them


@functools.cache
def _is_available() -> bool:
    """Whether this build of Python and of torch is one that builtins know their way about.

    Torch's C interface takes the address of an ``at::Tensor``, which is a pointer to what ``_cdata`` gives the address
    of. That this is so here is tried on a tensor.
    """
    if sys.version_info >= (3, 13) and not sys._is_gil_enabled():
        return False
    functions = [libtorch.c_function(name) for name in (*_FIELDS, *_MAKERS)]
    if None in functions:
        return False
    tensor = torch.empty(3, 4116, dtype=torch.float64, device="cpu")
    expected = (None, None, 1, None, tensor.numel(), tensor.data_ptr(), 2, None, None)
    for function, value in zip(functions[: len(_FIELDS)], expected, strict=True):
        handle, result = ctypes.c_void_p(tensor._cdata), ctypes.c_int64(0)
        if function(ctypes.byref(handle), ctypes.byref(result)) != 0:
            return False
        if value not in (None, result.value):
            return False
    for name, function in zip((*_FIELDS, *_MAKERS), functions, strict=True):
        add_symbol(name, ctypes.cast(function, ctypes.c_void_p).value)
    return True


@functools.cache
def wrapper() -> int:
    """The address of what makes a Python object of a tensor of the C interface; 0 where this build has none.

    It is no part of that interface, but what torch's own headers declare for extensions. Its mangled name says that it
    takes a reference to a tensor; that it gives that tensor's object is tried here.
    """
    function = libtorch.c_function("_Z16THPVariable_WrapRKN2at10TensorBaseE", "python")
    if function is None:
        return 0
    address = ctypes.cast(function, ctypes.c_void_p).value or 0
    wrap = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p)(address)
    tensor = torch.empty(1, device="cpu")
    handle = ctypes.c_void_p(tensor._cdata)
    return address if wrap(ctypes.addressof(handle)) is tensor else 0


def builtin(function: Callable[..., Any], context: tuple[object, ...], otherwise: object) -> Callable[..., Any]:
    """A function of the interpreter's own kind.

    Args:
        function: What it does, given the address of ``context``, that of an array of its arguments' addresses, and
            how many there are; it returns the address of an object that it retained.
        context: Every object that it needs besides.
        otherwise: What it returns where builtins are not to be had.
    """
    if torch._C._len_torch_dispatch_stack():
        return _after_tracing(function, context, otherwise)
    if not _is_available():
        return lambda *_: otherwise
    address = c_function(function, "int64(int64, int64, int64)")
    definition = _Definition(function.__name__.encode(), address, _FAST, None)
    _kept.append(definition)
    names = tuple(sys.intern(entry) if isinstance(entry, str) else entry for entry in context)
    return _new(ctypes.byref(definition), names, None)  # type: ignore[no-any-return]


def _after_tracing(function: Callable[..., Any], context: tuple[object, ...], otherwise: object) -> Callable[..., Any]:
    """A builtin that is made when no mode is on: under one, tensors may have no memory, and export changes ``math``."""

    @functools.cache
    def made() -> Callable[..., Any]:
        return builtin(function, context, otherwise)

    return lambda *arguments: otherwise if torch._C._len_torch_dispatch_stack() else made()(*arguments)


def builtin_method(function: Callable[..., Any], context: tuple[object, ...], otherwise: Callable[..., Any]) -> Any:
    """The same as a method of a class, which ``otherwise`` is where builtins are not to be had."""
    return _new_method(builtin(function, context, None)) if _is_available() else otherwise


@register_jitable(forceinline=True)
def retained(thing):
    """A thing that one more now holds."""
    retain(thing)
    return thing


@register_jitable(forceinline=True)
def item(things, index):
    """An item of a tuple, which keeps it: not retained."""
    return load(things, _FIRST_ITEM + index)


@register_jitable(forceinline=True)
def is_exactly(thing, kind):
    """Whether a thing's type is that very one."""
    return load(thing, _TYPE) == kind


@register_jitable(forceinline=True)
def attribute_is(thing, name, value):
    """Whether an attribute is that very object."""
    return _is_released(attribute(thing, name), value)


_get_layout, _get_device, _is_contiguous, _get_dtype, _get_size, _get_data, _get_rank, _get_sizes, _get_strides = (
    types.ExternalFunction(field, int32(int64, int64)) for field in _FIELDS
)
_empty = types.ExternalFunction(_MAKERS[0], int32(int64, int64, int64, int32, int32, int32, int64))
_from_blob = types.ExternalFunction(
    _MAKERS[1],
    int32(int64, int64, int64, int64, int64, int32, int32, int32, int64, int32, int64, int64, int64, int64),
)
_delete = types.ExternalFunction(_MAKERS[2], int32(int64))


@register_jitable(forceinline=True)
def describe(tensor, cdata, slot):
    """Write what a CPU tensor with memory in order is like into a slot; say whether it is one.

    ``cdata`` is the name "_cdata".
    """
    number = attribute(tensor, cdata)
    if number == 0:
        forget()
        return False
    store(slot, 0, to_int(number))
    release(number)
    for field in range(1, 7):
        store(slot, field, 0)
    _get_layout(slot, slot + 8 * LAYOUT)
    _get_device(slot, slot + 8 * DEVICE)
    if load(slot, LAYOUT) != 0 or load(slot, DEVICE) != 0:  # strided, CPU
        return False
    _is_contiguous(slot, slot + 8 * CONTIGUOUS)
    if load(slot, CONTIGUOUS) == 0:
        return False
    _get_dtype(slot, slot + 8 * DTYPE)
    _get_size(slot, slot + 8 * SIZE)
    return _get_data(slot, slot + 8 * DATA) == 0


@register_jitable(forceinline=True)
def new_like(wrap, slot, new):
    """A tensor like a described one, its address written to ``new`` as ``describe`` does; 0 if that fails.

    ``torch.empty_like`` takes four times as long. ``wrap`` is what :func:`wrapper` gave.
    """
    if not _describe_shape(slot, new):
        return 0
    if _empty(load(new, 1), load(new, 2), load(new, 3), int32(load(slot, DTYPE)), 0, 0, new) != 0:
        return 0
    return _wrapped(wrap, new)


@register_jitable(forceinline=True)
def new_like_at(wrap, slot, new, address, end, held):
    """The same in memory that is there; ``end(address, held)`` is called when nobody needs it longer, on any thread."""
    if not _describe_shape(slot, new):
        return 0
    rank, sizes, strides, dtype = load(new, 1), load(new, 2), load(new, 3), int32(load(slot, DTYPE))
    if _from_blob(address, rank, sizes, strides, 0, dtype, 0, -1, new, 0, 0, 0, end, held) != 0:
        return 0
    return _wrapped(wrap, new)


@register_jitable(forceinline=True)
def _describe_shape(slot, new):
    """Write a described tensor's rank, sizes and strides to ``new``, from 1 on."""
    for field in range(5):
        store(new, field, 0)
    return _get_rank(slot, new + 8) == 0 and _get_sizes(slot, new + 16) == 0 and _get_strides(slot, new + 24) == 0


@register_jitable(forceinline=True)
def _wrapped(wrap, new):
    """The object of the tensor whose handle is in ``new``, which it takes; 0 if there is none."""
    handle = load(new, 0)
    result = jump_for(wrap, handle) if _get_data(handle, new + 8 * DATA) == 0 else 0
    _delete(handle)
    return result


@register_jitable(forceinline=True)
def inner_size(dims, slot):
    """How many elements a described tensor has for each index of its leading ``dims``; -1 if they do not lead."""
    for i in range(tuple_size(dims)):
        if to_int(item(dims, i)) != i:
            return -1
    inner = 1
    if _get_rank(slot, slot + 8 * LAYOUT) != 0 or _get_sizes(slot, slot + 8 * DEVICE) != 0:
        return -1
    for i in range(tuple_size(dims), load(slot, LAYOUT)):
        inner *= load(load(slot, DEVICE), i)
    return inner


@register_jitable(forceinline=True)
def variable_is(variable, slot, value):
    """Whether a context variable holds that very object; ``slot`` is the address of memory to work in."""
    _variable(variable, 0, slot)
    found = load(slot, 0)
    if found == 0:
        return False
    release(found)
    return found == value


@register_jitable(forceinline=True)
def call(function, arguments, count):
    """What a function returns for an array of so many arguments."""
    return _call(function, arguments, count, 0)


@register_jitable(forceinline=True)
def call_with(function, slot, argument):
    """What a function returns for one argument."""
    store(slot, 0, argument)
    return call(function, slot, 1)


@register_jitable(forceinline=True)
def call_with_list(function, slot, alone, argument):
    """What a function returns for a list of one; ``alone`` is a list of one to put the argument in meanwhile."""
    before = _list_item(alone, 0)
    retain(before)
    retain(argument)
    _set_list_item(alone, 0, argument)
    result = call_with(function, slot, alone)
    _set_list_item(alone, 0, before)
    return result


@register_jitable(forceinline=True)
def returns(function, slot, value):
    """Whether a function without arguments returns that very object; small ints are always the same ones."""
    return _is_released(call(function, slot, 0), value)


@register_jitable(forceinline=True)
def returns_for(function, slot, argument, value):
    """The same for a function of one argument."""
    return _is_released(call_with(function, slot, argument), value)


@register_jitable(forceinline=True)
def _is_released(found, value):
    if found == 0:
        forget()
        return False
    release(found)
    return found == value


@register_jitable(forceinline=True)
def natural(thing):
    """An int that is not below zero and has at most 63 bits; -1 for any other."""
    number = to_int(thing)
    if number < 0:
        forget()
        return -1
    return number


stack = stack_memory(16 * 8)  # the address of 16 int64


def _memory(builder: Any, address: Any, index: Any) -> Any:
    return builder.gep(builder.inttoptr(address, ir.IntType(64).as_pointer()), [index])


@intrinsic
def load(_typing: Any, _address: Any, _index: Any) -> Any:
    """The int64 at an address, so many on."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.load(_memory(builder, *args))

    return int64(int64, int64), generate


@intrinsic
def store(_typing: Any, _address: Any, _index: Any, _value: Any) -> Any:
    """Write the int64 at an address, so many on."""

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        builder.store(args[2], _memory(builder, *args[:2]))
        return context.get_dummy_value()

    return void(int64, int64, int64), generate


@intrinsic
def jump(_typing: Any, _function: Any, _data: Any) -> Any:
    """Call the C function of one address that is at an address."""

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)]).as_pointer()
        builder.call(builder.inttoptr(args[0], kind), [args[1]])
        return context.get_dummy_value()

    return void(int64, int64), generate


@intrinsic
def jump_for(_typing: Any, _function: Any, _data: Any) -> Any:
    """The address that the C function of one address at an address gives."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        long = ir.IntType(64)
        return builder.call(builder.inttoptr(args[0], ir.FunctionType(long, [long]).as_pointer()), [args[1]])

    return int64(int64, int64), generate


@intrinsic
def jump_together(_typing: Any, _team: Any, _function: Any, _data: Any, _threads: Any) -> Any:
    """Call it on so many threads at once, given the address of ``GOMP_parallel``."""

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        long, number = ir.IntType(64), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [long, long, number, number]).as_pointer()
        threads = builder.trunc(args[3], number)
        builder.call(builder.inttoptr(args[0], kind), [args[1], args[2], threads, number(0)])
        return context.get_dummy_value()

    return void(int64, int64, int64, int64), generate
