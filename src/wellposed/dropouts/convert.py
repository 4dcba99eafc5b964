"""Swapping the dropout inside somebody else's model: what is known, what is left, and why."""

import ast
import inspect
import textwrap
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from torch import nn

from wellposed.dropouts.modules import AlphaDropout, Dropout, Dropout1d, Dropout2d, Dropout3d, FeatureAlphaDropout
from wellposed.dropouts.paths import DropPath
from wellposed.dropouts.streams import Stochastic
from wellposed.dropouts.structured import DropBlock2d, TokenDropout

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Conversion:
    """What ``convert_dropout`` does to a model.

    Attributes:
        swapped: Path of a module -> what takes its place, printed.
        named: Paths of modules that were wellposed's already and are only named.
        left: Path of a module that drops something -> why it is left as it is.
    """

    swapped: dict[str, str]
    named: tuple[str, ...]
    left: dict[str, str]

    def __str__(self) -> str:
        lines = [f"{path or '(the model)'} -> {new}" for path, new in self.swapped.items()]
        lines += [f"{path or '(the model)'} named" for path in self.named]
        lines += [f"{path or '(the model)'} left: {why}" for path, why in self.left.items()]
        return "\n".join(lines) or "no dropout found"


def convert_dropout(model: Model, *, seed: int = 0) -> Model:
    """Swap a model's dropout modules in place for wellposed's, each with a stream named after its path.

    Known are torch's dropout modules, timm's ``DropPath``, ``DropBlock2d`` and ``PatchDropout``, torchvision's
    ``StochasticDepth`` and ``DropBlock2d``, and the ``DropPath`` and ``StableDropout`` of transformers. p and the mode
    stay. ``dropout_conversion`` tells beforehand what would happen; what is left as it is, such as dropout that a
    module calls as a function, is warned of.

    Args:
        model: The model.
        seed: Sets streams apart: models converted with different seeds have different masks in one ``keyed`` block.

    Returns:
        ``model``; or what takes its place if it is itself a dropout module.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.2))
        >>> convert_dropout(model)[1], model[1].stream
        (Dropout(p=0.2), '1')
    """
    report = dropout_conversion(model)
    replaced: dict[nn.Module, Stochastic] = {}
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if path in report.named:
            new = cast(Stochastic, module)
        elif path in report.swapped:
            new = replaced.get(module) or _equivalent(module)
            replaced[module] = new.train(module.training)
        else:
            continue
        if new.stream is None:
            new.stream = path if seed == 0 else f"{seed}/{path}"
        if path:
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, new)
        else:
            model = cast(Model, new)
    if report.left:
        reasons = "; ".join(f"{path or 'the model'}: {why}" for path, why in report.left.items())
        warnings.warn(f"convert_dropout left dropout as it is: {reasons}", stacklevel=2)
    return model


def dropout_conversion(model: nn.Module) -> Conversion:
    """Tell what ``convert_dropout`` would do, without doing it.

    Args:
        model: The model.

    Returns:
        What would be swapped, what only named, and what left as it is and why. Functional dropout is found in the
        source of the modules' classes.

    Example:
        >>> print(dropout_conversion(nn.Sequential(nn.Dropout(0.2), nn.MultiheadAttention(4, 2, dropout=0.1))))
        0 -> Dropout(p=0.2)
        1 left: MultiheadAttention drops attention weights inside a function (dropout=0.1)
    """
    swapped: dict[str, str] = {}
    named: list[str] = []
    left: dict[str, str] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, Stochastic):
            named.append(path)
        elif _maker(module) is None:
            if why := _drops_by_itself(module):
                left[path] = why
        elif why := _differs(module):
            left[path] = why
        else:
            swapped[path] = repr(_equivalent(module))
    return Conversion(swapped, tuple(named), left)


def _equivalent(module: nn.Module) -> Stochastic:
    maker = _maker(module)
    assert maker is not None
    return maker(module)


Maker = Callable[[Any], Stochastic]

# The class, by the module that defines it and its name -> what takes its place. Nothing is imported to know them.
_KNOWN: dict[tuple[str, str], Maker] = {
    **{
        ("torch.nn.modules.dropout", ours.__name__): lambda m, ours=ours: ours(m.p)  # type: ignore[misc]
        for ours in (Dropout, Dropout1d, Dropout2d, Dropout3d, AlphaDropout, FeatureAlphaDropout)
    },
    ("timm.layers.drop", "DropPath"): lambda m: DropPath(m.drop_prob or 0.0, scale_by_keep=m.scale_by_keep),
    ("timm.layers.drop", "DropBlock2d"): lambda m: DropBlock2d(
        m.drop_prob, m.block_size, couple_channels=m.couple_channels
    ),
    ("timm.layers.patch_dropout", "PatchDropout"): lambda m: TokenDropout(m.prob, prefix=m.num_prefix_tokens),
    ("torchvision.ops.stochastic_depth", "StochasticDepth"): lambda m: DropPath(m.p, m.mode),
    ("torchvision.ops.drop_block", "DropBlock2d"): lambda m: DropBlock2d(m.p, m.block_size),
}


def _maker(module: nn.Module) -> Maker | None:
    home, name = type(module).__module__, type(module).__name__
    if home.startswith("transformers.") and name.endswith("DropPath"):
        return lambda m: DropPath(m.drop_prob or 0.0)
    if home.startswith("transformers.") and name == "StableDropout":
        return lambda m: Dropout(m.drop_prob)
    return _KNOWN.get((home, name))


def _differs(module: nn.Module) -> str:
    """Why a module of a known class is not what takes its place, if it is not."""
    if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
        return f"{type(module).__name__} has hooks, which a swap would lose"
    options = {"with_noise": False, "gamma_scale": 1.0, "scale_by_keep": True}
    for name, value in options.items():
        if name in vars(module) and vars(module)[name] != value and type(module).__name__ == "DropBlock2d":
            return f"{type(module).__name__} has {name}={getattr(module, name)}, which wellposed's has not"
    return ""


def _drops_by_itself(module: nn.Module) -> str:
    """How a module drops something other than by a dropout module, if it does."""
    name = type(module).__name__
    if isinstance(module, nn.MultiheadAttention):
        return f"{name} drops attention weights inside a function (dropout={module.dropout})" if module.dropout else ""
    if isinstance(module, nn.RNNBase):
        return f"{name} drops between layers inside a function (dropout={module.dropout})" if module.dropout else ""
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return f"{name} is a class of its own that extends one of torch's"
    if type(module).__module__.startswith("torch.nn."):
        return ""
    calls = sorted({call for call, _ in functional_dropout(type(module))})
    return f"{name} calls {', '.join(calls)}" if calls else ""


def functional_dropout(kind: type[nn.Module]) -> Iterator[tuple[str, bool]]:
    """The calls of functional dropout in the source of a class: "function (line)", and whether the mode guards it."""
    try:
        source, first = inspect.getsourcelines(kind)
        tree = ast.parse(textwrap.dedent("".join(source)))
    except (OSError, TypeError, SyntaxError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = ast.unparse(node.func)
            prefix, _, last = function.rpartition(".")
            options = {option.arg: ast.unparse(option.value) for option in node.keywords}
            rate = options.get("dropout_p", "0.0")
            where = f"{function} (line {first + node.lineno - 1})"
            if prefix in _HOMES and last in _FUNCTIONS:
                mode = options.get("training") or (ast.unparse(node.args[2]) if len(node.args) > 2 else "True")
                yield where, mode != "True"
            elif last == "scaled_dot_product_attention" and rate not in ("0", "0.0"):
                yield where, "training" in rate or not rate.replace(".", "").isdigit()


_HOMES = ("F", "functional", "nn.functional", "torch.nn.functional", "torch")
_FUNCTIONS = frozenset(
    ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "native_dropout")
) | {"dropout_", "feature_dropout"}
