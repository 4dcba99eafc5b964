"""All control-flow paths of a model's forward pass, each as a graph of torch.fx."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import fx, nn

from wellposed._torch import TENSORS_OF_A_MODULE, AnyBatchNorm, forward_hooks
from wellposed.models.copying import copied
from wellposed.models.names import joined, unwrapped
from wellposed.models.roles import CONVOLUTIONS

# What a forward pass may read of a layer instead of calling it.
_LAYERS = (nn.Linear, *CONVOLUTIONS, AnyBatchNorm, nn.MultiheadAttention)
_READ = {
    "weight", "bias", "running_mean", "running_var", "in_proj_weight", "in_proj_bias", "q_proj_weight", "k_proj_weight",
    "v_proj_weight", "in_features", "out_features", "in_channels", "out_channels", "num_features", "num_heads",
    *TENSORS_OF_A_MODULE,
}  # fmt: skip
TRANSFORMER_LAYERS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
_TRANSFORMERS = (*TRANSFORMER_LAYERS, nn.TransformerEncoder, nn.TransformerDecoder, nn.Transformer)
_MOST_WAYS, _MOST_QUESTIONS = 64, 16


@dataclass(frozen=True)
class Traceable:
    """A module that can be traced.

    Args:
        prefix: What stands before the names in the graphs: empty for the model itself, else the part's name and a dot.
        graphs: The forward pass, once for every way that it can take.
    """

    prefix: str
    graphs: tuple[fx.Graph, ...]

    @cached_property
    def calls(self) -> tuple[Counter[str], ...]:
        """How often each module is called on each way, by its full name."""
        return tuple(
            Counter(self.prefix + str(node.target) for node in graph.nodes if node.op == "call_module")
            for graph in self.graphs
        )


@dataclass(frozen=True)
class Traced:
    """What is known of a model's forward pass.

    Args:
        parts: What could be traced.
        reads: The layers whose weights or sizes the forward pass reads itself.
        closed: The modules that could not be traced; what they do with the modules inside is not known.
        inside: Whether these were opened all the same.
    """

    parts: tuple[Traceable, ...]
    reads: frozenset[str]
    closed: tuple[str, ...]
    inside: bool

    def is_closed(self, name: str) -> bool:
        """Whether a module lies in one that could not be traced and was not opened."""
        return not self.inside and any(name.startswith(f"{outer}." if outer else "") for outer in self.closed)

    def ways(self) -> Iterator[tuple[Traceable, fx.Graph, Counter[str]]]:
        """Every graph of every part, and its calls."""
        for part in self.parts:
            for graph, calls in zip(part.graphs, part.calls, strict=True):
                yield part, graph, calls


def traced(model: nn.Module, inside: bool) -> Traced:
    """Trace a model, in evaluation mode and on copies.

    Args:
        model: The model; it is not changed.
        inside: Whether to trace the parts of what cannot be traced, whatever else may be done with them.

    Returns:
        What was found. Wrappers and containers without a forward pass are opened, and modules with hooks are taken as
        one and traced apart.
    """
    parts: list[Traceable] = []
    reads: set[str] = set()
    closed: list[str] = []
    todo = [("", model)]
    while todo:
        name, module = todo.pop(0)
        children = [(joined(name, child), part) for child, part in module.named_children()]
        if not children or type(module) in (nn.MultiheadAttention, *_TRANSFORMERS):
            continue
        if type(module).forward is nn.Module.forward or unwrapped(module)[0]:
            todo += children
            continue
        prefix = f"{name}." if name else ""
        graphs = () if "forward" in vars(module) else _ways(module, prefix, reads)
        if graphs:
            parts.append(Traceable(prefix, graphs))
            called = {target for calls in parts[-1].calls for target in calls}
            todo += [(n, m) for n, m in model.named_modules() if n in called and not _is_whole(m) and altered(m)]
        else:
            closed.append(name)
            todo += children if inside else []
    return Traced(tuple(parts), frozenset(reads), tuple(closed), inside)


def altered(module: nn.Module) -> bool:
    """Whether hooks, or a ``forward`` of its own, may change what goes into a module or comes out of it."""
    hooks = (hook for kind in forward_hooks(module) for hook in kind.values())
    return "forward" in vars(module) or not all(getattr(hook, "only_watches", False) for hook in hooks)


def _is_whole(module: nn.Module) -> bool:
    """Whether a module is a leaf of symbolic tracing: those of torch but ``Sequential``."""
    return module.__module__.startswith(("torch.nn", "torch.ao.nn")) and not isinstance(module, nn.Sequential)


def _ways(module: nn.Module, prefix: str, reads: set[str]) -> tuple[fx.Graph, ...]:
    """A graph for each control-flow path of a forward pass, or none if it cannot be traced."""
    graphs: list[fx.Graph] = []
    found: set[str] = set()
    todo: list[tuple[bool, ...]] = [()]
    ways = 0
    while todo:
        answers, ways = todo.pop(), ways + 1
        trial = copied(module).eval()
        tracer = _Tracer(answers, found)
        for name, layer in trial.named_modules():
            if isinstance(layer, _LAYERS):
                object.__setattr__(layer, "__class__", _reading(type(layer), prefix + name, tracer))
        try:
            graphs.append(tracer.trace(trial))
        except (AssertionError, ValueError) as error:  # the model itself may refuse what goes this way
            if isinstance(error, fx.proxy.TraceError):
                return ()
        except Exception:  # whatever a forward pass may raise when it is given symbols instead of tensors
            return ()
        given = tracer.given
        todo += [(*given[:i], not given[i]) for i in range(len(answers), len(given))]
        if ways + len(todo) > _MOST_WAYS:
            return ()
    reads |= found
    return tuple(graphs)


class _Tracer(fx.Tracer):
    """Traces one control-flow path: by the given answers to its conditions, and "no" to those after them.

    A question is a condition on a tensor, or whether an argument that may be left out is.
    """

    def __init__(self, answers: tuple[bool, ...], reads: set[str]) -> None:
        super().__init__()
        self.answers, self.given, self.reads, self.watching = answers, list[bool](), reads, True

    def answer(self) -> bool:
        if len(self.given) == _MOST_QUESTIONS:
            raise fx.proxy.TraceError("too many conditions")
        self.given.append(self.answers[len(self.given)] if len(self.given) < len(self.answers) else False)
        return self.given[-1]

    def to_bool(self, obj: fx.Proxy) -> bool:
        return self.answer()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return super().is_leaf_module(m, module_qualified_name) or altered(m)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **options: Any) -> Any:
        left_out = kind == "placeholder" and args and (args[0] is None or isinstance(args[0], bool)) and self.answer()
        return args[0] if left_out else super().create_proxy(kind, target, args, kwargs, *rest, **options)

    # Torch's own search for a parameter's name is no reading of the forward pass.
    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        self.watching, before = False, self.watching
        try:
            return super().getattr(attr, attr_val, parameter_proxy_cache)
        finally:
            self.watching = before

    def create_arg(self, a: Any) -> Any:
        self.watching, before = False, self.watching
        try:
            return super().create_arg(a)
        finally:
            self.watching = before


def _reading(kind: type[nn.Module], name: str, tracer: _Tracer) -> type[nn.Module]:
    """A layer type that tells a tracer when its weights or sizes are read."""

    def read(self: nn.Module, attribute: str) -> Any:
        if attribute in _READ and tracer.watching:
            tracer.reads.add(name)
        return object.__getattribute__(self, attribute)

    return type(kind.__name__, (kind,), {"__getattribute__": read, "__module__": kind.__module__})
