"""Residual branches by the names of the weights that end them, where tracing found no branch at all."""

from collections.abc import Iterable

from wellposed.models.globs import matches
from wellposed.models.tracing.signals import Branch

# As transformers and timm name the last weight of a residual branch.
_LAST = [
    "*.c_proj.weight",
    "*.attn.proj.weight",
    "*.mlp.fc2.weight",
    "*.o_proj.weight",
    "*.down_proj.weight",
    "*.down_proj",
    "*.attention.output.dense.weight",
    "*.output.dense.weight",
    "*.self_attn.out_proj.weight",
    "*.mixer.out_proj.weight",
    "*.linear2.weight",
    "*.wo.weight",
    "*.SelfAttention.o.weight",
    "*.EncDecAttention.o.weight",
]


def named_branches(names: Iterable[str]) -> tuple[Branch, ...]:
    """A branch for each weight whose name is that of one that ends a branch.

    Example:
        >>> [branch.last for branch in named_branches(["h.0.mlp.c_fc.weight", "h.0.mlp.c_proj.weight"])]
        [('h.0.mlp.c_proj.weight',)]
    """
    last = [name for name in names if any(matches(name, glob) for glob in _LAST)]
    return tuple(Branch((name,), (name,), (), ()) for name in last)
