"""Functions that say by an argument's name what a parameter is for, as a linear layer's weight and bias."""

from collections.abc import Mapping, Sequence
from typing import Any

from wellposed.models.roles.registry import Kind
from wellposed.models.roles.use.contractions import View

# Of the functions with named arguments: what those are for that may be parameters.
ARGUMENTS: Mapping[str, tuple[tuple[str, Kind | None], ...]] = {
    name: tuple((argument.partition(":")[0], argument.partition(":")[2] or None) for argument in given.split())  # type: ignore[misc]
    for names, given in {
        "linear": "input:token weight bias:bias",
        "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d": "input:token weight bias:bias",
        "bilinear": "input1:token input2:token weight bias:bias",
        "addmm addbmm baddbmm": "input:bias",
        "embedding embedding_bag": "input weight:embedding",
        "layer_norm rms_norm": "input normalized_shape weight:scale bias:bias",
        "group_norm": "input num_groups weight:scale bias:bias",
        "batch_norm instance_norm": "input running_mean running_var weight:scale bias:bias",
        "prelu": "input weight:slope",
        "addcmul addcdiv": "input:token tensor1:scale tensor2:scale",
        "scaled_dot_product_attention": "query:token key:token value:token attn_mask:token",
        "multi_head_attention_forward": "query:token key:token value:token",
    }.items()
    for name in names.split()
}


def settled_by_name(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[tuple[View, Kind | None]]:
    """The parameters among a function's named arguments, and what those are for.

    Args:
        name: The function's plain name.
        args: Its arguments.
        kwargs: Its keyword arguments.

    Returns:
        Each such parameter and its kind.
    """
    given = [
        (kind, args[i] if i < len(args) else kwargs.get(argument))
        for i, (argument, kind) in enumerate(ARGUMENTS.get(name, ()))
    ]
    return [(value, kind) for kind, value in given if isinstance(value, View) and kind is not None]
