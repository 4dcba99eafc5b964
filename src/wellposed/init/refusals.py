"""What no plan of initialization can be made for."""

import itertools
import sys
from collections.abc import Sequence

import torch
from torch import nn

from wellposed.arguments import unwritable
from wellposed.errors import WellposedError
from wellposed.models.names import listed
from wellposed.models.weights import Weight
from wellposed.random.shards import is_sharded, local_blocks

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def refuse(model: nn.Module, unclaimed: Sequence[Weight], planned: Sequence[Weight]) -> None:
    """Refuse what no plan can be made for.

    Args:
        model: The model.
        unclaimed: Weights that neither a row of the table nor a rule claims.
        planned: Weights that are to be filled.

    Raises:
        WellposedError: If a weight is unclaimed, is computed in a way that cannot be undone, holds no floats, has no
            entries, is expanded or sparse, shares memory with another, or is sharded so that no process holds a block
            of it.
    """
    _refuse_flat(model)
    _refuse_quantised(model)
    if unclaimed:
        lines = "".join(f"\n  {t.name} {tuple(t.tensor.shape)} of {type(t.module).__name__}" for t in unclaimed)
        count = f"{len(unclaimed)} parameter" + "s" * (len(unclaimed) > 1)
        raise WellposedError(
            f"no role and no rule claims {count}:{lines}\n"
            f"say what each starts as, for example rules={{{unclaimed[0].name!r}: wp.init.Normal(0, 0.02)}}, or "
            f"register what {type(unclaimed[0].module).__name__}'s parameters are for with @wp.init.role, or keep what "
            "has values already: rules={'unclaimed': None}"
        )
    fixed = [t.name for t in planned if t.computed is not None and not t.computed.writable]
    if fixed:
        raise WellposedError(
            f"{listed(fixed)}: a parametrization without right_inverse cannot be given a weight; write one, or "
            "leave the weight as it is with a rule of None"
        )
    bad = [f"{t.name} ({t.tensor.dtype})" for t in planned if t.tensor.dtype not in _DTYPES]
    if bad:
        raise WellposedError(
            f"{listed(bad)}: these dtypes cannot hold the values; initialize in float32, float64, bfloat16 or "
            "float16 and convert then, or leave them as they are with a rule of None"
        )
    empty = [t.name for t in planned if t.tensor.numel() == 0 and not _is_token(t)]  # of tokens there may be none
    if empty:
        raise WellposedError(
            f"{listed(empty)}: zero-sized, which is seldom meant; leave them as they are with a rule of None"
        )
    wrong = [f"{t.name} {why}" for t in planned if (why := unwritable(t.tensor))]
    if wrong:
        raise WellposedError(f"{'; '.join(wrong)}; or leave it as it is with a rule of None")
    _refuse_shards(planned)
    shared = overlaps(planned)
    if shared:
        raise WellposedError(
            f"{listed(shared)}: different parameters that share memory would be filled twice; make them one parameter, "
            "or leave all but one as they are with a rule of None"
        )


def _is_token(weight: Weight) -> bool:
    return bool(weight.parts) and all(part.kind == "token" for part in weight.parts)


def _refuse_flat(model: nn.Module) -> None:
    flat = sys.modules.get("torch.distributed.fsdp")
    if flat is None:
        return
    names = [
        path or "the model"
        for path, module in model.named_modules()
        if isinstance(module, flat.FullyShardedDataParallel)
        and (
            getattr(module.sharding_strategy, "name", "") != "NO_SHARD"
            or any(isinstance(p, flat.FlatParameter) for p in module.parameters())
        )
    ]
    if names:
        raise WellposedError(
            f"{listed(names)}: FullyShardedDataParallel keeps weights in pieces that have lost their shape; initialize "
            "the model before it is wrapped, or shard it with fully_shard"
        )


def _refuse_quantised(model: nn.Module) -> None:
    quantised = [
        path or "the model"
        for path, module in model.named_modules()
        if ".quantized." in type(module).__module__
        and hasattr(module, "set_weight_bias")
        and type(module).__name__ != "LinearPackedParams"
    ]
    if quantised:
        raise WellposedError(
            f"{listed(quantised)}: quantised weights cannot hold the values; initialize the float model, and "
            "quantise it then"
        )


def _refuse_shards(planned: Sequence[Weight]) -> None:
    computed = [t.name for t in planned if t.computed is not None and any(map(is_sharded, t.parameters))]
    if computed:
        raise WellposedError(
            f"{listed(computed)}: computed from sharded parameters, through which no weight can be written; initialize "
            "the model before it is sharded"
        )
    for target in planned:
        try:
            local_blocks(target.tensor)
        except WellposedError as error:
            raise WellposedError(f"{target.name}: {error}") from error


def overlaps(planned: Sequence[Weight]) -> list[str]:
    """Pairs of weights that lie in the same memory."""
    spans = []
    for target in planned:
        tensor = target.tensor
        if type(tensor) in (nn.Parameter, torch.Tensor) and not tensor.is_meta:
            first = tensor.data_ptr()
            last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
            spans.append((str(tensor.device), first, first + last * tensor.element_size(), target.name))
    spans.sort()
    return [
        f"{one[3]} and {other[3]}"
        for one, other in itertools.pairwise(spans)
        if one[0] == other[0] and other[1] <= one[2]
    ]
