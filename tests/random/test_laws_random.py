"""Laws of every draw: one value an element, whatever computes it."""

import itertools
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import wellposed as wp
from draw_cases import CASES, IDS, ROW_IDS, ROWS, Case, identical

KEY = wp.Key(0).fold("laws")
SIZES = [0, 1, 2, 3, 4, 5, 7, 8, 9, 31, 63, 1023, 2047, 2048, 2049, 4099, 70001]


def poisoned(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.full(shape, math.nan, dtype=dtype)


@pytest.mark.parametrize(("case", "dtype"), ROWS, ids=ROW_IDS)
def test_kernels_give_the_bits_of_the_reference(case: Case, dtype: torch.dtype) -> None:
    for size in SIZES:
        with wp.random.backend("reference"):
            want = case.fill_(poisoned((size,), dtype), KEY, call=size)
        with wp.random.backend("cpu"):
            got = case.fill_(poisoned((size,), dtype), KEY, call=size)
        assert identical(got, want), size
        assert not want.isnan().any()
        assert identical(case.draw(size, KEY, dtype, call=size), want)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("p", [0.0, 2.0**-33, 2.0**-32, 0.1, 0.5, 1 - 2.0**-32, 1.0])
def test_bernoulli_compares_words(p: float, dtype: torch.dtype) -> None:
    words = wp.random.bits(5003, KEY).to(torch.int64)
    for name in ("reference", "auto"):
        with wp.random.backend(name):
            got = wp.random.bernoulli(5003, KEY, p, dtype=dtype)
        assert got.dtype == dtype
        assert torch.equal(got.bool(), words < round(p * 2**32))
        assert set(got.unique().tolist()) <= {0, 1}


def test_successes_for_a_smaller_p_are_successes_for_a_larger_one() -> None:
    draws = [wp.random.bernoulli(10_000, KEY, p) for p in (0.0, 0.1, 0.3, 0.31, 0.9, 1.0)]
    for smaller, larger in itertools.pairwise(draws):
        assert not (smaller & ~larger).any()
    assert not draws[0].any()
    assert draws[-1].all()


@pytest.mark.parametrize(("case", "dtype"), ROWS, ids=ROW_IDS)
def test_values_stay_within_the_support(case: Case, dtype: torch.dtype) -> None:
    low, high = (float(end) for end in case.law.support())
    values = case.draw(40_000, KEY, dtype).double()
    assert values.isfinite().all()
    assert low <= values.min()
    assert values.max() < high if case.function == "uniform" else values.max() <= high


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (1.0, 2.0), (-0.1, 0.1), (1.0, 1.02)])
def test_uniform_never_equals_its_upper_end(low: float, high: float, dtype: torch.dtype) -> None:
    values = wp.random.uniform(300_000, KEY, low, high, dtype=dtype).double()
    assert low <= values.min()
    assert values.max() < high


@st.composite
def splits(draw: st.DrawFn) -> tuple[tuple[int, ...], list[list[int]]]:
    """A shape of 1 to 4 dimensions and, for each, the places where it is cut."""
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    return shape, [sorted({0, size, *draw(st.lists(st.integers(0, size), max_size=2))}) for size in shape]


@pytest.mark.parametrize("name", ["reference", "cpu"])
@pytest.mark.parametrize("case", CASES, ids=IDS)
@settings(max_examples=25)
@given(split=splits())
def test_any_split_into_boxes_gives_the_whole(
    case: Case, name: str, split: tuple[tuple[int, ...], list[list[int]]]
) -> None:
    shape, cuts = split
    for dtype in case.dtypes[:2]:
        whole = case.draw(shape, KEY, dtype)
        pieces = poisoned(shape, dtype)
        with wp.random.backend(name):
            for ends in itertools.product(*(itertools.pairwise(cut) for cut in cuts)):
                where = tuple(slice(first, last) for first, last in ends)
                box = wp.Box(shape, tuple(first for first, _ in ends))
                case.fill_(pieces[where], KEY, box=box)  # a strided view of the whole
        assert identical(pieces, whole)


@pytest.mark.parametrize("name", ["reference", "cpu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_long_rows_split_too(name: str, dtype: torch.dtype) -> None:
    """Rows longer than a kernel's chunk, cut at places that are not multiples of a block."""
    shape = (3, 5001)
    whole = wp.random.normal(shape, KEY, dtype=dtype)
    with wp.random.backend(name):
        for first, last in ((0, 2501), (2501, 5000), (5000, 5001)):
            part = poisoned((3, last - first), dtype)
            wp.random.normal_(part, KEY, box=wp.Box(shape, (0, first)))
            assert identical(part, whole[:, first:last])


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_memory_layout_does_not_matter(case: Case) -> None:
    dtype = case.dtypes[0]
    whole = case.draw((6, 4, 5), KEY, dtype)
    for view in (
        poisoned((5, 4, 6), dtype).permute(2, 1, 0),
        poisoned((6, 4, 10), dtype)[:, :, ::2],
        poisoned((12, 4, 5), dtype)[3:9],
    ):
        assert identical(case.fill_(view, KEY), whole)


def test_only_the_view_is_written() -> None:
    base = torch.zeros(4, 6)
    wp.random.normal_(base[1:3, 2:5], KEY)
    outside = base.clone()
    outside[1:3, 2:5] = 0
    assert not outside.any()


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_thread_counts_agree(case: Case) -> None:
    size = 2**18 + 3
    results = []
    for threads in (1, 2, 3, 4):
        torch.set_num_threads(threads)
        results.append(case.fill_(poisoned((size,), case.dtypes[0]), KEY))
    assert all(identical(result, results[0]) for result in results)


def test_eight_threads_at_once() -> None:
    torch.set_num_threads(3)
    sizes = [2**18 + 1, 5, 4097, 2**17]
    want = [wp.random.normal(size, KEY, call=size) for size in sizes]

    def work(_: int) -> bool:
        return all(
            identical(wp.random.normal(size, KEY, call=size), result)
            for _ in range(3)
            for size, result in zip(sizes, want, strict=True)
        )

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(8)))


FORKED = """
import os, signal, torch, wellposed as wp
torch.set_num_threads(2)
torch.ones(1 << 20).sum()  # torch's team of threads exists from here on, and not in a child
draw = lambda: wp.random.normal(1 << 18, wp.Key(0)).numpy().tobytes()
want = draw() if DRAWN else None
read, write = os.pipe()
child = os.fork()
if child == 0:
    signal.alarm(60)  # ends a child that hangs
    import hashlib
    os.write(write, hashlib.sha256(draw()).digest())
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0, "the child hangs"
import hashlib
assert os.read(read, 32) == hashlib.sha256(want or draw()).digest()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork here")
@pytest.mark.parametrize("drawn", [True, False], ids=["after its parent drew", "after its parent imported"])
def test_a_forked_child_draws(drawn: bool) -> None:
    code = FORKED.replace("DRAWN", str(drawn))
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_no_global_generator_is_read_or_advanced() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    first = [case.draw(100, KEY, case.dtypes[0]) for case in CASES]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # type: ignore[index]  # noqa: NPY002
    torch.manual_seed(1)
    assert all(identical(case.draw(100, KEY, case.dtypes[0]), a) for case, a in zip(CASES, first, strict=True))


def test_cut_offs_far_out_change_nothing() -> None:
    """Truncation at +-1000 sigma is no truncation, to the last bit."""
    for dtype in (torch.float32, torch.float64):
        plain = wp.random.normal(10_000, KEY, 0.5, 2.0, dtype=dtype)
        assert identical(wp.random.truncated_normal(10_000, KEY, 0.5, 2.0, -2000.0, 2000.0, dtype=dtype), plain)
        assert identical(wp.random.truncated_normal(10_000, KEY, 0.5, 2.0, -math.inf, math.inf, dtype=dtype), plain)


def test_autograd_sees_a_change_but_no_graph() -> None:
    parameter = torch.nn.Parameter(torch.zeros(3))
    version = parameter._version
    assert wp.random.normal_(parameter, KEY) is parameter
    assert parameter.requires_grad
    assert parameter.is_leaf
    assert parameter._version > version
    square = (parameter**2).sum()
    wp.random.normal_(parameter.data, KEY, call=1)
    wp.random.normal_(parameter, KEY, call=1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        square.backward()


def test_meta_tensors_stay_meta() -> None:
    tensor = torch.empty(2**40, device="meta")
    assert wp.random.normal_(tensor, KEY).is_meta
    assert wp.random.uniform(3, KEY, device="meta").is_meta


def test_defaults_are_torchs() -> None:
    assert wp.random.normal(3, KEY).dtype == torch.float32
    torch.set_default_dtype(torch.float64)
    try:
        assert wp.random.normal((), KEY).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device("meta"):
        assert wp.random.normal((2, 3), KEY).is_meta
