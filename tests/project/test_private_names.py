"""Private names of torch: that they stand in one file, and that each still does what we lean on it for."""

import ast
import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrizations
from torch.optim.sgd import SGD
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from ranks import rank_of
from wellposed import _torch
from wellposed.models.names import unwrapped

SOURCE = Path(__file__).parents[2] / "src" / "wellposed"
HOME = "_torch.py"
OUR_FILES = {path.name for path in (SOURCE.parents[1] / "build_tools").glob("*.py")}
OUR_FILES |= {path.stem for path in SOURCE.rglob("*.py.jinja")}
FRAMES = {"_getframe", "currentframe", "f_back", "f_code", "tb_frame"}
# Names in torch's code, which nothing of torch's has as an attribute: functions, and modules inside wrappers.
INSIDE = {"recompute_fn", "_engine_run_backward", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"}
INSIDE |= {"_is_flat_param", "_weight_bias"}
TORCHS = re.compile(r"(nn|fx|torch)\.|Torch")  # how base classes of torch's begin


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in ("_make", "_replace")  # of named tuples


def attributes_of_torch() -> set[str]:
    """The private attributes of torch's objects."""
    x = torch.ones(1, requires_grad=True)
    objects: list[Any] = [x, (x * 1).grad_fn, x.untyped_storage(), torch.optim.Adam([x]), torch.Generator()]
    objects += [nn.Linear(1, 1), nn.MultiheadAttention(2, 1), nn.LSTM(1, 1), nn.BatchNorm1d(1), nn.functional]
    objects += [torch, torch.autograd.forward_ad, torch.autograd.Function, torch.library.Library, torch.ops.aten.add]
    objects += [torch.ops.aten.add.Tensor, torch.overrides.TorchFunctionMode, _torch.TorchDispatchMode]
    objects += [fx.Tracer(), fx.Graph(), fx.GraphModule, fx.Proxy]
    return {n for o in objects for n in (*dir(o), *getattr(o, "__dict__", ())) if is_private(n)}


def members(tree: ast.AST) -> Iterator[str]:
    """The attributes that the classes of a file define, and that it gives to objects."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        if not isinstance(node, ast.ClassDef):
            continue
        for item in node.body:
            if isinstance(item, ast.FunctionDef):
                yield item.name
            elif isinstance(item, ast.Assign | ast.AnnAssign):
                targets = item.targets if isinstance(item, ast.Assign) else [item.target]
                yield from (target.id for target in targets if isinstance(target, ast.Name))


def private_names(source: Path) -> dict[str, list[str]]:
    """The private names of torch that each file uses, "line: name"."""
    trees = {str(path.relative_to(source)): ast.parse(path.read_text()) for path in sorted(source.rglob("*.py"))}
    torchs, ours = attributes_of_torch(), {file: set(members(tree)) for file, tree in trees.items()}

    def defined(file: str) -> set[str]:
        """The attributes that classes of this part of the package define."""
        part = file.split("/")[0]
        return set().union(*(names for other, names in ours.items() if other.split("/")[0] == part))

    return {file: sorted(_private_names(tree, torchs, defined(file))) for file, tree in trees.items()}


def _private_names(tree: ast.AST, torchs: set[str], ours: set[str]) -> set[str]:
    found = set()
    modules = {alias.asname or alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    imported = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module]
    modules |= {alias.asname or alias.name for n in imported if n.module == "wellposed" for alias in n.names}
    inherited = {
        id(node)
        for kind in ast.walk(tree)
        if isinstance(kind, ast.ClassDef)
        and any(re.match(r"(nn|fx|torch)\.|Torch", ast.unparse(b)) for b in kind.bases)
        for node in ast.walk(kind)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            found |= {f"{node.lineno}: {name}" for name in names if is_private(name)}
        elif isinstance(node, ast.Import):
            names = [p for alias in node.names for p in alias.name.split(".") if alias.name.startswith("torch.")]
            found |= {f"{node.lineno}: {name}" for name in names if is_private(name)}
        elif isinstance(node, ast.Attribute):
            root = ast.unparse(node).split(".")[0]
            is_ours = node.attr in ours and not (id(node) in inherited and root == "self" and node.attr in torchs)
            is_others = root in modules and root != "torch"  # Python's, or a function of another file of ours
            if (is_private(node.attr) and not is_ours and not is_others) or node.attr in FRAMES:
                found.add(f"{node.lineno}: {ast.unparse(node)}")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            is_inside = node.value in INSIDE or (node.value in torchs and node.value not in ours)
            if is_inside or (re.fullmatch(r"[\w/]+\.py", node.value) and node.value not in OUR_FILES):
                found.add(f"{node.lineno}: {node.value!r}")
    return found


def test_one_file_uses_private_names_of_torch() -> None:
    found = private_names(SOURCE)
    assert {file: names for file, names in found.items() if names and file != HOME} == {}


def test_the_names_are_found_in_all_their_forms(tmp_path: Path) -> None:
    lines = [
        "from torch.nn.modules.conv import _ConvNd",
        "import torch._dynamo",
        "torch._C._current_graph_task_id()",
        "module._parameters",
        "tensor._version",
        "sys._getframe()",
        'getattr(model, "_orig_mod")',
        'name == "checkpoint.py"',
        "class Heads(nn.Module): same = lambda self: self._buffers",
    ]
    (tmp_path / "file.py").write_text("\n".join(lines))
    found = private_names(tmp_path)["file.py"]
    assert {int(name.split(":")[0]) for name in found} == set(range(1, len(lines) + 1))


def test_every_private_name_has_a_use() -> None:
    text = "\n".join(path.read_text() for path in SOURCE.rglob("*.py") if path.name != HOME)
    tree = ast.parse((SOURCE / HOME).read_text())
    public = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not is_private(node.name)}
    public |= {*_torch.__all__, "AnyBatchNorm", "AnyBatchOrInstanceNorm", "TENSORS_OF_A_MODULE", "WRAPPERS"}
    assert {name for name in public if not re.search(rf"\b{name}\b", text)} == set()


def test_every_private_name_has_a_test() -> None:
    tree, text = ast.parse((SOURCE / HOME).read_text()), Path(__file__).read_text()
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assigned = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    defined |= {node.id for target in assigned for node in ast.walk(target) if isinstance(node, ast.Name)}
    public = {*_torch.__all__, *(name for name in defined if not name.startswith("_"))}
    assert {name for name in public if not re.search(rf"_torch\.{name}\b", text)} == set()


def test_nothing_more_of_torch_is_imported() -> None:
    code = (
        "import sys, torch; before = set(sys.modules); import wellposed as wp; [getattr(wp, n) for n in dir(wp)]"
        "; wp.Dropout(0.5)(torch.ones(3)); print(*[m for m in set(sys.modules) - before if m[:6] == 'torch.'])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []


def test_a_dispatch_mode_sees_operators() -> None:
    seen = []

    class Names(_torch.TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    with Names():  # type: ignore[no-untyped-call]
        nn.functional.dropout(torch.ones(2))
    assert any("dropout" in name or "bernoulli" in name for name in seen), "TorchDispatchMode no longer sees operators"


def test_trees_are_walked() -> None:
    tree: dict[str, Any] = {"a": [torch.ones(1)], "b": (torch.zeros(1), 2)}
    assert _torch.tree_leaves(tree)[2] == 2, "torch.utils._pytree no longer takes nested values apart"
    assert _torch.tree_map(lambda x: 0, tree) == {"a": [0], "b": (0, 0)}, "torch.utils._pytree no longer maps them"
    assert _torch.tree_structure(tree) != _torch.tree_structure([0]), "torch.utils._pytree no longer compares them"


def test_normalisation_has_base_classes() -> None:
    batch = (nn.BatchNorm2d, nn.SyncBatchNorm, nn.LazyBatchNorm1d, torch.ao.nn.quantized.BatchNorm2d)
    assert all(issubclass(kind, _torch.AnyBatchNorm) for kind in batch), "batch norms no longer extend _BatchNorm"
    every = (*batch, nn.InstanceNorm1d)
    assert all(issubclass(kind, _torch.AnyBatchOrInstanceNorm) for kind in every), "norms no longer extend _NormBase"


def test_parametrizations_have_classes() -> None:
    orthogonal: Any = parametrizations.orthogonal(nn.Linear(3, 3))
    assert isinstance(orthogonal.parametrizations.weight[0], _torch.OrthogonalParametrization), "_Orthogonal went away"
    spectral: Any = parametrizations.spectral_norm(nn.Linear(3, 2))
    norm = spectral.parametrizations.weight[0]
    assert isinstance(norm, _torch.SpectralNormParametrization), "_SpectralNorm went away"
    assert [len(b) for b in norm.buffers()] == [2, 3], "_SpectralNorm no longer keeps two singular vectors"


def test_a_module_keeps_its_tensors_where_we_look() -> None:
    norm = nn.BatchNorm1d(1)
    parameters, buffers = (vars(norm)[name] for name in _torch.TENSORS_OF_A_MODULE)
    assert parameters == dict(norm.named_parameters()), "modules no longer keep parameters in _parameters"
    assert buffers == dict(norm.named_buffers()), "modules no longer keep buffers in _buffers"


def test_wrappers_are_called_as_we_think() -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    layer = nn.Linear(1, 1)
    wrappers: tuple[Any, ...] = (
        torch.compile(layer, backend="eager"),
        checkpoint_wrapper(layer),
        nn.DataParallel(layer),
    )
    for wrapper in wrappers:
        ((name, inner),) = wrapper.named_children()
        assert inner is layer, f"{type(wrapper).__name__} no longer holds the module itself"
        assert type(wrapper).__name__ in _torch.WRAPPERS[name], f"{type(wrapper).__name__} calls its module {name} now"


def test_a_compiled_model_is_unwrapped() -> None:
    model = nn.Linear(1, 1)
    compiled: Any = torch.compile(model, backend="eager")
    assert unwrapped(compiled) == ("_orig_mod", model), "torch.compile no longer keeps a model in _orig_mod"
    assert unwrapped(model) == ("", model)


def test_hooks_are_listed() -> None:
    for register in ("forward_pre", "forward", "full_backward", "full_backward_pre"):
        module = nn.Linear(1, 1)
        assert not _torch.has_hooks(module)
        getattr(module, f"register_{register}_hook")(print)
        assert _torch.has_hooks(module), f"a module's {register} hooks are no longer where we look"
    module = nn.Linear(1, 1)
    module.register_forward_pre_hook(print)
    module.register_forward_hook(print)
    assert [list(hooks.values()) for hooks in _torch.forward_hooks(module)] == [[print], [print]]


def test_hooks_of_a_tensor_move() -> None:
    calls: list[str] = []
    old, new = (nn.Parameter(torch.ones(1)) for _ in range(2))
    old.register_hook(lambda grad: calls.append("gradient"))
    old.register_post_accumulate_grad_hook(lambda p: calls.append("accumulated"))
    _torch.move_tensor_hooks(old, new)
    new.sum().backward()
    assert calls == ["gradient", "accumulated"], "a tensor's hooks are no longer in _backward_hooks and the like"


def test_a_tensor_counts_its_versions() -> None:
    x = torch.zeros(2)
    before = _torch.version_of(x)
    x.add_(1)
    assert _torch.version_of(x) == before + 1, "_version no longer counts what is written in place"


class Seen(TorchFunctionMode):
    """A function mode that notes what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.functions: list[Any] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.functions.append(function)
        return function(*args, **(kwargs or {}))


class SeenCalls(Seen, _torch.CallsOnly):
    """The same, of a kind that cares for few functions."""


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit.trace. is deprecated:FutureWarning")  # from torch 2.14 on
def test_who_watches_a_tensor_is_known() -> None:
    seen: list[tuple[bool, bool]] = []

    def look(x: Tensor) -> Tensor:
        seen.append((_torch.is_ordinary(x), _torch.transforms_are_active()))
        return x * 1

    class Batched(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return look(grad)

    class Operators(_torch.TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return function(*args, **(kwargs or {}))

    x, apply = torch.ones(2, requires_grad=True), _torch.apply_of(Batched)
    assert type(x.detach()) in _torch.PLAIN_TYPES
    torch.autograd.grad(apply(x), x, torch.eye(2)[0])
    torch.autograd.grad(apply(x), x, torch.eye(2), is_grads_batched=True)
    torch.func.vmap(look)(x)
    torch.jit.trace(look, x.detach(), check_trace=False)
    modes: list[Any] = [Operators(), Seen(), SeenCalls()]  # type: ignore[no-untyped-call]
    for mode in modes:
        with mode:
            look(x.detach())
    ordinary, batched, vmap, traced, operators, functions, calls = seen
    assert (ordinary, calls) == ((True, False), (True, False)), "a tensor that nobody watches is not told from others"
    assert vmap == (False, True), "_are_functorch_transforms_active no longer tells of vmap"
    assert not batched[0], "is_legacy_batchedtensor no longer tells of is_grads_batched"
    assert not traced[0], "_get_tracing_state no longer tells of torch.jit.trace"
    assert not operators[0], "_len_torch_dispatch_stack no longer counts dispatch modes"
    assert not functions[0], "a function mode that sees all is no longer known"


def test_functionalization_is_known() -> None:
    seen = [_torch.is_functionalized()]

    def look(x: Tensor) -> Tensor:
        seen.append(_torch.is_functionalized())
        return x * 1

    torch.func.functionalize(look)(torch.ones(1))
    assert seen == [False, True], "functorch's stack no longer tells of functionalize"


def test_function_modes_are_listed_and_turned_off() -> None:
    x = torch.ones(1)
    assert (list(_torch.function_modes()), _torch.only_calls_are_watched(x)) == ([], False)
    with SeenCalls() as calls:
        assert list(_torch.function_modes()) == [calls], "_get_function_stack_at no longer gives the modes"
        assert _torch.only_calls_are_watched(x)
        calls.functions.clear()
        with _torch.unwatched():
            x.sin()
        assert calls.functions == [], "DisableTorchFunction no longer turns modes off"
        with Seen():
            assert not _torch.only_calls_are_watched(x)


def test_what_a_function_of_torch_calls_is_seen() -> None:
    with Seen() as seen:
        _torch.with_its_calls_watched(nn.functional.dropout, torch.ones(4), p=1.0)
    told = "torch's functions no longer look for modes by has_torch_function, or nn.functional.dropout calls no other"
    assert nn.functional.dropout not in seen.functions, told
    assert any(function.__name__ == "dropout" for function in seen.functions), told


def test_a_function_stays_out_of_graphs() -> None:
    seen: list[bool] = []

    @_torch.out_of_graphs("it is not for graphs")
    def outside(x: Tensor) -> Tensor:
        seen.append(torch.compiler.is_compiling())
        return x + 1

    def inside(x: Tensor) -> Tensor:
        return outside(x * 2) * 3

    compiled: Any = torch.compile(inside, backend="eager")
    assert float(compiled(torch.ones(()))) == 9.0
    assert seen == [False], "_torchdynamo_disable no longer keeps a function out of graphs"
    torch.compiler.reset()  # or else the graphs that were made serve
    whole: Any = torch.compile(inside, backend="eager", fullgraph=True)
    with pytest.raises(Exception, match="it is not for graphs"):
        whole(torch.ones(()))


def test_what_autograd_records_is_known() -> None:
    x = torch.ones(2)
    assert _torch.is_recorded(x.clone().requires_grad_())
    assert not _torch.is_recorded(x)
    with torch.autograd.forward_ad.dual_level():
        assert _torch.is_recorded(x), "forward_ad._current_level no longer tells of forward mode"
    zeros = torch._efficientzerotensor(2)
    made = _torch.materialized(zeros)
    assert not made._is_zerotensor(), "a clone of a tensor of zeros without memory no longer has some"
    assert made.tolist() == [0.0, 0.0]


def test_native_code_finds_torchs_threads() -> None:
    assert _torch.parallel_for() != 0, "torch_parallel_for is no longer in libtorch_cpu"


def test_random_operators_that_take_a_generator_are_found() -> None:
    aten = torch.ops.aten
    found = map(_torch.taking_a_generator, (aten.bernoulli.default, aten.rand.default, aten.native_dropout.default))
    assert list(found) == [aten.bernoulli.default, aten.rand.generator, None], (
        "operators' overloads are named otherwise"
    )


def test_the_generator_whose_block_opens_is_known() -> None:
    seen: list[Any] = []

    @contextlib.contextmanager
    def block() -> Iterator[None]:
        seen.append(_torch.generator_that_opens())
        yield

    def generator() -> Iterator[bool]:
        with block():
            yield _torch.is_running(seen[-1])

    with block():
        steps: Any = generator()
        assert next(steps)
    assert seen == [None, steps.gi_frame]
    assert not _torch.is_running(steps.gi_frame)


class Attention(nn.Module):
    """An attention that has no weights where torch's has them."""

    batch_first, num_heads, in_proj_bias = True, 2, None

    def forward(self, query: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        return 2 * query, None


def test_attention_can_leave_the_fast_path() -> None:
    layer: Any = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    layer.self_attn = Attention()
    _torch.refuse_fast_path(layer.self_attn)
    with pytest.warns(UserWarning, match="_qkv_same_embed_dim"):  # where it is not read, it is of no more use
        encoder = nn.TransformerEncoder(layer, 1).eval()
    with torch.no_grad():
        assert encoder(torch.ones(1, 3, 4)).shape == (1, 3, 4)


def test_a_backward_pass_and_its_nodes_are_known() -> None:
    x, seen = torch.ones(1, requires_grad=True), list[Any]()
    first = _torch.next_node_number()
    y = x * 2
    y.register_hook(lambda grad: seen.append(_torch.backward_pass()))
    z = y.sin()
    last = _torch.next_node_number()
    assert last == first + 2, "_get_sequence_nr no longer counts the nodes of the graph"
    z.register_hook(lambda grad: None)
    y.register_hook(lambda grad: seen.append(_torch.node_number()))
    assert (_torch.backward_pass(), _torch.node_number()) == (-1, None)
    z.backward()
    assert seen[0] >= 0, "_current_graph_task_id no longer tells a backward pass"
    assert first <= seen[1] < last, "_current_autograd_node no longer tells the node that runs, or that its number"


def test_vmap_is_seen_from_a_kernel() -> None:
    library = torch.library.Library("private_names_test", "FRAGMENT")
    library.define("numbers(Tensor x) -> Tensor", tags=(torch.Tag.nondeterministic_seeded,))
    seen: list[Any] = []

    def numbers(x: Tensor) -> Tensor:
        vmap = _torch.innermost_vmap()
        seen.append((vmap.randomness(), vmap.batch_size(), _torch.unbatched(x, vmap)[1]))
        with _torch.below_vmap():
            rows = torch.stack([torch.ops.private_names_test.numbers(torch.tensor(float(i))) for i in range(2)])
        return _torch.batched(rows, vmap)

    library.impl("numbers", lambda x: x + 1, "CompositeExplicitAutograd")
    library.impl("numbers", numbers, "FuncTorchVmapMode")
    out = torch.func.vmap(lambda x: torch.ops.private_names_test.numbers(x) * x, randomness="different")(torch.ones(2))
    assert out.tolist() == [1.0, 2.0], "_add_batch_dim no longer gives each sample of a vmap its row"
    assert seen == [("different", 2, 0)], "functorch no longer tells a kernel the vmap that it is called in"


class Outer(nn.Module):
    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        return y


def test_the_modules_on_the_stack_are_known() -> None:
    seen: list[Any] = []

    class Leaf(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append((list(_torch.called_modules()), list(_torch.modules_being_called())))
            return x

    leaf = Leaf()
    model = Outer(leaf)
    model(torch.ones(1))
    ((called, methods),) = seen
    assert called == [model, leaf], "nn.Module.__call__ no longer calls a function that has the module as self"
    assert methods[0] is leaf, "a module's forward is no longer on the stack"
    assert methods[-1] is model

    x = torch.ones(1, requires_grad=True)
    x.register_hook(lambda grad: model(grad) and None)
    Outer(lambda x: x.sum().backward())(x)
    assert seen[1][0] == [model, leaf], "a backward pass no longer starts in a function named _engine_run_backward"


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("preserved", [False, True])
def test_what_checkpointing_runs_again_is_known(reentrant: bool, preserved: bool) -> None:
    seen: list[Any] = []
    ahead: list[bool] = []

    def segment(x: Tensor) -> Tensor:
        seen.append((_torch.runs_again(), _torch.generator_is_restored()))
        ahead.append(_torch.is_checkpointed())
        return x.sin()

    x = torch.ones(1, requires_grad=True)
    x.register_hook(lambda grad: seen.append((_torch.runs_again(), _torch.generator_is_restored())))
    checkpoint(segment, x, use_reentrant=reentrant, preserve_rng_state=preserved).backward()
    told = "the frames of torch.utils.checkpoint no longer tell what runs again, and whether preserve_rng_state was set"
    assert seen == [(False, None), (True, preserved), (False, None)], told
    assert ahead[0], "the frames of torch.utils.checkpoint no longer tell that it runs a segment"
    assert not _torch.is_checkpointed()


def test_what_compiled_checkpointing_runs_again_is_known() -> None:
    from torch._prims import rng_prims

    seen: list[Any] = []

    def look(x: Tensor) -> Tensor:
        seen.append(_torch.generator_is_restored())
        return x

    rng_prims.run_with_rng_state(torch.get_rng_state(), look, torch.ones(1))
    assert seen == [True], "torch._prims.rng_prims no longer runs operators again with the generator restored"


def test_a_functions_own_backward_is_known() -> None:
    seen: list[bool] = []

    class Again(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            seen.append(_torch.runs_again())
            return grad

    again: Any = Again.apply
    again(torch.ones(1, requires_grad=True)).backward()
    assert seen == [True], "torch.autograd.function no longer applies a function's backward where we look"


class Sub(SGD):
    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


def test_a_step_within_a_step_is_known() -> None:
    weight = nn.Parameter(torch.ones(1))
    plain, optimizer = SGD([weight]), Sub([weight])  # torch hooks each class's step when the first is made
    seen: list[int] = []
    for each in (plain, optimizer):
        each.register_step_pre_hook(lambda optimizer, args, kwargs: seen.append(_torch.steps_being_taken(optimizer)))
        each.step()
    assert seen == [1, 1, 2], "profile_hook_step no longer runs a step with hooks in a frame that has it as self"


def test_an_optimizer_lists_the_hooks_of_its_steps_and_leaves_them_out_of_its_state() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))])
    before, after = (lambda *given: None for _ in range(2))
    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)
    assert [list(hooks.values()) for hooks in _torch.step_hooks(optimizer)] == [[before], [after]]
    state = optimizer.__getstate__()
    assert not set(_torch.STEP_HOOKS) & set(state)
    other = object.__new__(torch.optim.SGD)
    other.__setstate__(state | {_torch.STEP_HOOKS[0]: {0: before}})  # which it takes up where they are given
    assert [list(hooks.values()) for hooks in _torch.step_hooks(other)] == [[before], []]


def test_the_node_that_takes_the_local_part_of_a_dtensor_is_known() -> None:
    if not torch.distributed.is_available():
        pytest.skip("torch was built without distributed")
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard

    with rank_of(1, 2):
        mesh = init_device_mesh("cpu", (2,))
        x = torch.ones(3, 4, requires_grad=True)
        local: Any = DTensor.from_local(x, mesh, [Shard(0)], run_check=False).to_local()
        told = "to_local() no longer has a node with the DTensor's layout, so dropout takes local shards for the whole"
        assert _torch.taken_from(local.grad_fn) == (mesh, (Shard(0),), (6, 4)), told
        assert _torch.taken_from(local.relu().grad_fn) is None


def test_the_line_outside_torch_is_known() -> None:
    seen: list[Any] = []
    layer = nn.Linear(1, 1)
    layer.register_forward_hook(lambda *_: seen.append(_torch.line_outside_torch(stacklevel=2)))
    layer(torch.ones(1))
    ((module, file, number),) = seen
    assert (module, file) == (__name__, __file__), "torch's frames no longer have the names of its modules"
    assert Path(file).read_text().splitlines()[number - 1].strip() == "layer(torch.ones(1))"
