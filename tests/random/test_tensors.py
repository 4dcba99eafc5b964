"""Ordinary tensors, and those that something watches: what they are given, what is kept, and what refuses."""

import contextlib
import copy
import gc
import io
import math
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import wellposed as wp
from draw_cases import CASES, FLOATS

KEY = wp.Key(5)
NUMBERS = (1, True, np.float64(1), np.float32(1), torch.tensor(1.0))
SIZES = (0, 1, 3, 64, 2047, 65_535, 65_536, 70_001)


def reference(draw: Callable[[], Tensor]) -> Tensor:
    """What plain torch draws."""
    with wp.random.backend("reference"):
        return draw()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_draws_that_take_turns_do_not_mix(dtype: torch.dtype) -> None:
    """Constants are kept from call to call; none may get another's."""
    cases = [case for case in CASES if dtype in case.dtypes]
    expected = [reference(lambda case=case: case.draw(9, KEY, dtype)) for case in cases]  # type: ignore[misc]
    for _ in range(2):
        for case, values in zip(cases, expected, strict=True):
            for _ in range(2):
                assert torch.equal(case.fill_(torch.full((9,), math.nan, dtype=dtype), KEY), values)


def test_dtypes_that_take_turns_do_not_mix() -> None:
    for _ in range(3):
        for dtype in FLOATS:
            drawn = wp.random.normal_(torch.empty(5, dtype=dtype), KEY)
            assert torch.equal(drawn, reference(lambda dtype=dtype: wp.random.normal(5, KEY, dtype=dtype)))  # type: ignore[misc]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "number",
    [1, True, np.float64(1), np.float32(1), torch.tensor(1.0)],
    ids=["int", "bool", "float64", "float32", "tensor"],
)
def test_numbers_of_any_kind_give_the_same(size: int, number: Any) -> None:
    assert torch.equal(wp.random.normal_(torch.empty(size), KEY, 0.0, number), wp.random.normal(size, KEY, 0.0, 1.0))


def test_a_number_that_changes_is_read_anew() -> None:
    std = torch.tensor(1.0)
    first = wp.random.normal_(torch.empty(4), KEY, 0.0, std)  # type: ignore[arg-type]
    std.fill_(3.0)
    assert torch.allclose(wp.random.normal_(torch.empty(4), KEY, 0.0, std), 3 * first)  # type: ignore[arg-type]


@pytest.mark.parametrize("call", [0, 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1])
def test_calls_of_every_size(call: int) -> None:
    assert torch.equal(wp.random.bits(7, KEY, call=call), reference(lambda: wp.random.bits(7, KEY, call=call)))
    x = torch.ones(7)
    assert torch.equal(
        wp.dropout(x, 0.5, key=KEY, call=call), reference(lambda: wp.dropout(x, 0.5, key=KEY, call=call))
    )


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (0, 3), (2, 3), (2, 1, 3), (1,) * 30])
def test_results_are_made_as_torch_makes_them(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = torch.ones(shape, dtype=dtype)
    y, expected = wp.dropout(x, 0.5, key=KEY), torch.empty_like(x)

    def traits(t: Tensor) -> list[object]:
        memory = t.untyped_storage()
        names = ("shape", "dtype", "device", "layout", "is_leaf", "requires_grad", "_version")
        return [type(t), *(getattr(t, name) for name in names), t.stride(), memory.nbytes(), memory.resizable()]

    assert traits(y) == traits(expected)
    with torch.inference_mode():
        assert wp.dropout(x, 0.5, key=KEY).is_inference()
    y.resize_(9).requires_grad_().mul(2.0).sum().backward()


LAID: dict[str, Callable[[Tensor], Tensor]] = {
    "strided": lambda x: torch.stack([x, x], dim=-1)[..., 0],
    "transposed": lambda x: x.t().contiguous().t(),
    "negated": lambda x: torch._neg_view(-x),
    "a part": lambda x: torch.cat([x, x])[: len(x)],
    "a misaligned part": lambda x: torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape),
}


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", LAID)
def test_how_a_tensor_lies_does_not_matter(name: str, dtype: torch.dtype) -> None:
    x = wp.random.normal((5, 7), KEY, dtype=dtype)
    laid = LAID[name](x)
    assert torch.equal(laid, x)
    drops: list[Callable[[Tensor], Tensor]] = [
        lambda x: wp.dropout(x, 0.5, key=KEY),
        lambda x: wp.dropout(x, 0.5, key=KEY, dims=1),
        lambda x: run_once(wp.AlphaDropout(0.5), x),
        lambda x: run_once(wp.TokenDropout(0.5), x),
    ]
    for drop in drops:
        assert torch.equal(drop(laid), drop(x))
    assert torch.equal(wp.random.uniform_(laid, KEY), wp.random.uniform((5, 7), KEY, dtype=dtype))


def run_once(module: torch.nn.Module, x: Tensor) -> Tensor:
    with wp.keyed(0):
        y: Tensor = module(x)
    return y


def test_the_sign_of_a_lazily_negated_tensor_is_honoured() -> None:
    z = torch.zeros(1, dtype=torch.complex64).conj()
    wp.random.uniform_(z.imag, KEY)
    assert torch.equal(z.imag, wp.random.uniform(1, KEY))
    with wp.random.backend("reference"):
        wp.random.uniform_(z.imag, KEY, call=1)
    assert torch.equal(z.imag, wp.random.uniform(1, KEY, call=1))


WITHOUT_KERNELS: dict[str, Callable[[], Tensor]] = {
    "integer": lambda: torch.zeros(3, dtype=torch.int64),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "compressed": lambda: torch.eye(3).to_sparse_csr(),
    "mkldnn": lambda: torch.eye(3).to_mkldnn(),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("name", WITHOUT_KERNELS)
def test_what_cannot_be_served_is_refused(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    x = WITHOUT_KERNELS[name]()
    with pytest.raises(wp.WellposedError, match="expected"):
        wp.dropout(x, 0.5, key=KEY)
    with pytest.raises(wp.WellposedError, match="expected"):
        wp.random.uniform_(x, KEY)
    assert capfd.readouterr() == ("", "")


def test_what_a_node_of_the_graph_keeps_may_be_deleted() -> None:
    x = torch.ones(3, requires_grad=True)
    y = wp.dropout(x, 0.5, key=KEY)
    assert y.grad_fn is not None
    del y.grad_fn.mask  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        y.sum().backward()


def test_watchers_are_seen() -> None:
    """Modes, transforms and tracers get to see the operator."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            names.append(str(func))
            return func(*args, **(kwargs or {}))

    names: list[str] = []
    with Names():  # type: ignore[no-untyped-call]
        wp.dropout(torch.ones(3), 0.5, key=KEY)
    assert "wellposed.dropout.default" in names


def test_batches_of_gradients_say_nothing_on_the_way(capfd: pytest.CaptureFixture[str]) -> None:
    x = torch.ones(6, requires_grad=True)
    y = wp.dropout(x, 0.5, key=KEY)
    (rows,) = torch.autograd.grad(y, x, torch.eye(6), is_grads_batched=True)
    assert torch.equal(rows.diagonal(), y)
    assert capfd.readouterr() == ("", "")


def refused(x: Tensor, low: float) -> None:
    """A fill that raises."""
    with contextlib.suppress(wp.WellposedError):
        wp.random.uniform_(x, KEY, low, 0.5)
        pytest.fail("not refused")


WORK: dict[str, Callable[[], object]] = {
    "fill": lambda: wp.random.uniform_(torch.empty(3), KEY),
    "fill, turns": lambda: [case.fill_(torch.empty(3), KEY) for case in CASES if torch.float32 in case.dtypes],
    "fill, large": lambda: wp.random.uniform_(torch.empty(70_000), KEY),
    "refused numbers": lambda: refused(torch.empty(3), 1.0),
    "refused dtype": lambda: refused(torch.ones(3, dtype=torch.int64), 0.0),
    "thin": lambda: wp.dropout(torch.ones(3), 0.5, key=KEY),
    "thin groups": lambda: wp.dropout(torch.ones(3, 2), 0.5, key=KEY, dims=0),
    "module": lambda: wp.Dropout(0.5)(torch.ones(3)),
    "gradient": lambda: wp.Dropout(0.5)(torch.ones(3, requires_grad=True)).sum().backward(),
    "strided gradient": lambda: wp.dropout(torch.ones(3, 2, requires_grad=True), 0.5, key=KEY).t()[:2].sum().backward(),
    "to a floor": lambda: wp.AlphaDropout(0.5)(torch.ones(3, requires_grad=True)).sum().backward(),
    "left alone": lambda: wp.dropout(torch.ones(3, 2).t(), 0.5, key=KEY),
}


@pytest.mark.parametrize("name", WORK)
def test_nothing_is_kept(name: str) -> None:
    """After 2000 calls hardly more memory is in use than before; an object kept a call would be 2000 blocks."""
    work = WORK[name]
    for _ in range(500):
        work()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(2000):
        work()
    gc.collect()
    assert sys.getallocatedblocks() - before < 1000


def test_references_are_counted() -> None:
    key, x, draw = wp.Key(9), torch.empty(4), 0.25
    words, numbers = key.words, (None, False, True, 0, 1, draw)

    def counts() -> list[int]:
        return [
            sys.getrefcount(thing) for thing in (key, x, words, torch.float32, wp.random.draw.uniform, torch.Tensor)
        ]

    wp.random.uniform_(x, key, 0.0, draw)
    before, shared = counts(), [sys.getrefcount(number) for number in numbers]
    for _ in range(1000):
        wp.random.uniform_(x, key, 0.0, draw)
        wp.dropout(x, 0.5, key=key)
    assert max(abs(new - old) for new, old in zip(counts(), before, strict=True)) <= 1
    after = [sys.getrefcount(number) for number in numbers]
    assert max(abs(new - old) for new, old in zip(after, shared, strict=True)) < 100


def test_threads_that_draw_differently_at_once() -> None:
    """Each thread has its own sizes, draws and masks, among them ones that work without the interpreter."""

    def work(seed: int) -> bool:
        key, generator = wp.Key(seed), np.random.default_rng(seed)
        case = CASES[seed % 4]
        for _ in range(60):
            size = int(generator.choice(SIZES))
            drawn = case.fill_(torch.empty(size), key)
            if not torch.equal(drawn[:100], whole[seed][: min(size, 100)]):
                return False
            x = torch.ones(size, requires_grad=True)
            y = wp.dropout(x, 0.5, key=key)
            y.backward(torch.ones_like(y))
            if not torch.equal(torch.as_tensor(x.grad), y.detach()):
                return False
        return True

    whole = [reference(lambda seed=seed: CASES[seed % 4].draw(100, wp.Key(seed), torch.float32)) for seed in range(8)]  # type: ignore[misc]
    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(8)))


def test_an_interrupted_loop_leaves_no_exception_behind() -> None:
    """A refusal inside a builtin must not surface later, out of some other call."""
    for _ in range(10):
        with pytest.raises(wp.WellposedError):
            wp.random.uniform_(torch.empty(3), KEY, 1.0, 0.0)
        assert [int(text) for text in ("1", "2")] == [1, 2]
        assert wp.random.uniform_(torch.empty(3), KEY).shape == (3,)


def test_without_the_core_all_is_the_same() -> None:
    """Where it could not be built, the reference serves."""
    code = """
import sys
if MISSING:
    sys.modules["wellposed._native"] = None
import torch, wellposed as wp
x = torch.ones(2, 3, 8, 8, requires_grad=True)
torch.manual_seed(0)
for drop in (wp.Dropout(0.5), wp.AlphaDropout(0.5), wp.DropBlock2d(0.3, 3), wp.TokenDropout(0.5), wp.Dropout2d(0.5)):
    y = drop(x)
    (slope,) = torch.autograd.grad(y, x, torch.ones_like(y))
    print(y.double().sum().item(), slope.double().sum().item())
model = torch.nn.Linear(3, 4)
wp.initialize(model, seed=0)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
handle = wp.regularize(optimizer, model, wp.L1(1.0))
model(torch.ones(2, 3)).sum().backward()
optimizer.step()
print(model.weight.tolist(), handle.sparsity(), wp.random.normal(3, wp.Key(0)).tolist())
"""

    def printed(missing: bool) -> str:
        command = [sys.executable, "-c", code.replace("MISSING", str(missing))]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert printed(True) == printed(False)


TRACED = {
    "export": "torch.export.export(torch.nn.Sequential(make()), (x,), strict=False)",
    "make_fx": "make_fx(lambda x: wp.dropout(x, 0.5, key=key), tracing_mode='fake')(x)",
    "make_fx of a module": "make_fx(make(), tracing_mode='real')(x)",
    "make_fx of the import": "make_fx(lambda x: make()(x), tracing_mode='fake')(x)",
}


@pytest.mark.parametrize("way", TRACED)
def test_the_first_use_may_be_traced(way: str) -> None:
    """And what runs after it draws as ever."""
    code = f"""
import torch, wellposed as wp
from torch.fx.experimental.proxy_tensor import make_fx
make, x, key = (lambda: wp.Dropout()), torch.ones(2, 4), wp.Key(1)
{TRACED[way]}
assert torch.equal(wp.dropout(x, 0.5, key=key) == 0, wp.random.bernoulli((2, 4), key, 0.5))
torch.manual_seed(0)
y = wp.Dropout(0.5)(x)
torch.manual_seed(0)
number = torch.empty((), dtype=torch.int64).random_().item()
assert torch.equal(y == 0, wp.random.bernoulli((2, 4), wp.Key(number), 0.5))
for make in (wp.AlphaDropout, wp.GaussianDropout, wp.ConcreteDropout):
    {TRACED[way]}
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


LARGE = 2**21  # float32 elements of a result for which large pages are asked


def test_large_results_are_torchs_own() -> None:
    """They can be saved, shared, changed and resized as any other."""
    y = wp.dropout(torch.ones(LARGE), 0.5, key=KEY)
    expected = y.clone()
    file = io.BytesIO()
    torch.save(y, file)
    file.seek(0)
    assert torch.equal(torch.load(file), expected)
    y.share_memory_()
    assert torch.equal(copy.deepcopy(y).mul_(2), 2 * expected)
    assert wp.dropout(torch.ones(LARGE), 0.5, key=KEY).resize_(2 * LARGE).numel() == 2 * LARGE


def run_alone(code: str) -> None:
    command = [sys.executable, "-W", "error", "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork here")
def test_a_child_that_is_forked_in_the_middle_of_work_drops_on() -> None:
    run_alone(
        "import os, signal, threading, warnings, torch, wellposed as wp\n"
        "torch.set_num_threads(2)\n"
        f"x = torch.ones({LARGE})\n"
        "expected = wp.dropout(x, 0.5, key=wp.Key(3)).numpy().copy()\n"
        "going = True\n"
        "def work():\n"
        "    while going:\n"
        "        wp.dropout(x, 0.5, key=wp.Key(4))\n"
        "thread = threading.Thread(target=work)\n"
        "thread.start()\n"
        "warnings.simplefilter('ignore')  # that threads run\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    signal.alarm(60)  # ends a child that hangs\n"
        "    os._exit(0 if (wp.dropout(x, 0.5, key=wp.Key(3)).numpy() == expected).all() else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "going = False\n"
        "thread.join()\n"
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux limits a process's memory so")
def test_where_there_is_no_memory_torch_says_so() -> None:
    run_alone(
        "import pathlib, resource, torch, wellposed as wp\n"
        f"x = torch.ones({LARGE}).expand(64, -1).contiguous()\n"
        "wp.dropout(x[:1], 0.5, key=wp.Key(3))\n"
        "used = int(pathlib.Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + x.nbytes // 2, used + x.nbytes // 2))\n"
        "try:\n"
        "    wp.dropout(x, 0.5, key=wp.Key(3))\n"
        "except RuntimeError as error:\n"
        "    assert 'allocate memory' in str(error)\n"
        "else:\n"
        "    raise AssertionError('there was memory')\n"
        "assert wp.dropout(x[:1], 0.5, key=wp.Key(3)).count_nonzero() > 0\n"
    )
