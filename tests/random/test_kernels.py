"""The native core by itself: the same bits on every instruction set, and nothing written but what is asked for."""

import ast
import ctypes
import functools
import hashlib
import mmap
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import wellposed as wp
from wellposed.random import cpu, inverse_normal, reference
from wellposed.random.box import WHOLE, layout
from wellposed.random.draw import CODES, Cut
from wellposed.random.native import core

KEY = wp.Key(7)
FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
LENGTHS = [1, 2, 3, 5, 7, 15, 16, 17, 31, 33, 63, 64, 65, 100, 255, 257, 784, 2047, 4097, 8200]
GUARD = 64  # elements before and after those that are to be written
ROOT = Path(__file__).parents[2]


def bits(x: Tensor) -> Tensor:
    return x.view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()])


def odd_numbers(count: int, dtype: torch.dtype) -> Tensor:
    """Normal numbers, the first of them such as are easily got wrong."""
    x = wp.random.normal((count,), KEY.fold("x", count), dtype=dtype)
    info = torch.finfo(dtype)
    odd = [torch.nan, torch.inf, -torch.inf, -0.0, info.tiny, info.tiny / 2, info.max, -info.max]
    x[: len(odd)] = torch.tensor(odd, dtype=dtype)[:count]
    return x


def same(got: Tensor, want: Tensor) -> bool:
    """Equal bit for bit, but for the bits that tell one NaN from another."""
    return torch.equal(got.isnan(), want.isnan()) and torch.equal(bits(got.nan_to_num()), bits(want.nan_to_num()))


CUTS = {"scaled": Cut(2**31, 1.7), "to a floor": Cut(2**31, 1.3, 0.25, -1.75), "all dropped": Cut(2**32, 0.0)}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("length", LENGTHS)
def test_runs_of_any_length_and_nothing_else_is_touched(length: int, dtype: torch.dtype, cut: Cut) -> None:
    """Elements that share a word, wherever they lie; the number of runs is such that threads meet within one."""
    runs = 7 if length < 8200 else 70_001 // length + 1
    x = odd_numbers(runs * length, dtype)
    where = layout((runs, length), None, (0,))
    for shift in (0, 1, 3):  # memory that is aligned for elements only
        memory = torch.full((GUARD + x.numel() + GUARD,), 5.0, dtype=dtype)
        out = memory[GUARD + shift : GUARD + shift + x.numel()]
        numbers = (CODES[dtype], x.numel(), where.packed, KEY.seed, 0, *cut)
        core.thin(x.data_ptr(), out.data_ptr(), *numbers)
        assert same(out, reference.thin(x.view(runs, length), cut, KEY.seed, 0, where).view(-1))
        assert (memory[: GUARD + shift] == 5).all()
        assert (memory[GUARD + shift + x.numel() :] == 5).all()


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 15, 16, 17, 63, 65, 1000, 4095, 70_001])
def test_elements_of_any_number(size: int, dtype: torch.dtype, cut: Cut) -> None:
    x = odd_numbers(size, dtype)
    assert same(cpu.thin(x, cut, KEY.seed, 3, WHOLE), reference.thin(x, cut, KEY.seed, 3, WHOLE))


# A program that draws and drops everything in every dtype, and prints a digest of the bits.
PROGRAM = """
import hashlib, sys, torch, wellposed as wp
from draw_cases import CASES
from dropout_module_cases import CASES as MODULES
from wellposed import _native
digest = hashlib.sha256()
def add(x):
    x = x.detach().contiguous()
    x = torch.view_as_real(x) if x.is_complex() else x
    x = torch.where(x.isnan(), 0, x) if x.is_floating_point() else x
    digest.update(x.view(torch.uint8).numpy().tobytes() if x.dim() else x[None].view(torch.uint8).numpy().tobytes())
KEY = wp.Key(3)
for case in CASES:
    for dtype in case.dtypes:
        for size in (1, 5, 31, 33, 4099):
            add(case.draw(size, KEY, dtype, size))
        add(case.fill_(torch.empty(5, 1, 7, dtype=dtype), KEY, box=wp.Box((9, 3, 8), (2, 1, 1))))
for dtype in (torch.bool, torch.uint8, torch.float32, torch.float64, torch.bfloat16, torch.float16):
    add(wp.random.bernoulli(4099, KEY, 0.3, dtype=dtype))
add(wp.random.bits(4099, KEY).view(torch.int32))
torch.manual_seed(0)
for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
    x = torch.cat([wp.random.normal(4090, KEY, dtype=dtype), torch.tensor([0.0, -0.0, float("inf")], dtype=dtype)])
    for module in (wp.Dropout(0.3), wp.AlphaDropout(0.3), wp.Dropout1d(0.3), wp.Dropout2d(0.3), wp.DropBlock2d(0.2, 3),
                   wp.DropBlock2d(0.2, 3, couple_channels=True), wp.DropPath(0.5), wp.TokenDropout(0.5),
                   wp.LockedDropout(0.4), wp.dropouts.FeatureAlphaDropout(0.4)):
        for shape in ((4093,), (3, 11, 5), (2, 3, 9, 9), (2, 4, 33, 13)):
            try:
                y = x[: torch.Size(shape).numel()].reshape(shape).clone().requires_grad_()
                z = module(y)
            except wp.WellposedError:
                continue
            add(z)
            add(torch.autograd.grad(z, y, torch.ones_like(z))[0])
for dtype in (torch.float32, torch.float64):
    for size in (1, 17, 300_001):
        w, second = (wp.random.normal(size, KEY.fold(n), dtype=dtype) for n in "wv")
        from wellposed.penalties.computing.passes import ProxStep, Push, add_gradients_, take_steps_
        from wellposed.penalties.computing.root_step import RootStep
        for penalty in (wp.L1(0.3), wp.L2(0.2), wp.ElasticNet(0.3, 0.2)):
            for step in (0.7, RootStep(0.05, second.square(), 1.3, 1e-8)):
                moved = w.clone()
                take_steps_([ProxStep(penalty, moved, step)])
                add(moved)
            total = second.clone()
            digest.update(repr(add_gradients_([Push(penalty, w, total, 0.5)])).encode())
            add(total)
print(_native.instruction_set(), digest.hexdigest())
"""


@functools.cache
def drawn_by(instruction_set: str) -> list[str]:
    """What the program says when it may use no more than an instruction set."""
    environment = {**os.environ, "WELLPOSED_INSTRUCTION_SET": instruction_set, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("instruction_set", ["v4", "v3"])
def test_every_instruction_set_gives_the_same_bits(instruction_set: str) -> None:
    used, digest = drawn_by(instruction_set)
    if used != instruction_set:
        pytest.skip(f"this processor has no {instruction_set}")
    assert drawn_by("baseline") == ["baseline", digest]


@pytest.mark.skipif(not (ROOT / "native").exists(), reason="the core's sources are not here")
@pytest.mark.parametrize("dtype", ["float", "double"])
def test_the_core_has_the_constants_of_the_reference(dtype: str) -> None:
    source = (ROOT / "native" / "formulas.h").read_text()
    arrays = {
        name: ast.literal_eval("[" + re.sub(r"(?<=\d)f\b", "", numbers) + "]")
        for name, numbers in re.findall(rf"constexpr {dtype} (\w+)\[\] = {{([^}}]*)}}", source)
    }
    named = {
        "float": {name: getattr(inverse_normal, name) for name in ("LOG2", "NUMERATOR", "DENOMINATOR")},
        "double": {"LOG": inverse_normal.LOG}
        | {
            f"{short}_{part}": values
            for short, pair in (("CENTRE", "CENTRE"), ("TAIL", "TAIL"), ("FAR", "FAR_TAIL"))
            for part, values in zip(("ABOVE", "BELOW"), getattr(inverse_normal, pair), strict=True)
        },
    }
    assert arrays == {name: list(values) for name, values in named[dtype].items()}


SMAPS = Path("/proc/self/smaps")


def flags(address: int) -> list[str]:
    """The flags of the mapping that an address lies in."""
    found = False
    for line in SMAPS.read_text().splitlines():
        head = line.split(maxsplit=1)[0]
        if "-" in head:
            first, last = (int(end, 16) for end in head.split("-"))
            found = first <= address < last
        elif found and head == "VmFlags:":
            return line.split()[1:]
    raise AssertionError("no mapping holds the address")


@pytest.mark.skipif(
    not (SMAPS.exists() and Path("/sys/kernel/mm/transparent_hugepage/enabled").exists()),
    reason="the system has no large pages to ask for",
)
@pytest.mark.parametrize("size", [2**12, 2**20, 2**22, 2**23 + 5])
def test_large_pages_are_asked_for_where_much_is_written(size: int) -> None:
    """Of 4 MiB and more; in memory that nothing else has had, which may have been asked for before."""
    with mmap.mmap(-1, 2**24) as memory:
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        core.fill(address, CODES[torch.uint32], size // 4, WHOLE.packed, 0, 0, 0, b"")
        assert ("hg" in flags(address + size // 2)) == (size >= 2**22)


def test_wrong_calls_are_refused() -> None:
    with pytest.raises(TypeError, match="expected 8 arguments, not 1"):
        core.fill(0)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        core.fill("0", 0, 0, b"", 0, 0, 0, b"")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        core.fill(0, 0, 0, "", 0, 0, 0, b"")  # type: ignore[arg-type]


def test_known_bits() -> None:
    """The digest of a million words and normals, of stream version 1 for ever."""
    words = wp.random.bits(2**20, wp.Key(0)).view(torch.int32).numpy().tobytes()
    normals = wp.random.normal(2**20, wp.Key(0)).numpy().tobytes()
    assert hashlib.sha256(words).hexdigest()[:16] == "9efae438ee00331f"
    assert hashlib.sha256(normals).hexdigest()[:16] == "28efea9d704cd276"
