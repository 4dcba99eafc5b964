"""Multi-head attention from which heads were pruned, and which heads may be."""

import operator

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils.parametrize import is_parametrized

from wellposed._torch import refuse_fast_path
from wellposed.compaction.channels import Known
from wellposed.models.attention import (
    as_it_came,
    batches_first,
    mask_by_heads,
    merge_heads,
    merged_mask,
    projections,
    split_heads,
)
from wellposed.models.tracing.branching import TRANSFORMER_LAYERS


class CompactAttention(nn.Module):
    """What is left of a ``torch.nn.MultiheadAttention`` without its idle heads; called as that is.

    The returned attention weights, if they are asked for, are those of the heads that are left.

    Args:
        attention: The full attention.
        kept: The numbers of the heads to keep, at least one.
        bias: The output projection's bias, with what the idle heads gave in it.
    """

    def __init__(self, attention: nn.MultiheadAttention, kept: list[int], bias: Tensor | None) -> None:
        super().__init__()
        self.embed_dim, self.num_heads, self.head_dim = attention.embed_dim, len(kept), attention.head_dim
        self.dropout, self.batch_first = attention.dropout, attention.batch_first
        self.kept, self.all_heads = tuple(kept), attention.num_heads
        rows = torch.cat([torch.arange(h * self.head_dim, (h + 1) * self.head_dim) for h in kept])
        weights, biases = projections(attention)
        self.q_proj, self.k_proj, self.v_proj = (
            _linear(weight[rows], None if b is None else b[rows]) for weight, b in zip(weights, biases, strict=True)
        )
        self.out_proj = _linear(attention.out_proj.weight[:, rows], bias)
        self.in_proj_bias = None
        refuse_fast_path(self)
        self.train(attention.training)

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
        """As ``torch.nn.MultiheadAttention.forward``."""
        inputs = batches_first((query, key, value), self.batch_first)
        layers = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (split_heads(layer(x), self.num_heads) for layer, x in zip(layers, inputs, strict=True))
        given = mask_by_heads(attn_mask, self.all_heads)
        if given is not None and given.ndim == 4:
            given = given[:, list(self.kept)]
        mask = merged_mask(given, key_padding_mask, q)
        weights = None
        if need_weights:
            scores = q @ k.mT / self.head_dim**0.5
            weights = (scores if mask is None else scores + mask).softmax(-1)
            heads = functional.dropout(weights, self.dropout, self.training) @ v
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights[0] if query.ndim == 2 else weights
        else:
            heads = functional.scaled_dot_product_attention(q, k, v, mask, self.dropout if self.training else 0.0)
        out: Tensor = self.out_proj(merge_heads(heads))
        return as_it_came(out, query, self.batch_first), weights


def without_idle_heads(attention: nn.MultiheadAttention, objection: str) -> tuple[nn.Module, tuple[int, int, str]]:
    """The attention without heads that do nothing: whose values are constant, or whose output nobody uses.

    Attention weights sum to one, so a head whose value weights are zero gives its value bias, which moves into the
    output bias.

    Args:
        attention: The attention; it is not changed.
        objection: Why all heads have to stay, or nothing.

    Returns:
        The smaller module, or the given one; and how many heads are kept, how many idle ones stay, and why.
    """
    heads, size = attention.num_heads, attention.head_dim
    weights, biases = projections(attention)
    steady = (weights[2].unflatten(0, (heads, size)).flatten(1) == 0).all(1)
    unused = (attention.out_proj.weight.unflatten(1, (heads, size)).movedim(1, 0).flatten(1) == 0).all(1)
    idle = steady | unused
    if not idle.any():
        return attention, (heads, 0, "")
    if attention.bias_k is not None or attention.add_zero_attn:
        objection = objection or "it has bias_k, bias_v or add_zero_attn, which keep heads as they are"
    if objection:
        return attention, (heads, int(idle.sum()), objection)
    if idle.all():
        idle[0] = False
    kept = [h for h in range(heads) if not idle[h]]
    bias = attention.out_proj.bias
    given = biases[2]
    if given is not None:
        gone = (idle & steady).repeat_interleave(size)
        constant = attention.out_proj.weight[:, gone] @ given[gone]
        if constant.any():
            bias = nn.Parameter(constant if bias is None else bias + constant)
    left = int((steady | unused).sum()) - (heads - len(kept))
    return CompactAttention(attention, kept, bias), (len(kept), left, "one head has to stay" if left else "")


def objection_to_fewer_heads(model: Known, name: str) -> str:
    """Why an attention layer must keep its heads, or nothing.

    Its attention weights are means over the heads, so the rest of the model may not use them.

    Args:
        model: The model.
        name: The attention's name in it.
    """
    inside = [n for n in model.modules if n == name or n.startswith(f"{name}." if name else "")]
    if any(is_parametrized(model.modules[n]) for n in inside):
        return "its weights are parametrized"
    calls = [
        node
        for part, graph, _ in model.trace.ways()
        for node in graph.nodes
        if node.op == "call_module" and part.prefix + str(node.target) == name
    ]
    if not all(_is_silent(node) for node in calls):
        return "its attention weights, in which every head counts, are used"
    in_layer = type(model.modules.get(name.rpartition(".")[0])) in TRANSFORMER_LAYERS
    if model.trace.is_closed(name) or not (calls or in_layer or model.trace.inside):
        return "the forward pass around it, which may use its attention weights, cannot be followed"
    return model.objection(tuple(inside))


def _is_silent(call: fx.Node) -> bool:
    """Whether nobody uses the attention weights of a call."""
    wanted = call.kwargs.get("need_weights", call.args[4] if len(call.args) > 4 else True)
    return wanted is False or all(
        user.target is operator.getitem and (user.args[1] == 0 or not user.users) for user in call.users
    )


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.detach().clone(), weight.requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), bias.requires_grad)
    return layer
