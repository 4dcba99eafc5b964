"""Signal propagation: a started model is run forward and backward, and what is dead or out of scale in it is named."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wellposed._torch import AnyBatchNorm
from wellposed.errors import WellposedError
from wellposed.init.initializers.entrywise import Normal, Ones
from wellposed.init.plan import Bound, Row
from wellposed.models.copying import copied, tensors_of
from wellposed.models.example import arguments, tensors_in
from wellposed.models.example import copied as copied_input
from wellposed.models.names import joined, unwrapped
from wellposed.models.regions import part_of
from wellposed.models.roles import is_called_normalisation
from wellposed.random.key import Key
from wellposed.random.shards import is_sharded

_FACTOR = 1000.0  # by which a block may make what goes through it larger or smaller
_MATRICES = ("weight", "recurrent", "embedding")
_CLOSED = (*_MATRICES, "token", "fixed")  # what may start at zero to some purpose, as a normalisation's scale does not


def findings(bound: Bound, example: Any) -> tuple[list[str], str]:
    """What is wrong with the signal in a started model, on an input.

    A copy is run once, forward and backward from a random projection of its outputs, in evaluation mode but for batch
    normalisation. What is closed on purpose is open in it: gates are 1, and what a scheme or a rule makes zero is not.
    Wrong are an output that is constant or not a number, a weight that takes part and gets no gradient, and a block
    whose output is a thousandth or a thousand times its input, in a shape that is the same.

    Args:
        bound: The plan that was applied, bound to the model; nothing is changed.
        example: An input.

    Returns:
        What is wrong, by name; and, if it could not be looked at, why.
    """
    path, model = unwrapped(bound.model)
    given = arguments(example)
    if any(t.is_meta or is_sharded(t) for t in (*tensors_of(model), *tensors_in(given))):
        return [], "it is not all in one memory"
    if not any(bool((t != t.flatten()[:1]).any()) for t in tensors_in(given)):
        return [], "the example is constant"
    failure = ""
    for mode in (True, False):  # batch normalisation may need more than the example has
        run = _Run(bound, model, path, mode)
        try:
            run(given)
        except WellposedError:
            raise
        except Exception as error:  # whatever a model may raise
            failure = failure or f"the model fails on the example with {type(error).__name__}: {error}"
        else:
            return run.problems(), ""
    return [], failure.splitlines()[0]


class _Run:
    """One run of a copy that shares the model's memory, but for what is opened in it."""

    def __init__(self, bound: Bound, model: nn.Module, path: str, batch_statistics: bool) -> None:
        self.weights = {id(p): (weight, rows) for weight, rows in bound.weights for p in weight.parameters}
        self.moved: dict[str, bool] = {}
        self.sizes: dict[str, tuple[float, float]] = {}
        self.outputs: list[Tensor] = []
        parameters = {id(p): self._parameter(p) for p in model.parameters()}
        self.copy = copied(model, parameters).eval()
        for name, module in self.copy.named_modules(prefix=path):
            if isinstance(module, AnyBatchNorm):
                module.train(batch_statistics)
            if next(module.parameters(), None) is not None and not is_called_normalisation(module):
                _measure(module, name, self.sizes)

    def __call__(self, given: tuple[tuple[Any, ...], Mapping[str, Any]]) -> None:
        args, kwargs = copied_input(given)
        with torch.enable_grad(), torch.random.fork_rng(devices=_devices(self.copy)):
            outputs = tensors_in(_plain(self.copy(*args, **kwargs)))
            self.outputs = [out for out in outputs if out.is_floating_point() and out.requires_grad]
            if self.outputs:
                projections = [
                    Normal()(tuple(out.shape), Key(0).fold(str(i)), dtype=out.dtype, device=out.device)
                    for i, out in enumerate(self.outputs)
                ]
                torch.autograd.backward(self.outputs, projections)

    def _parameter(self, parameter: nn.Parameter) -> nn.Parameter:
        """A parameter in the same memory without its hooks, that notes whether it gets a gradient; or an opened one."""
        weight, rows = self.weights[id(parameter)]
        values = parameter.detach()
        closed = [row for row in rows if _is_closed(row, part_of(values, row.where))]
        if closed and weight.computed is None:
            values = values.clone()
            for row in closed:
                part = part_of(values, row.where)
                opened = Normal(0.0, part.shape[-1] ** -0.5) if part.ndim > 1 else Ones()
                opened.fill_(part, Key(0).fold(row.label))
        alias = nn.Parameter(values, parameter.requires_grad)
        if parameter.requires_grad and any(row.role in _MATRICES and row.follows != "attention" for row in rows):

            def note(other: Tensor, name: str = rows[0].name) -> None:
                assert other.grad is not None
                values = other.grad.coalesce().values() if other.grad.is_sparse else other.grad
                self.moved[name] = self.moved.get(name, False) or bool(values.any())
                other.grad = None

            alias.register_post_accumulate_grad_hook(note)
        return alias

    def problems(self) -> list[str]:
        """What is wrong."""
        found = []
        for i, out in enumerate(self.outputs):
            name = "the output" if len(self.outputs) == 1 else f"output {i}"
            values = out.detach()
            if bool(values.isnan().any()):
                found.append(f"{name} is not a number")
            elif values.numel() > 1 and bool((values == values.flatten()[0]).all()):
                found.append(f"{name} is constant, {float(values.flatten()[0]):.3g} everywhere")
        found += [f"{name} gets no gradient" for name, moved in self.moved.items() if not moved]
        wrong = {name: after / before for name, (before, after) in self.sizes.items() if _is_off(before, after)}
        for name, ratio in wrong.items():
            if not any(_is_inside(other, name) for other in wrong):
                found.append(f"the output of {name or 'the model'} is {ratio:.3g} times its input")
        return found


def _is_closed(row: Row, part: Tensor) -> bool:
    """Whether a part is a gate, or was made zero on purpose."""
    meant = row.role in _CLOSED or row.gain == 0 or row.note == "by rule" or row.initializer is None
    return row.role == "gate" or (meant and row.role not in ("bias", "forget") and not bool(part.any()))


def _measure(module: nn.Module, path: str, sizes: dict[str, tuple[float, float]]) -> None:
    """Note the sizes of what goes into a module and what comes out, where both have one shape."""
    before: list[tuple[torch.Size, float] | None] = []

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        tensors = tensors_in((args, kwargs))
        first = tensors[0] if tensors and tensors[0].is_floating_point() else None
        before.append(None if first is None else (first.shape, _size(first)))

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        given, tensors = before.pop(), tensors_in(_plain(output))
        if given is not None and tensors and tensors[0].shape == given[0] and tensors[0].is_floating_point():
            sizes.setdefault(path, (given[1], _size(tensors[0])))

    module.register_forward_pre_hook(enter, with_kwargs=True)
    module.register_forward_hook(leave)


def _size(tensor: Tensor) -> float:
    """The root mean square of the entries that are finite."""
    values = tensor.detach().double()
    return float(values[values.isfinite()].square().mean().sqrt())


def _is_off(before: float, after: float) -> bool:
    return before > 0 and math.isfinite(after) and not 1 / _FACTOR < after / before < _FACTOR


def _is_inside(inner: str, outer: str) -> bool:
    return inner != outer and inner.startswith(joined(outer, ""))


def _plain(output: Any) -> Any:
    """An output with the values of mappings of types of their own, such as transformers' outputs."""
    return dict(output) if isinstance(output, Mapping) else output


def _devices(model: nn.Module) -> Iterator[int]:
    return iter({t.device.index for t in tensors_of(model) if t.is_cuda})
