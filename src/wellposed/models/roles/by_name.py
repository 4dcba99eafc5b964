"""What a parameter is for that no role claims: by the words of its name, or else by its dimensions."""

import re
from collections.abc import Set
from typing import Literal

from torch import nn

from wellposed.models.roles.of_torch import is_normalisation

NamedKind = Literal["weight", "embedding", "token", "bias", "vector"]
"""Kinds that a name can tell; ``"vector"`` is what has fewer than two dimensions and no telling name."""

_TABLE = {"embedding", "embeddings", "embed", "embeds", "emb"}
_PLACE = {"pos", "position", "positions", "positional", "class", "cls"}
_ENCODING = {"encoding", "encodings"}
_SPECIAL = {"newline", "begin", "end", "sep", "separator", "seperator"}  # learnt tokens that stand between others


def kind_by_name(name: str, dimensions: int) -> NamedKind:
    """What a parameter is for, judged by its name and its number of dimensions alone.

    It is a bias if "bias" is a word of its name. It is a token if the name speaks of the embedding of a position or a
    class (``pos_embed``, ``position_embeddings``, ``class_embedding``) or of tokens (``cls_token``, ``query_tokens``,
    ``image_newline``), and an embedding if it speaks of another one (``token_embedding``). Otherwise two dimensions or
    more make a weight. A parameter that is called ``weight`` goes by the name of what holds it, too.

    Args:
        name: The parameter's path, or its name in its module.
        dimensions: How many dimensions it has.

    Returns:
        ``"bias"``, ``"token"``, ``"embedding"``, ``"weight"``, or ``"vector"``.

    Example:
        >>> [kind_by_name(name, 2) for name in ("in_proj_bias", "pos_embed", "token_embedding.weight", "kernel")]
        ['bias', 'token', 'embedding', 'weight']
    """
    *path, local = name.split(".")
    words = _words(local)
    if "bias" in words:
        return "bias"
    kind = "token" if words & _SPECIAL and dimensions < 2 else _learnt_input(words)
    if kind is None and local == "weight" and path:
        kind = _learnt_input(_words(path[-1]))
    return kind or ("weight" if dimensions >= 2 else "vector")


def is_called_normalisation(module: nn.Module) -> bool:
    """Whether a module is a normalisation layer by the table of roles, or by the name of its class.

    Example:
        >>> class ScaleNorm(nn.Module): ...
        >>> is_called_normalisation(ScaleNorm()), is_called_normalisation(nn.Linear(1, 1))
        (True, False)
    """
    return is_normalisation(module) or type(module).__name__.endswith("Norm")


def _words(name: str) -> Set[str]:
    return set(re.split(r"[^a-z]+", name.lower()))


def _learnt_input(words: Set[str]) -> Literal["embedding", "token"] | None:
    if words & _PLACE and words & (_TABLE | _ENCODING):
        return "token"
    if words & _TABLE:
        return "embedding"
    return "token" if words & {"token", "tokens"} else None
