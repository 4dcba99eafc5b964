"""What is likely to be wrong with the dropout in a model."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from wellposed._torch import AnyBatchNorm, modules_being_called
from wellposed.dropouts.equivalents import equivalent
from wellposed.dropouts.naming.streams import Stochastic
from wellposed.dropouts.torch_dropout import MODULES, dropout_arguments
from wellposed.models.example import tensors_in
from wellposed.models.names import joined
from wellposed.models.tracing.draws import draws

_DROPS = (*MODULES, Stochastic)
_SHIFTED = (
    "dropout comes before the batch normalisation {}, whose running variance then is that of training and too large in "
    "evaluation; move dropout behind the last batch normalisation"
)
_LIVE = (
    "{} draws whatever the mode, so it drops in evaluation too: {}; pass training=self.training, or "
    "dropout_p=p if self.training else 0.0"
)
_TWICE = (
    "{} works in place on what an activation wrote in place, and may overwrite what the backward pass needs; pass "
    "inplace=False to one of them"
)
_UNSEEN = (
    "{} was not called in evaluation mode on the example, so whether it drops there is not known; give an example that "
    "reaches it"
)


@dataclass(frozen=True)
class DropoutFinding:
    """One thing that is likely to be wrong with the dropout in a model.

    Attributes:
        rule: "before-batch-norm", "live-in-eval" or "in-place-twice"; or "unseen" for what could not be judged.
        path: Where in the model.
        message: What it is, why it matters and what to do.
    """

    rule: str
    path: str
    message: str


def lint_dropout(model: nn.Module, example: Any = None) -> tuple[DropoutFinding, ...]:
    """Look for dropout that is likely to be a mistake.

    Looked for are dropout before batch normalisation, in-place dropout right after an in-place activation, and dropout
    that drops in evaluation mode too. Without an example the first two are looked for in ``nn.Sequential`` alone, and
    the third, which is dropout called as a function without regard to the mode, is not seen at all.

    Args:
        model: The model.
        example: An input: a tensor, a tuple of arguments or a mapping of keyword arguments. With it a copy of the model
            runs once in evaluation mode: the outputs of dropout are followed to where they are used, all that draws
            random numbers is found, and modules that the run does not reach are reported as unseen.

    Returns:
        The findings, in the order of the model.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4))
        >>> [(finding.rule, finding.path) for finding in lint_dropout(model)]
        [('before-batch-norm', '1')]

    Source: Li et al. (2019) for the shift of variance between dropout and batch normalisation.
    """
    findings: list[DropoutFinding] = []
    if example is not None:
        flow = _Flow()
        run = draws(model, example, training=False, beside=flow.of)
        findings += [DropoutFinding(rule, run.paths.get(m, ""), message) for rule, m, message in flow.found]
        for path, lines in run.drawn.items():
            message = _LIVE.format(type(model.get_submodule(path)).__name__, ", ".join(lines))
            findings.append(DropoutFinding("live-in-eval", path, message))
        for path in run.unseen:
            module = model.get_submodule(path)
            if equivalent(module) is None:  # or else its class is known to obey the mode
                findings.append(DropoutFinding("unseen", path, _UNSEEN.format(type(module).__name__)))
    for path, module in model.named_modules():
        if isinstance(module, nn.Sequential):
            findings += _order(path, module)
    places = {path: place for place, (path, _) in enumerate(model.named_modules())}
    once = {(finding.rule, finding.path): finding for finding in reversed(findings)}
    return tuple(sorted(once.values(), key=lambda finding: places.get(finding.path, 0)))


def _order(path: str, module: nn.Sequential) -> Iterator[DropoutFinding]:
    children = list(_flattened(path, module))
    for index, (where, child) in enumerate(children):
        norms = [later for later, other in children[index + 1 :] if isinstance(other, AnyBatchNorm)]
        if isinstance(child, _DROPS) and norms and getattr(child, "p", 1.0) != 0:
            yield DropoutFinding("before-batch-norm", where, _SHIFTED.format(norms[0]))
    for (_, first), (where, second) in pairwise(children):
        both = getattr(first, "inplace", False) and getattr(second, "inplace", False)
        if both and isinstance(second, MODULES):
            yield DropoutFinding("in-place-twice", where, _TWICE.format(type(second).__name__))


def _flattened(path: str, module: nn.Sequential) -> Iterator[tuple[str, nn.Module]]:
    """The modules of a sequence and of the sequences in it, in the order in which they are called."""
    for name, child in module.named_children():
        where = joined(path, name)
        if isinstance(child, nn.Sequential):
            yield from _flattened(where, child)
        else:
            yield where, child


class _Flow(TorchFunctionMode):
    """Follows the outputs of dropout to where they are used, in one run of a model in evaluation mode.

    Attributes:
        found: Rule, module and message of what is likely to be wrong.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, nn.Module | None, str]] = []
        self._paths: dict[nn.Module | None, str] = {}
        self._dropped = WeakTensorKeyDictionary()  # tensor -> the modules whose dropout went into it
        self._written = WeakTensorKeyDictionary()  # tensors that an activation wrote in place

    def of(self, model: nn.Module) -> "_Flow":
        """Follow the outputs of wellposed's modules in a model too, which in evaluation call no torch function."""
        self._paths = {module: path for path, module in model.named_modules()}
        for module in model.modules():
            if isinstance(module, Stochastic) and getattr(module, "p", 1.0) != 0:
                module.register_forward_hook(lambda module, _, output: self._mark(output, module))
        return self

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        into = frozenset[nn.Module]().union(*(self._dropped.get(x, ()) for x in tensors_in((args, kwargs))))
        output = function(*args, **(kwargs or {}))
        for tensor in tensors_in(output):
            self._dropped[tensor] = into
        given = dropout_arguments(function, args, kwargs or {})
        if given is not None and given["p"] != 0:
            module = next(modules_being_called(), None)
            if given.get("inplace") and given["input"] in self._written:
                self.found.append(("in-place-twice", module, _TWICE.format(type(module).__name__)))
            return self._mark(output, module)
        if given is None and args and output is args[0] and hasattr(functional, function.__name__.rstrip("_")):
            self._written[output] = True
        if function is functional.batch_norm:
            norm = next(modules_being_called(), None)
            message = _SHIFTED.format(self._paths.get(norm, ""))
            self.found += [("before-batch-norm", module, message) for module in into]
        return output

    def _mark(self, output: Any, module: nn.Module | None) -> Any:
        """The output of dropout, which in evaluation is the input itself, as a tensor of its own."""
        if not isinstance(output, Tensor) or module is None:
            return output
        marked = output.detach()
        self._dropped[marked] = self._dropped.get(output, frozenset()) | {module}
        return marked
