"""Dropout under ``torch.func`` and compilers together: the masks of eager ``torch.func``, and none drawn but once."""

from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
import torch._functorch.config
import torch._inductor.config
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, jvp, vjp, vmap

import wellposed as wp
from dropout_module_cases import CASES, Case, filled

pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),  # torch's compiler, of itself
    pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning"),  # of torch's recurrent cells
]
MERGING = "aot_eager_decomp_partition"  # which makes one of two operations that look alike
Randomness = Literal["different", "same"]


def seeded(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The output and the input's gradient."""
    x = x.clone().requires_grad_()
    torch.manual_seed(3)
    y = function(x)
    return y.detach(), torch.autograd.grad(y.square().sum(), x)[0]


def agree(function: Callable[[Tensor], Tensor], x: Tensor, backend: str = MERGING) -> Tensor:
    """Compiled is eager; returns the output."""
    torch.compiler.reset()
    wanted = seeded(function, x)
    for got, eager in zip(seeded(torch.compile(function, backend=backend, fullgraph=True), x), wanted, strict=True):
        assert torch.allclose(got, eager, rtol=1e-10, atol=1e-14)
    return wanted[0]


def batch(case: Case) -> Tensor:
    return wp.random.normal((3, *case.shape), wp.Key(1), dtype=torch.float64)


@pytest.mark.parametrize("randomness", ["different", "same"])
@pytest.mark.parametrize("case", [case for case in CASES if case.compiles], ids=str)
def test_vmap_inside_a_compiled_function_is_eager_vmap(case: Case, randomness: Randomness) -> None:
    module = filled(case.make(0.5))
    agree(vmap(lambda x: module(x), randomness=randomness), batch(case))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Dropout", "DropConnect", "DropBlock2d", "TokenDropout"])
def test_the_default_compiler_too(name: str) -> None:
    case = next(case for case in CASES if case.name == name)
    module = filled(case.make(0.5))
    with torch._functorch.config.patch(enable_autograd_cache=False), torch._inductor.config.patch(fx_graph_cache=False):
        agree(vmap(lambda x: module(x), randomness="different"), batch(case), "inductor")


def plain(function: Any) -> Any:
    return function


def masks(randomness: Randomness, way: Callable[[Any], Any]) -> Tensor:
    """What is dropped from a weight that the samples share."""
    layer = wp.DropConnect(nn.Linear(64, 1, bias=False), 0.5)
    nn.init.ones_(layer.module.get_parameter("weight"))

    def output(x: Tensor) -> Tensor:
        y: Tensor = layer(x)
        return y

    y: Tensor = way(vmap(output, randomness=randomness))(torch.eye(64).repeat(3, 1, 1))
    return y.detach()[..., 0] == 0


@pytest.mark.parametrize("way", [plain, torch.compile(backend=MERGING, fullgraph=True)], ids=["eager", "compiled"])
def test_a_shared_weight_has_a_mask_for_each_sample_or_one_for_all(way: Callable[[Any], Any]) -> None:
    torch.compiler.reset()
    different, same = masks("different", way), masks("same", way)
    assert (different[0] != different[1]).any()
    assert (different[1] != different[2]).any()
    assert torch.equal(same[0], same[1])
    with pytest.raises(Exception, match=r"randomness=\W*error\W* forbids"):
        masks("error", way)  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["aot_eager", MERGING])
def test_two_calls_with_one_input_draw_two_masks(backend: str) -> None:
    layer = wp.Dropout(0.5)
    first, second = agree(lambda x: torch.stack([layer(x), layer(x)]), torch.ones(64), backend)
    assert (first != second).any()


@pytest.mark.parametrize("case", [case for case in CASES if case.compiles], ids=str)
def test_gradients_of_each_sample(case: Case) -> None:
    """Vectorised, with respect to inputs and parameters, they are those of a loop."""
    module, x = filled(case.make(0.5)), batch(case)
    parameters: dict[str, Tensor] = dict(module.named_parameters())

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        y: Tensor = functional_call(module, parameters, (x,)).square().sum()
        return y

    gradients = grad(loss, argnums=(0, 1))
    with wp.keyed(0):
        together = vmap(gradients, in_dims=(None, 0), randomness="different")(parameters, x)
    with wp.keyed(0):
        one_by_one = [gradients(parameters, sample) for sample in x]
    assert torch.allclose(together[1], torch.stack([of_x for _, of_x in one_by_one]), rtol=1e-10, atol=1e-14)
    for name, got in together[0].items():
        assert torch.allclose(got, torch.stack([of[name] for of, _ in one_by_one]), rtol=1e-10, atol=1e-14)


def drop(x: Tensor) -> Tensor:
    return wp.dropout(x, 0.5, key=wp.Key(0)) ** 2


TRANSFORMED: dict[str, Callable[[Tensor], Tensor]] = {
    "grad": lambda x: grad(lambda x: drop(x).sum())(x),
    "vmap of grad": lambda x: vmap(grad(lambda x: drop(x).sum()))(x),
    "vjp": lambda x: vjp(drop, x)[1](x)[0],
    "jvp": lambda x: jvp(drop, (x,), (x + 1,))[1],
    "jacrev": lambda x: jacrev(drop)(x),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_transforms_inside_a_compiled_function(name: str) -> None:
    agree(TRANSFORMED[name], wp.random.normal((3, 8), wp.Key(0), dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_transforms_inside_a_compiled_function_round_once(dtype: torch.dtype) -> None:
    torch.compiler.reset()
    x = wp.random.normal((3, 800), wp.Key(0), dtype=dtype)
    x[0, :10] = torch.inf
    vectorised = vmap(lambda x: wp.dropout(x, 0.3, key=wp.Key(0)))
    assert torch.equal(torch.compile(vectorised, backend=MERGING, fullgraph=True)(x), vectorised(x))


@pytest.mark.parametrize("randomness", ["different", "same"])
def test_monte_carlo_of_a_model_that_vectorises_is_that_of_a_loop(randomness: Randomness) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = wp.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = vmap(self.drop, randomness=randomness)(x)
            return y

    model, x = Model(), torch.ones(3, 16)
    together, alone = (wp.monte_carlo(model, x, samples=5, chunk_size=chunk_size).samples for chunk_size in (5, 1))
    assert torch.equal(together, alone)
