"""Thinning of distributed tensors: each process thins its shard with the shard's part of the whole tensor's mask."""

from typing import Any

from torch import Tensor

from wellposed.dropouts.masks import Mask
from wellposed.dropouts.operator import thin
from wellposed.errors import WellposedError
from wellposed.random.box import Box
from wellposed.random.shards import local_blocks


def thin_shards(x: Tensor, mask: Mask, row: int = 0, batch: int = 0) -> Tensor:
    """Apply a mask to a DTensor, as it is applied to the whole tensor.

    Args:
        x: A DTensor.
        mask: The mask of the whole; it has no box.
        row: Where the whole tensor's first sample stands in a larger batch.
        batch: The dimension that holds the samples; -1 if none does.

    Returns:
        A DTensor with the placements of ``x``.

    Raises:
        WellposedError: If its placements are partial, or a shard is no block of the whole.
    """
    whole: Any = x
    blocks = local_blocks(x)
    if len(blocks) != 1:
        raise WellposedError(
            f"dropout was given a DTensor of shape {tuple(x.shape)} with placements {whole.placements}, of which a "
            "process holds rows that do not lie side by side; expected shards that are blocks"
        )
    local, box = blocks[0]
    assert box is not None
    shape, offset = list(box.shape), list(box.offset)
    if row and batch >= 0:
        shape[batch] += row
        offset[batch] += row
    thinned = thin(local, mask._replace(box=Box(tuple(shape), tuple(offset))))
    made: Tensor = type(whole).from_local(
        thinned, whole.device_mesh, whole.placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )
    return made
