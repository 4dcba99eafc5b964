"""What is likely to be wrong with the dropout in a model."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import nn

from wellposed.dropouts.calls import functional_dropout
from wellposed.dropouts.draws import draws
from wellposed.dropouts.streams import Stochastic

_NORMS = nn.modules.batchnorm._BatchNorm
_DROPS = (nn.modules.dropout._DropoutNd, Stochastic)


@dataclass(frozen=True)
class DropoutFinding:
    """One thing that is likely to be wrong.

    Attributes:
        rule: "before-batch-norm", "live-in-eval" or "in-place-twice".
        path: Where in the model.
        message: What it is, why it matters and what to do.
    """

    rule: str
    path: str
    message: str


def lint_dropout(model: nn.Module, example: Any = None) -> tuple[DropoutFinding, ...]:
    """Look for dropout that is likely to be a mistake.

    Looked for are: dropout before batch normalisation in an ``nn.Sequential``; dropout called as a function without
    regard to the mode, which is live in evaluation; in-place dropout right after an in-place activation.

    Args:
        model: The model.
        example: An input: a tensor, a tuple of arguments or a mapping of keyword arguments. With it a copy of the model
            runs once in evaluation mode, and all that draws random numbers is found; without it, source is read.

    Returns:
        The findings, in the order of the model.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4))
        >>> [(finding.rule, finding.path) for finding in lint_dropout(model)]
        [('before-batch-norm', '1')]

    Source: Li et al. (2019) for the shift of variance between dropout and batch normalisation.
    """
    findings = []
    drawn = None if example is None else draws(model, example, training=False)
    for path, module in model.named_modules():
        if isinstance(module, nn.Sequential):
            findings += list(_order(path, module))
        if drawn is None:
            live = [call for call, is_guarded in functional_dropout(module) if not is_guarded]
        else:
            live = drawn.get(path, [])
        if live:
            message = (
                f"{type(module).__name__} draws whatever the mode, so it drops in evaluation too: {', '.join(live)}; "
                "pass training=self.training, or dropout_p=p if self.training else 0.0"
            )
            findings.append(DropoutFinding("live-in-eval", path, message))
    return tuple(findings)


def _order(path: str, module: nn.Sequential) -> Iterator[DropoutFinding]:
    children = [(f"{path}.{name}" if path else name, child) for name, child in module.named_children()]
    for index, (where, child) in enumerate(children):
        norms = [later for later, other in children[index + 1 :] if isinstance(other, _NORMS)]
        if isinstance(child, _DROPS) and norms and getattr(child, "p", 1.0) != 0:
            message = (
                f"dropout comes before the batch normalisation {norms[0]}, whose running variance then is that of "
                "training and too large in evaluation; move dropout behind the last batch normalisation"
            )
            yield DropoutFinding("before-batch-norm", where, message)
    for (_, first), (where, second) in pairwise(children):
        both = getattr(first, "inplace", False) and getattr(second, "inplace", False)
        if both and isinstance(second, nn.modules.dropout._DropoutNd):
            message = (
                f"{type(second).__name__} works in place on what {type(first).__name__} wrote in place, and "
                "may overwrite what the backward pass needs; pass inplace=False to one of them"
            )
            yield DropoutFinding("in-place-twice", where, message)
