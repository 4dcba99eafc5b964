"""What a module starts a parameter of its own as, asked of the module or of the model that it is in."""

from torch import nn

from wellposed.models.roles.twins import told

_LARGEST = 1 << 20  # entries of a parameter that is made only to be looked at


def own_start(model: nn.Module, path: str, *, look: bool = True) -> float | None:
    """The number that a module starts one of its parameters as.

    Its configuration says it, or what it makes the parameter when it is filled or built once more; where neither does,
    it is the value that all entries have.

    Args:
        model: The model.
        path: The parameter's path in it.
        look: Whether a value counts that it merely is built with, or has.

    Returns:
        The number; ``None`` where the entries differ or nobody knows them.

    Example:
        >>> import torch
        >>> layer = nn.LayerNorm(4)
        >>> with torch.no_grad():
        ...     _ = layer.weight.fill_(3.0)
        >>> own_start(layer, "weight")
        1.0
    """
    above, _, name = path.rpartition(".")
    module, parameter = model.get_submodule(above), model.get_parameter(path)
    said = getattr(getattr(module, "config", None), f"{name}_init_value", None)
    if isinstance(said, int | float):
        return float(said)
    made = {} if parameter.numel() > _LARGEST else told(model, above, [name], build=look)
    if name not in made and (not look or parameter.is_meta):
        return None
    value = made.get(name, parameter).detach()
    first = value.flatten()[:1]
    return float(first) if value.numel() and bool((value == first).all()) else None
