"""Names that wrapping a model does not change, and the model inside its wrappers."""

from torch import nn

from wellposed._torch import WRAPPERS


def plain_path(model: nn.Module, path: str) -> str:
    """The path of a module or of a parameter, without the parts that wrappers put into it.

    Wrappers are those of compiling, data parallelism, sharding, checkpointing and averaging, told by their classes: a
    module of the user's own that is called ``module`` keeps its name.

    Args:
        model: The model that the path starts from.
        path: The path, as ``named_modules`` or ``named_parameters`` has it.

    Returns:
        The path that it has in the model without wrappers.

    Example:
        >>> model = nn.Sequential(nn.DataParallel(nn.Linear(2, 2)), nn.ModuleDict({"module": nn.Linear(2, 2)}))
        >>> plain_path(model, "0.module.weight"), plain_path(model, "1.module.weight")
        ('0.weight', '1.module.weight')
    """
    module, plain = model, []
    for part in path.split("."):
        if not _is_wrapper(module, part):
            plain.append(part)
        module = getattr(module, part, module)
    return ".".join(plain)


def unwrapped(model: nn.Module) -> tuple[str, nn.Module]:
    """The model inside the wrappers around it, and its path in them.

    Example:
        >>> unwrapped(nn.DataParallel(nn.Linear(2, 2)))
        ('module', Linear(in_features=2, out_features=2, bias=True))
    """
    path: list[str] = []
    while (inner := next((name for name, _ in model.named_children() if _is_wrapper(model, name)), None)) is not None:
        path.append(inner)
        model = model.get_submodule(inner)
    return ".".join(path), model


def joined(path: str, name: str) -> str:
    """A name below a path, which is empty for the model itself."""
    return f"{path}.{name}" if path else name


def listed(names: list[str], most: int = 20) -> str:
    """Names in a sentence, the first of many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _is_wrapper(module: nn.Module, part: str) -> bool:
    return any(kind.__name__ in WRAPPERS.get(part, ()) for kind in type(module).__mro__)
