"""What dropout is given: every kind of tensor that torch's takes is dropped right, or refused in words."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

import wellposed as wp
from dropout_module_cases import CASES, Case, filled
from wellposed.dropouts.naming.streams import Stochastic

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*nested tensors:UserWarning", "ignore:.*MaskedTensors:UserWarning", "ignore:.*torch.jit:DeprecationWarning"
)
X = torch.ones(8, 4)


class Sub(Tensor):
    """A subclass without a word of its own."""


TAKEN: dict[str, Callable[[], Any]] = {
    "tensor": lambda: X,
    "parameter": lambda: nn.Parameter(X),
    "buffer": lambda: nn.Buffer(X),
    "subclass": lambda: X.as_subclass(Sub),
}
REFUSED: dict[str, Callable[[Tensor], Any]] = {
    "nested": lambda x: torch.nested.nested_tensor([*x.split(2)]),
    "jagged": lambda x: torch.nested.nested_tensor([*x.split(2)], layout=torch.jagged),
    "masked": lambda x: torch.masked.masked_tensor(x, x == x),
    "sparse": lambda x: x.to_sparse(),
    "uninitialized": lambda x: nn.UninitializedParameter(),
    "integers": lambda x: x.long(),
    "packed sequence": lambda x: pack_sequence(x.split(2)),
    "list": lambda x: x.tolist(),
    "array": lambda x: x.numpy(),
    "number": lambda x: 3,
    "nothing": lambda x: None,
}
CALLS: dict[str, Callable[[Any], Any]] = {
    "module": lambda x: wp.Dropout(0.5)(x),
    "function": lambda x: wp.dropout(x, 0.5, key=wp.Key(3).fold("")),
    "torch's module": lambda x: nn.Dropout(0.5)(x),
}


def keyed(call: Callable[[Any], Any], x: Any) -> Any:
    with wp.keyed(3):
        return call(x)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", TAKEN)
def test_what_is_taken_has_the_mask_of_a_tensor(kind: str, call: str) -> None:
    y = keyed(CALLS[call], TAKEN[kind]())
    assert torch.equal(y == 0, wp.random.bernoulli(X.shape, wp.Key(3).fold(""), 0.5))
    assert type(y) is (Sub if kind == "subclass" else Tensor)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_is_refused_in_words(kind: str, call: str) -> None:
    x = REFUSED[kind](X)
    if (kind, call) == ("uninitialized", "torch's module"):
        pytest.skip("torch itself refuses it")
    with pytest.raises(wp.WellposedError):
        keyed(CALLS[call], x)


@pytest.mark.parametrize("name", ["Dropout1d", "Dropout2d", "LockedDropout", "AlphaDropout", "FeatureAlphaDropout"])
def test_a_packed_sequence_is_refused_with_advice(name: str) -> None:
    for x in (pack_sequence([X, X[:3]]), [1.0], None):
        with pytest.raises(wp.WellposedError, match=f"{name} was given an object of type .*expected a tensor"):
            getattr(wp, name)()(x)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (wp.Dropout(), (8, 4)),
        (wp.AlphaDropout(), (8, 4)),
        (wp.Dropout2d(), (2, 3, 4, 4)),
        (wp.DropBlock2d(0.5, 2), (2, 3, 4, 4)),
        (wp.GaussianDropout(0.4), (8, 4)),
        (wp.LockedDropout(), (3, 4, 5)),
    ],
    ids=repr,
)
def test_functionalized_is_eager(module: nn.Module, shape: tuple[int, ...]) -> None:
    x = wp.random.normal(shape, wp.Key(0), dtype=torch.float64)
    gradient = torch.func.grad(lambda x: module(x).square().sum())
    for function in (module, gradient):
        assert torch.allclose(keyed(torch.func.functionalize(function), x), keyed(function, x), rtol=1e-12)


@pytest.mark.filterwarnings("ignore:.torch.jit.trace. is deprecated:FutureWarning")  # from torch 2.14 on
def test_scripts_are_refused_in_words() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).eval()
    wp.convert_dropout(model)
    with pytest.raises(wp.WellposedError, match=r"Dropout was given to torch.jit.script.*back=True"):
        torch.jit.script(model)
    traced = torch.jit.trace(model, X)
    assert torch.equal(traced(X), model(X))
    scripted = torch.jit.script(wp.convert_dropout(model, back=True))
    assert torch.equal(scripted(X), model(X))


@pytest.fixture
def mesh() -> Iterator[Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    try:
        from torch.distributed.device_mesh import init_device_mesh

        yield init_device_mesh("cpu", (1,))
    finally:
        dist.destroy_process_group()
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)


def test_distributed_tensors_have_their_shards_masks_or_are_refused(mesh: Any) -> None:
    from torch.distributed.tensor import Shard, distribute_tensor
    from torch.distributed.tensor.parallel import SequenceParallel, parallelize_module

    x = distribute_tensor(X, mesh, [Shard(0)])
    for call in CALLS.values():
        y = keyed(call, x)
        assert type(y) is type(x)
        assert torch.equal(y.full_tensor(), keyed(call, X))
    for module in (wp.Dropout(0.5), wp.GaussianDropout(0.5)):
        with pytest.raises(wp.WellposedError, match=f"{type(module).__name__} was given a DTensor"):
            module(x)
    model = nn.Sequential(nn.LayerNorm(4), wp.Dropout(0.5))
    parallelize_module(model, mesh, {"0": SequenceParallel(), "1": SequenceParallel()})
    with wp.keyed(3):
        assert type(model(torch.ones(2, 8, 4))) is type(x)


def outcome(case: Case, change: Callable[[Tensor], Any], is_keyed: bool, is_training: bool = True) -> Any:
    """What the dropout module of a row gives, or raises, for its input as another kind of thing."""
    model = filled(case.make(0.5)).train(is_training)
    layer = next(m for m in model.modules() if isinstance(m, Stochastic | wp.MultiheadAttention))
    layer.register_forward_pre_hook(lambda _, given: tuple(change(x.detach()) for x in given))
    outputs: list[Any] = []
    layer.register_forward_hook(lambda _, given, output: outputs.append(output))
    try:
        with wp.keyed(3) if is_keyed else nullcontext():
            model(wp.random.normal(case.shape, wp.Key(1), dtype=torch.float64))
    except Exception as problem:
        return outputs[0] if outputs else problem
    return outputs[0]


def flat(output: Any) -> list[Tensor]:
    """The tensors of an output, each as one array."""
    if isinstance(output, Tensor) and output.is_nested:
        return [torch.cat(output.unbind())]
    if isinstance(output, Tensor):
        return [output.full_tensor() if hasattr(output, "full_tensor") else output]  # of a DTensor
    return [x for part in output if part is not None for x in flat(part)]


@pytest.mark.parametrize("is_keyed", [True, False], ids=["keyed", "free"])
@pytest.mark.parametrize("case", [case for case in CASES if case.name != "DropConnect of a cell"], ids=str)
def test_every_module_takes_a_kind_right_or_refuses_it_in_words(case: Case, is_keyed: bool, mesh: Any) -> None:
    from torch.distributed.tensor import Shard, distribute_tensor

    kinds = REFUSED | {"distributed": lambda x: distribute_tensor(x, mesh, [Shard(0)])}
    del kinds["integers"]  # which a module inside refuses itself, as it does other dtypes than its own
    for kind, change in kinds.items():
        torch.manual_seed(0)
        told = outcome(case, change, is_keyed)
        if isinstance(told, wp.WellposedError):
            continue
        if isinstance(told, Exception):  # the module of the user's that is inside takes no such thing
            assert case.name.startswith(("DropConnect", "LayerDrop")), f"{kind}: {told!r}"
            alone = outcome(case, change, is_keyed, is_training=False)
            assert type(alone) is type(told), f"{kind}: {told!r}"
            continue
        torch.manual_seed(0)
        expected = flat(outcome(case, lambda x: x, is_keyed))
        assert all(map(torch.allclose, flat(told), expected)), kind


def test_names_of_weights_may_be_one_name() -> None:
    layer = wp.DropConnect(nn.LSTM(4, 5), 0.5, names="weight_hh_l0")
    assert layer.names == ("weight_hh_l0",)
    with pytest.raises(wp.WellposedError, match=r"given names \['weight'\]"):
        wp.DropConnect(nn.LSTM(4, 5), 0.5, names="weight")
