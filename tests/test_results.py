"""Large results take memory that others have left, and never what anything still holds."""

import copy
import ctypes
import io
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

import wellposed as wp
from wellposed.random.kernels import results
from wellposed.random.kernels.results import LARGE, result_like

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems keep memory their own way")

KEY = wp.Key(3)
COUNT = LARGE // 4  # float32 elements of the smallest large result


def idle() -> list[int]:
    """The sizes of the blocks that lie idle, the latest last."""
    blocks = results._list[results._FIRST :][: results._list[results._COUNT]].tolist()
    return [ctypes.c_int64.from_address(block + 8 * results._SIZE).value for block in blocks]


@pytest.fixture(autouse=True)
def _nothing_idle() -> None:
    """Forget what lies idle; a test's worth of it is lost."""
    results._list[results._COUNT] = 0


def thinned(call: int = 0, count: int = COUNT) -> Tensor:
    return wp.dropout(torch.ones(count), 0.5, key=KEY, call=call)


def test_what_is_no_more_leaves_its_memory_to_the_next() -> None:
    first = thinned()
    address = first.data_ptr()
    del first
    second = thinned(1)
    assert second.data_ptr() == address
    with wp.random.backend("reference"):
        assert torch.equal(second, thinned(1))


HOLDERS: dict[str, Callable[[Tensor], object]] = {
    "the result": lambda y: y,
    "a view": lambda y: y[5:7],
    "a detached alias": lambda y: y.detach(),
    "its storage": lambda y: y.untyped_storage(),
    "an array": lambda y: y.numpy(),
    "a graph": lambda y: y.requires_grad_().exp(),
}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_nothing_that_is_held_is_taken(hold: Callable[[Tensor], object]) -> None:
    result = thinned()
    address = result.data_ptr()
    held = hold(result)
    del result
    other = thinned(1)
    assert other.data_ptr() != address
    del held
    assert thinned(2).data_ptr() == address


def test_a_backward_pass_takes_and_leaves_it_too() -> None:
    x = torch.ones(COUNT, requires_grad=True)
    for call in range(3):
        wp.dropout(x, 0.5, key=KEY, call=call).sum().backward()
        assert x.grad is not None
        assert torch.equal(x.grad, thinned(call))
        x.grad = None
    assert 0 < len(idle()) <= 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(2, COUNT), (COUNT // 64 + 1, 1, 129)])
def test_a_result_is_like_any_other_tensor(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = torch.empty(shape, dtype=dtype).transpose(0, 1).contiguous()
    y, plain = result_like(x), torch.empty_like(x)
    for attribute in ("shape", "dtype", "device", "requires_grad", "_version", "_base", "is_leaf"):
        assert getattr(y, attribute) == getattr(plain, attribute)
    assert y.stride() == plain.stride()
    assert not y._is_view()
    with torch.inference_mode():
        assert result_like(x).is_inference()


def test_it_can_be_copied_saved_shared_and_changed() -> None:
    y = thinned()
    expected = y.clone()
    assert torch.equal(copy.deepcopy(y), expected)
    file = io.BytesIO()
    torch.save(y, file)
    file.seek(0)
    assert torch.equal(torch.load(file), expected)
    y.share_memory_()
    assert y.is_shared()
    assert torch.equal(y, expected)
    assert torch.equal(thinned(0), expected)
    assert torch.equal(y.mul_(2), 2 * expected)


def test_its_size_is_fixed_and_says_so() -> None:
    y = thinned()
    with pytest.raises(RuntimeError, match="not resizable"):
        y.resize_(2 * COUNT)


def test_a_small_result_is_torchs_own() -> None:
    small = torch.ones(COUNT - 1)
    assert result_like(small).untyped_storage().resizable()
    del small
    assert not idle()


def test_what_lies_idle_is_bounded_and_the_latest() -> None:
    sizes = [40 * LARGE // 4 + n * results._UNIT for n in range(20)]
    held = [thinned(count=size // 4) for size in sizes]
    while held:
        held.pop()
    assert sum(idle()) <= results._IDLE < sum(sizes)
    assert idle() == sorted(sizes, reverse=True)[-len(idle()) :]


def test_nobody_waits_for_the_list() -> None:
    """Who finds it in use has memory all the same, which goes back to the system."""
    results._list[results._TAKEN] = 1
    try:
        first = thinned()
        with wp.random.backend("reference"):
            assert torch.equal(first, thinned())
        del first
    finally:
        results._list[results._TAKEN] = 0
    assert not idle()


def test_eight_threads_get_memory_of_their_own() -> None:
    expected = [thinned(call).sum().item() for call in range(8)]

    def work(call: int) -> bool:
        return all(thinned(call).sum().item() == expected[call] for _ in range(6))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(8)))


def run_alone(code: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_forked_child_changes_nothing_of_its_parents() -> None:
    run_alone(
        "import os, signal, warnings, torch, wellposed as wp\n"
        f"x = torch.ones({COUNT})\n"
        "held, left = (wp.dropout(x, 0.5, key=wp.Key(3), call=call) for call in range(2))\n"
        "del left\n"
        "before, held = held.clone().numpy(), held.numpy()\n"  # a child has none of torch's threads
        "warnings.simplefilter('ignore')  # that threads run\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    signal.alarm(60)  # ends a child that hangs\n"
        "    held[:] = 0\n"
        "    os._exit(0 if (wp.dropout(x, 0.5, key=wp.Key(3)).numpy() == before).all() else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert (held == before).all()\n"
    )


def test_where_there_is_no_memory_torch_says_so() -> None:
    run_alone(
        "import pathlib, resource, torch, wellposed as wp\n"
        f"x = torch.ones({COUNT}).expand(64, -1).contiguous()\n"
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


def test_a_program_may_end_while_results_live() -> None:
    run_alone(
        "import torch, wellposed as wp\n"
        f"x = torch.ones({COUNT}, requires_grad=True)\n"
        "y = wp.dropout(x, 0.5, key=wp.Key(0))\n"
        "x.loop = y\n"
        "z = wp.dropout(y, 0.5, key=wp.Key(1)).exp()\n"
    )
