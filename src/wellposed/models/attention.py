"""What torch's multi-head attention does around the scores: projections, heads, the order of its inputs, masks."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def projections(attention: nn.MultiheadAttention) -> tuple[list[Tensor], list[Tensor | None]]:
    """The query, key and value weights of an attention layer, and their biases, packed in one parameter or not.

    Args:
        attention: The layer.

    Returns:
        Three weights of shape (E, features of the input), and three biases of shape (E,) or ``None``.

    Example:
        >>> weights, biases = projections(nn.MultiheadAttention(4, 2, kdim=3))
        >>> [tuple(weight.shape) for weight in weights], [tuple(bias.shape) for bias in biases]
        ([(4, 4), (4, 3), (4, 4)], [(4,), (4,), (4,)])
    """
    if attention.in_proj_weight is not None:
        weights = list(attention.in_proj_weight.chunk(3))
    else:
        weights = [attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight]
    biases: list[Tensor | None] = [None] * 3 if attention.in_proj_bias is None else [*attention.in_proj_bias.chunk(3)]
    return weights, biases


def batches_first(inputs: Iterable[Tensor], batch_first: bool) -> list[Tensor]:
    """Inputs as torch's attention takes them, with the batch first; an unbatched one becomes a batch of one.

    Args:
        inputs: Each of shape (N, L, E) if ``batch_first``, else (L, N, E); or (L, E) without a batch.
        batch_first: Whether the batch is their first dimension.

    Returns:
        Each of shape (N, L, E).
    """
    return [x.unsqueeze(0) if x.dim() == 2 else x if batch_first else x.transpose(0, 1) for x in inputs]


def as_it_came(output: Tensor, query: Tensor, batch_first: bool) -> Tensor:
    """An output of shape (N, L, E) with its dimensions in the order of the query that was given."""
    if query.dim() == 2:
        return output.squeeze(0)
    return output if batch_first else output.transpose(0, 1)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """From (N, L, E) to one matrix a head, (N, heads, L, E / heads)."""
    by_heads: Tensor = x.unflatten(-1, (heads, -1))
    return by_heads.transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """From (N, heads, L, E / heads) to (N, L, E)."""
    return x.transpose(1, 2).flatten(2)


def mask_by_heads(attn_mask: Tensor | None, heads: int) -> Tensor | None:
    """A mask of shape (N * heads, L, S) as (N, heads, L, S); one of shape (L, S), or none, as it is."""
    if attn_mask is None or attn_mask.dim() != 3:
        return attn_mask
    by_heads: Tensor = attn_mask.unflatten(0, (-1, heads))
    return by_heads


def merged_mask(attn_mask: Tensor | None, key_padding_mask: Tensor | None, like: Tensor) -> Tensor | None:
    """Both masks of torch's attention in one that is added to the scores.

    Args:
        attn_mask: A mask of shape (L, S) or (N, heads, L, S): boolean, true where nothing is attended to, or what is
            added to the scores.
        key_padding_mask: A mask of the keys of shape (N, S), or (S,) without a batch; boolean or added, too.
        like: A tensor of the dtype and on the device of the scores.

    Returns:
        A mask that broadcasts to (N, heads, L, S), -inf where nothing is attended to; ``None`` if there is neither.

    Example:
        >>> merged_mask(torch.tensor([[False, True]]), torch.tensor([0.5, 0.0]), torch.ones(()))
        tensor([[[[0.5000,   -inf]]]])
    """
    masks = [] if attn_mask is None else [attn_mask]
    if key_padding_mask is not None:
        masks.append(key_padding_mask.reshape(-1, 1, 1, key_padding_mask.shape[-1]))
    if not masks:
        return None
    zero = like.new_zeros(())
    return sum((zero.masked_fill(mask, -math.inf) if mask.dtype == torch.bool else mask for mask in masks), start=zero)
