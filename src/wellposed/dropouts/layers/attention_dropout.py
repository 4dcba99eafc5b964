"""Dropout of attention weights, inside scaled dot-product attention."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling
from torch.nn import functional

from wellposed.dropouts.functional import check_beside, rank_of
from wellposed.dropouts.layers.elements import Dropout
from wellposed.dropouts.layers.thinning import Thinning
from wellposed.errors import WellposedError
from wellposed.models.attention import (
    as_it_came,
    batches_first,
    mask_by_heads,
    merge_heads,
    merged_mask,
    projections,
    split_heads,
)


class AttentionDropout(Thinning):
    """Scaled dot-product attention whose weights are dropped with probability p while training.

    The output is thin(softmax(q k^T scale + mask)) v. Fused kernels take no mask of dropout from outside, so while
    training the weights are formed; otherwise the output is torch's ``scaled_dot_product_attention``.

    Args:
        p: The probability that a weight is dropped.

    Shape:
        Query (..., L, E), key (..., S, E) and value (..., S, D) to (..., L, D).

    Raises:
        WellposedError: If p is not in [0, 1], or a call has both a mask and ``is_causal``.

    Example:
        >>> attend = AttentionDropout(0.1)
        >>> q, k, v = torch.ones(2, 4, 5, 8), torch.ones(2, 4, 6, 8), torch.ones(2, 4, 6, 3)
        >>> attend(q, k, v).shape
        torch.Size([2, 4, 5, 3])

    Source: Vaswani et al. (2017).
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        *,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Attend; the arguments mean what they mean in torch."""
        for x in (query, key, value):
            rank_of("AttentionDropout", x)
        if is_causal and attn_mask is not None:
            raise WellposedError(
                "AttentionDropout was given attn_mask and is_causal=True; expected one of them: put what is causal "
                "into the mask too"
            )
        if not _drops(self):
            return functional.scaled_dot_product_attention(
                query, key, value, attn_mask, is_causal=is_causal, scale=scale, enable_gqa=enable_gqa
            )
        if enable_gqa:
            key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], dim=-3) for x in (key, value))
        return self.thin(attention_weights(query, key, attn_mask, is_causal=is_causal, scale=scale)) @ value


def _drops(module: Thinning) -> bool:
    """Whether weights have to be formed. A graph does not ask for p, or it would be compiled anew for p = 0."""
    return module.training and (is_dynamo_compiling() or module.p > 0.0)


def attention_weights(
    query: Tensor, key: Tensor, attn_mask: Tensor | None = None, *, is_causal: bool = False, scale: float | None = None
) -> Tensor:
    """softmax(q k^T scale + mask), in float32 at least and rounded once; rows where all is masked are zero."""
    scores = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if is_causal:
        scores = scores.masked_fill(scores.new_ones(scores.shape[-2:], dtype=torch.bool).triu(1), -math.inf)
    if attn_mask is None:
        return scores.softmax(dim=-1).to(query.dtype)
    scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    nothing = (scores == -math.inf).all(dim=-1, keepdim=True)
    return scores.masked_fill(nothing, 0.0).softmax(dim=-1).masked_fill(nothing, 0.0).to(query.dtype)


class MultiheadAttention(nn.MultiheadAttention):
    """``torch.nn.MultiheadAttention`` with reproducible dropout of its attention weights while training.

    Arguments, parameters and results are torch's; rows where all is masked attend to nothing, rather than being NaN.

    Args:
        embed_dim: The size of the embedding.
        num_heads: How many heads.
        dropout: The probability that a weight is dropped.
        options: torch's further arguments.

    Attributes:
        drop: The dropout of the weights, a ``Dropout``.

    Shape:
        As torch's.

    Raises:
        WellposedError: If the probability is not in [0, 1].

    Example:
        >>> attention = MultiheadAttention(8, 2, dropout=0.1, batch_first=True)
        >>> x = torch.ones(3, 5, 8)
        >>> attention(x, x, x)[0].shape
        torch.Size([3, 5, 8])

    Source: Vaswani et al. (2017).
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, **options: Any) -> None:
        super().__init__(embed_dim, num_heads, 0.0, **options)
        self.drop = Dropout(dropout)

    @classmethod
    def of(cls, attention: nn.MultiheadAttention) -> "MultiheadAttention":
        """What takes the place of torch's module: the same parameters, mode and probability."""
        new = cls.__new__(cls)
        new.__dict__.update({name: copy.copy(value) for name, value in vars(attention).items()})
        new.drop, new.dropout = Dropout(attention.dropout).train(attention.training), 0.0
        return new

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend; the arguments mean what they mean in torch."""
        if not _drops(self.drop):
            return super().forward(
                query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
            )
        check_beside("MultiheadAttention", self, query, key, value)
        inputs = batches_first((query, key, value), self.batch_first)
        q, k, v = self._projected(*inputs)
        mask = merged_mask(
            attn_mask if attn_mask is None else mask_by_heads(attn_mask, q.shape[1]), key_padding_mask, q
        )
        if mask is not None:
            mask = functional.pad(mask, (0, k.shape[2] - inputs[1].shape[1]))
        weights = self.drop(attention_weights(q, k, mask))
        output = as_it_came(self.out_proj(merge_heads(weights @ v)), query, self.batch_first)
        if not need_weights:
            return output, None
        seen = weights.mean(dim=1) if average_attn_weights else weights
        return output, seen.squeeze(0) if query.dim() == 2 else seen

    def _projected(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values by heads, (N, H, length, E / H), with what torch adds to keys and values."""
        q, *others = map(functional.linear, inputs, *projections(self))
        if self.bias_k is not None and self.bias_v is not None:
            rows = (bias.expand(len(q), 1, -1) for bias in (self.bias_k, self.bias_v))
            others = [torch.cat(pair, dim=1) for pair in zip(others, rows, strict=True)]
        if self.add_zero_attn:
            others = [functional.pad(x, (0, 0, 0, 1)) for x in others]
        return tuple(split_heads(x, self.num_heads) for x in (q, *others))
