"""What only a GPU can show: that nothing waits for it, that a captured graph draws anew, and its own arithmetic.

Elsewhere the kernels run in Triton's interpreter, which fuses nothing, waits for nothing and captures nothing.
"""

from collections.abc import Callable

import pytest
import torch
from torch import nn

import wellposed as wp
from gpu_tools import same_bits

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
KEY = wp.Key(7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_a_million_values_and_masks_are_those_of_the_host(dtype: torch.dtype) -> None:
    for fill in (wp.random.uniform_, wp.random.normal_, wp.random.truncated_normal_):
        there, here = (torch.empty(2**20 + 3, dtype=dtype, device=device) for device in ("cuda", "cpu"))
        assert same_bits(fill(there, KEY), fill(here, KEY))
    x = wp.random.normal(2**20 + 3, KEY, dtype=dtype)
    assert same_bits(wp.dropout(x.cuda(), 0.3, key=KEY), wp.dropout(x, 0.3, key=KEY))


def regularized_step() -> object:
    model = nn.Linear(64, 64).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    wp.regularize(optimizer, model, wp.L1(1e-4))
    model(torch.ones(4, 64, device="cuda")).square().mean().backward()
    return optimizer.step


VERBS: dict[str, Callable[[], object]] = {
    "dropout": lambda: wp.dropout(torch.ones(4, 64, device="cuda"), 0.1, key=KEY),
    "dropout by a p that is there": lambda: wp.dropout(
        torch.ones(4, 64, device="cuda"), torch.full((), 0.1, device="cuda"), key=KEY
    ),
    "channels": lambda: wp.Dropout2d(0.1)(torch.ones(2, 4, 16, 16, device="cuda")),
    "blocks": lambda: wp.DropBlock2d(0.1, 3)(torch.ones(2, 4, 16, 16, device="cuda")),
    "tokens": lambda: wp.TokenDropout(0.5)(torch.ones(4, 8, 64, device="cuda")),
    "noise": lambda: wp.GaussianDropout(0.1)(torch.ones(4, 64, device="cuda")),
    "fill": lambda: wp.random.normal_(torch.empty(64, device="cuda"), KEY),
    "one tail": lambda: wp.random.truncated_normal_(torch.empty(64, device="cuda"), KEY, a=3.0, b=5.0),
    "prox": lambda: wp.L1(0.1).prox_(torch.ones(64, device="cuda"), 0.1),
}


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_nothing_waits(verb: Callable[[], object]) -> None:
    verb()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with wp.keyed(0):
            verb()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_regularized_step_waits_for_nothing() -> None:
    step = regularized_step()
    assert callable(step)
    step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_captured_graph_draws_the_masks_of_the_step() -> None:
    step, x = torch.zeros((), dtype=torch.int64, device="cuda"), torch.ones(4, 6, 300, device="cuda")
    model = nn.Sequential(nn.Identity(), wp.Dropout(0.5), wp.Dropout1d(0.5))
    with wp.keyed(0, step):
        model(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), wp.keyed(0, step):
        y = model(x)
    for number in (3, 4):
        step.fill_(number)
        graph.replay()
        with wp.keyed(0, number):
            assert same_bits(y, model(x))
    layer = wp.GaussianDropout(0.5)
    captured = torch.cuda.graph(torch.cuda.CUDAGraph())
    with pytest.raises(wp.WellposedError, match="captured"), captured, wp.keyed(0, step):
        layer(x)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_compiled_model_draws_the_masks_of_the_step(mode: str) -> None:
    model, x = nn.Sequential(nn.Linear(64, 64), wp.Dropout(0.5), nn.GELU()).cuda(), torch.ones(8, 64, device="cuda")
    compiled = torch.compile(model, mode=mode)
    for step in range(4):
        with wp.keyed(0, step):
            y = compiled(x).clone()
        with wp.keyed(0, step):
            wanted = model(x)
        torch.testing.assert_close(y, wanted)
        assert torch.equal(y == 0, wanted == 0)
