"""The GPU's kernels give the bits of the reference: every distribution, dtype, box and tail, and every cut."""

import pytest
import torch

import wellposed as wp
from draw_cases import CASES, FLOATS, Case
from gpu_tools import DEVICE, same_bits
from wellposed.random import gpu, reference
from wellposed.random.box import Layout, layout
from wellposed.random.draw import Cut, cut_bits

KEY, CALL = wp.Key(7), 2**40 + 12345
SHAPES: dict[str, tuple[tuple[int, ...], wp.Box | None]] = {
    "one": ((1,), None),
    "a program and a tail": ((2051,), None),
    "a run": ((1001,), wp.Box((4000,), (8,))),
    "a run within a block": ((37,), wp.Box((4000,), (7,))),
    "a box": ((4, 8, 6), wp.Box((9, 16, 8), (2, 3, 1))),
    "a box of whole blocks": ((4, 8, 8), wp.Box((9, 16, 16), (2, 3, 4))),
    "five dimensions": ((2, 3, 2, 3, 2), wp.Box((3, 4, 3, 4, 3), (1, 1, 1, 1, 1))),
    "far out": ((5,), wp.Box((2**40,), (2**36 + 8,))),
    "none": ((0,), None),
}
NAMED = {case.name: case for case in CASES}
KINDS = ["uniform, shifted", "normal", "truncated, lopsided", "upper tail from 3"]
ROWS = [(NAMED[name], dtype) for name in KINDS for dtype in FLOATS]


def check(case: Case, dtype: torch.dtype, shape: tuple[int, ...], box: wp.Box | None) -> None:
    drawn, wanted = torch.empty(shape, dtype=dtype, device=DEVICE), torch.empty(shape, dtype=dtype)
    with wp.random.backend("gpu"):
        case.fill_(drawn, KEY, CALL, box)
    with wp.random.backend("reference"):
        case.fill_(wanted, KEY, CALL, box)
    assert same_bits(drawn, wanted)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_distribution(case: Case) -> None:
    for dtype in case.dtypes:
        check(case, dtype, (70,), None)


@pytest.mark.parametrize(("case", "dtype"), ROWS, ids=lambda x: getattr(x, "name", str(x)))
def test_every_place(case: Case, dtype: torch.dtype) -> None:
    for shape, box in SHAPES.values():
        check(case, dtype, shape, box)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("dtype", [*FLOATS, torch.bool, torch.uint8], ids=str)
def test_bernoulli(p: float, dtype: torch.dtype) -> None:
    for shape, box in SHAPES.values():
        drawn, wanted = torch.empty(shape, dtype=dtype, device=DEVICE), torch.empty(shape, dtype=dtype)
        with wp.random.backend("gpu"):
            wp.random.bernoulli_(drawn, KEY, p, call=CALL, box=box)
        assert same_bits(drawn, wp.random.bernoulli_(wanted, KEY, p, call=CALL, box=box))


def test_known_answers_and_layouts_of_memory() -> None:
    with wp.random.backend("gpu"):
        assert wp.random.bits(4, wp.Key(0), device=DEVICE).tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
        strided = wp.random.normal_(torch.empty(4, 6, device=DEVICE).t(), KEY)
        unaligned = wp.random.normal_(torch.empty(2051, dtype=torch.bfloat16, device=DEVICE)[1:], KEY)
        imaginary = torch.zeros(9, dtype=torch.complex64, device=DEVICE).conj().imag  # lazily negated
        wp.random.normal_(imaginary, KEY)
    assert same_bits(strided, wp.random.normal((6, 4), KEY))
    assert same_bits(unaligned, wp.random.normal(2050, KEY, dtype=torch.bfloat16))
    assert same_bits(imaginary.clone(), wp.random.normal(9, KEY))


CUTS = {
    "scaled": Cut(2**31, 1.7),
    "to a floor": Cut(2**31, 1.3, 0.25, -1.75),
    "all dropped": Cut(2**32, 0.0),
    "none dropped": Cut(0, 1.0),
}
MASKS: dict[str, tuple[tuple[int, ...], Layout]] = {
    "one": ((1,), layout((1,))),
    "a program and a tail": ((2051,), layout((2051,))),
    "long rows": ((5, 300), layout((5, 300), None, (0,))),
    "long rows of whole blocks": ((3, 1040), layout((3, 1040), None, (0,))),
    "short rows": ((5, 30), layout((5, 30), None, (0,))),
    "locked": ((4, 6, 7), layout((4, 6, 7), None, (0, 2))),
    "locked, whole blocks": ((4, 6, 8), layout((4, 6, 8), None, (0, 2))),
    "a box": ((4, 6, 8), layout((4, 6, 8), wp.Box((9, 16, 8), (2, 3, 0)))),
}


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_every_mask(cut: Cut, dtype: torch.dtype) -> None:
    """The name of a mask may be read from the device, and the call number be shifted there."""
    info = torch.finfo(dtype)
    odd = torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0, info.tiny, info.tiny / 2, info.max, -info.max])
    for shape, where in MASKS.values():
        x = wp.random.normal(shape, KEY.fold("x"), dtype=dtype)
        x.view(-1)[:8] = odd.to(dtype)[: x.numel()]
        wanted, there = reference.thin(x, cut, KEY.seed, CALL, where), x.to(DEVICE)
        assert same_bits(gpu.thin(there, cut, KEY.seed, CALL, where), wanted)
        read = torch.tensor(cut_bits(cut, dtype == torch.float64), device=DEVICE)
        shift = torch.tensor(5, device=DEVICE)
        assert same_bits(gpu.thin(there, read, KEY.seed, CALL - 5, where, shift), wanted)


def test_only_memory_that_the_kernels_know_is_served() -> None:
    assert gpu.serves(torch.empty(3, device=DEVICE))
    for other in (torch.empty(3, device="meta"), torch.empty(3, dtype=torch.int64, device=DEVICE)):
        assert not gpu.serves(other)
    assert not gpu.serves(torch.eye(3, device=DEVICE).to_sparse())
