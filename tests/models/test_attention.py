"""The parts of multi-head attention, against torch's own."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from wellposed.models.attention import (
    as_it_came,
    batches_first,
    mask_by_heads,
    merge_heads,
    merged_mask,
    projections,
    split_heads,
)
from wellposed.random import Key, bernoulli, normal, normal_

N, H, L, S, E = 2, 3, 4, 5, 6


def values(*shape: int, name: str = "x") -> Tensor:
    return normal(shape, Key(0).fold(name), dtype=torch.float64)


def some(*shape: int) -> Tensor:
    """A boolean mask that leaves the first key to everybody."""
    mask = bernoulli(shape, Key(1), 0.4)
    mask[..., 0] = False
    return mask


LAYERS: dict[str, dict[str, Any]] = {
    "packed": {},
    "batch first": {"batch_first": True},
    "no bias": {"bias": False},
    "sizes of their own": {"kdim": 4, "vdim": 8, "batch_first": True},
}
MASKS: dict[str, tuple[Tensor | None, Tensor | None]] = {
    "none": (None, None),
    "boolean": (some(L, S), None),
    "added": (values(L, S), None),
    "for each head": (values(N * H, L, S), None),
    "padding": (None, some(N, S)),
    "all": (some(N * H, L, S), values(N, S, name="padding")),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.filterwarnings("ignore:Support for mismatched")
def test_the_parts_make_up_torchs_attention(layer: str, mask: str, batched: bool) -> None:
    attention = nn.MultiheadAttention(E, H, **LAYERS[layer]).double()
    for name, parameter in attention.named_parameters():
        normal_(parameter.detach(), Key(2).fold(name), std=0.5)
    sizes = (L, E, "q"), (S, attention.kdim, "k"), (S, attention.vdim, "v")
    inputs = [values(N, n, e, name=name) for n, e, name in sizes]
    attn_mask, padding = MASKS[mask]
    if not batched:
        inputs = [x[0] for x in inputs]
        attn_mask = attn_mask if attn_mask is None or attn_mask.dim() == 2 else attn_mask[:H]
        padding = padding if padding is None else padding[0]
    elif not attention.batch_first:
        inputs = [x.transpose(0, 1) for x in inputs]
    wanted, _ = attention(*inputs, attn_mask=attn_mask, key_padding_mask=padding)

    rows = batches_first(inputs, attention.batch_first)
    assert [x.shape[0] for x in rows] == [N if batched else 1] * 3
    q, k, v = (split_heads(x, H) for x in map(functional.linear, rows, *projections(attention)))
    merged = merged_mask(mask_by_heads(attn_mask, H), padding, q)
    heads = functional.scaled_dot_product_attention(q, k, v, merged)
    found = as_it_came(attention.out_proj(merge_heads(heads)), inputs[0], attention.batch_first)
    torch.testing.assert_close(found, wanted)


def test_no_mask_is_none() -> None:
    assert merged_mask(None, None, torch.ones(())) is None
    assert mask_by_heads(None, 3) is None
