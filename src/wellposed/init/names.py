"""Names of parameters that wrapping a model does not change."""

from collections import Counter
from collections.abc import Iterable

from wellposed._torch import WRAPPERS


def unwrapped(name: str) -> str:
    """A parameter's path without the parts that wrappers put into it.

    Example:
        >>> unwrapped("module._orig_mod.encoder.0._checkpoint_wrapped_module.weight")
        'encoder.0.weight'
    """
    parts = name.split(".")
    return ".".join([part for part in parts[:-1] if part not in WRAPPERS] + parts[-1:])


def unwrapped_all(names: Iterable[str]) -> dict[str, str]:
    """Each name and its unwrapped form; names that would become the same are left as they are.

    Example:
        >>> unwrapped_all(["module.weight", "module.module.weight", "module.bias"])
        {'module.weight': 'module.weight', 'module.module.weight': 'module.module.weight', 'module.bias': 'bias'}
    """
    short = {name: unwrapped(name) for name in names}
    count = Counter(short.values())
    return {name: stripped if count[stripped] == 1 else name for name, stripped in short.items()}
