"""Thinning in pointwise operations: the bits of the operator, nothing read by the host, and nothing kept."""

from typing import Any

import pytest
import torch
from torch import Tensor

import wellposed as wp
from accelerator import Accelerator, there
from draw_cases import identical
from wellposed.dropouts import operator
from wellposed.dropouts.masks import Law, cut_of, stream_tensor
from wellposed.dropouts.pointwise import cut_of_tensor, thin_pointwise
from wellposed.random.draw import cut_bits, cut_tensor

LAWS: tuple[Law, ...] = ("scaled", "selu", "selu slope")
PLACES: dict[str, tuple[Any, ...]] = {  # dims, the box, the dimension of samples; and the row
    "everywhere": (None, (), (), 0, 0),
    "rows of a batch": (None, (), (), 0, 3),
    "locked": ((0, 2), (), (), 0, 5),
    "locked, time first": ((1, 2), (), (), 1, 2),
    "samples": ((0,), (), (), 0, 5),
    "a box": (None, (9, 8, 7), (1, 2, 0), 0, 0),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("law", LAWS)
def test_it_is_the_operator_bit_for_bit(law: Law, place: tuple[Any, ...]) -> None:
    *where, row = place
    dims, shape, offset, batch = where
    stream = stream_tensor(2**64 - 5, 2**40 + 1, row)
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        x = wp.random.normal((4, 5, 6), wp.Key(0), dtype=dtype)
        for p in (0.0, 0.3, 1.0):
            rate = torch.tensor(p, dtype=torch.float64)
            wanted = torch.ops.wellposed.dropout(x, stream, rate, *where, law)
            assert identical(thin_pointwise(x, stream, rate, dims, shape, offset, batch, law), wanted)
            with wp.random.backend("reference"):
                assert identical(operator._compute_there(x, stream, rate, *where, law), wanted)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_cut_comes_out_of_p_alike_on_host_and_device(law: Law, dtype: torch.dtype) -> None:
    for p in (0.0, 1e-9, 0.1, 0.5, 0.9, 1.0):
        made = cut_tensor(*cut_of_tensor(torch.tensor(p, dtype=torch.float64), law), dtype=dtype)
        assert made.tolist() == list(cut_bits(cut_of(p, law), dtype == torch.float64))


def test_one_p_for_each_row() -> None:
    x, stream = wp.random.normal((4, 6), wp.Key(0)), stream_tensor(7, 1)
    rates = torch.tensor([0.1, 0.5, 0.9, 0.0])
    where = (None, (), (), 0, "scaled")
    assert identical(
        operator._compute_there(x, stream, rates, *where), torch.ops.wellposed.dropout(x, stream, rates, *where)
    )


@pytest.mark.parametrize("p", [-0.1, 1.5, torch.nan])
def test_a_p_that_is_none_gives_nan_where_it_cannot_be_refused(p: float) -> None:
    where = (None, (), (), 0, "scaled")
    for rate in (torch.tensor(p), torch.full((4,), p)):
        with wp.random.backend("reference"):
            assert operator._compute_there(torch.ones(4, 6), stream_tensor(7, 1), rate, *where).isnan().all()


def test_p_and_stream_stay_where_they_are() -> None:
    x, p, rates = (there(tensor) for tensor in (torch.ones(4, 6), torch.tensor(0.3), torch.full((4,), 0.3)))
    stream = there(stream_tensor(7, 1))
    with Accelerator():
        for rate in (p, rates):
            thin_pointwise(x, stream, rate, None, (), (), 0, "scaled")
        cut_tensor(*cut_of_tensor(p, "selu"), dtype=torch.float32)


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_model_draws_the_same_masks_and_keeps_none(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    """As compilers see it on other devices than the CPU, for which they are shown the operator."""
    monkeypatch.setattr(operator, "_OPAQUE", ("meta",))
    model = torch.nn.Sequential(torch.nn.Identity(), wp.Dropout(0.3), torch.nn.Tanh(), wp.AlphaDropout(0.2))
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    for step in range(3):
        x, z = (wp.random.normal((64, 32), wp.Key(step)).requires_grad_() for _ in range(2))
        kept.clear()
        with wp.keyed(3, step), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            y = compiled(x)
        with wp.keyed(3, step):
            wanted = model(z)
        torch.testing.assert_close(y, wanted)
        assert torch.equal(y == 0, wanted == 0)
        grad, wanted_grad = torch.autograd.grad(y.sum(), x)[0], torch.autograd.grad(wanted.sum(), z)[0]
        torch.testing.assert_close(grad, wanted_grad)
        if backend == "inductor":  # whose partition computes again what is cheap
            assert not [tensor for tensor in kept if tensor.dtype == torch.bool]
