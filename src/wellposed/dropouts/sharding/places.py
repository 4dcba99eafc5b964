"""Where the tensors of a ``keyed`` block lie in larger ones: what the block is told, and what can be found."""

import math
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from torch import Tensor, nn

from wellposed.dropouts.sharding.blockwise import Outward, Placed
from wellposed.dropouts.sharding.origins import Known, Origin, is_tensor_parallel, origin_of
from wellposed.dropouts.sharding.telling import Axis, Step, Steps, Told, steps_of
from wellposed.errors import WellposedError
from wellposed.random.box import Box
from wellposed.random.shards import blocks_held, is_sharded


class Where(NamedTuple):
    """Where a tensor lies: it is rows of a batch, from ``row`` on; or, if ``placed`` is not ``None``, lies there."""

    row: int = 0
    placed: Placed | None = None


class Asked(NamedTuple):
    """What is asked for: where the input of a dropout module lies.

    Attributes:
        x: The input.
        batch: The dimension that holds the samples; -1 if none does.
        who: The module, or what stands for it in errors.
        path: Its path.
        models: Gives the models that are being called.
    """

    x: Tensor
    batch: int
    who: object
    path: str
    models: Callable[[], Iterable[nn.Module]]


class Places:
    """What a ``keyed`` block is told of where its tensors lie, in a job of several processes.

    Args:
        world: How many processes the job has.
        row: Where the batch's first row stands in the whole batch; ``None`` if that is not told.
        samples: The axes that the batch is split over.
        by_path: How tensors lie, by globs on the paths of modules, of which the last that matches counts.
    """

    def __init__(self, world: int, row: int | None, samples: tuple[Axis, ...], by_path: Mapping[str, Told]) -> None:
        self.world, self.row, self.samples, self.by_path = world, row, samples, dict(by_path)

    def of(self, asked: Asked, known: Known) -> Where:
        """Where the input of a module lies.

        Args:
            asked: The input and the module.
            known: What is known of autograd's graph, to which is added what is found.

        Raises:
            WellposedError: If that is neither told nor found, or what is told is not what is found.
        """
        x, batch = asked.x, asked.batch
        told = next((given for glob, given in reversed(self.by_path.items()) if fnmatchcase(asked.path, glob)), None)
        if told is not None and not isinstance(told, Steps):
            return Where(0, _boxes(told, asked))
        steps = (
            [(axis, None if batch < 0 else batch) for axis in self.samples]
            if told is None
            else told.of(x, f"{asked.who}, {asked.path!r},")
        )
        if is_sharded(x):
            sharded: Any = x
            own = steps_of(sharded.device_mesh, sharded.placements)
            outside = [step for step in steps if step[0] not in dict(own)]
            self._check(asked, own, outside)
            return Where(0, Placed(None, self._outward(outside, batch)))
        origin = origin_of(x, known)
        own = [] if origin.mesh is None else steps_of(origin.mesh, origin.placements)
        if told is None:
            _check_seen(asked, origin)
        outside = _beside(asked, origin, own, steps)
        self._check(asked, own, outside)
        inner = None
        if origin.is_part and origin.shape is not None:
            inner = tuple(blocks_held(origin.shape, origin.mesh, origin.placements, tuple(x.shape)) or ())
        placed = Placed(inner, self._outward(outside, batch))
        if inner is None and all(step.dim == batch for step in placed.outward):
            return Where(placed.blocks(x)[0][1].offset[batch] if placed.outward else 0)
        return Where(0, placed)

    def _outward(self, steps: list[Step], batch: int) -> tuple[Outward, ...]:
        """Steps outward, the innermost first: a mesh's last axis; then the rows before."""
        found = [Outward(dim, len(axis.ranks), axis.place) for axis, dim in reversed(steps) if dim is not None]
        return (*found, Outward(batch, row=self.row)) if self.row and batch >= 0 else tuple(found)

    def _check(self, asked: Asked, own: list[Step], outside: list[Step]) -> None:
        """Refuse axes that overlap, and processes of which nothing is known."""
        inner, outer = [axis for axis, _ in own], [axis for axis, _ in outside if axis not in dict(own)]
        for one in inner:
            for other in outer:
                if len({*one.ranks} & {*other.ranks}) > 1:
                    raise WellposedError(
                        f"wp.keyed was told of a mesh with processes {list(other.ranks)} along one dimension, and the "
                        f"input of {asked.who}, {asked.path!r}, is distributed over {list(one.ranks)}; expected "
                        "dimensions of one mesh"
                    )
        count = math.prod(len(axis.ranks) for axis in (*inner, *outer))
        if self.row is None and count != self.world:
            raise WellposedError(
                f"{asked.who} was called in a wp.keyed block in a job of {self.world} processes, which would drop the "
                "same places of their parts of the batch: it is not known which rows this process has"
                + (f", but only how {count} of the processes share a tensor" if count > 1 else "")
                + "; tell it by wp.keyed(seed, step, row=...), row=0 where every process has the whole batch, or by "
                "mesh=..., the mesh that the batch is split over"
            )


def _check_seen(asked: Asked, origin: Origin) -> None:
    """Refuse a tensor without a graph, where a model is tensor-parallel."""
    if origin.is_part or not (origin.is_hidden or origin.has_gaps):
        return
    models = [model for model in asked.models() if is_tensor_parallel(model)]
    if origin.is_hidden:
        reason = "without gradients, or in a compiled graph or a checkpoint, nothing tells"
    elif any(is_sharded(p) and not p.requires_grad for model in models for p in model.parameters()):
        reason = "beside weights that need no gradient, nothing tells"
    else:
        return
    if models:
        raise WellposedError(
            f"{asked.who} was given a plain tensor of shape {tuple(asked.x.shape)} in a model whose layers hand one "
            f"another shards, and whether this is one {reason}; {_advice(asked)}"
        )


def _beside(asked: Asked, origin: Origin, own: list[Step], steps: list[Step]) -> list[Step]:
    """What is told beside what is found, which must agree."""
    is_lost, found, told = origin.is_part and origin.shape is None, dict(own), dict(steps)
    if is_lost and any(dim is not None and axis not in told for axis, dim in own):
        raise WellposedError(
            f"{asked.who} was given a plain tensor of shape {tuple(asked.x.shape)} that was made from a shard, and "
            f"which part of which whole it is cannot be told; {_advice(asked)}"
        )
    if is_lost:
        return steps
    for axis, dim in steps:
        if axis in found and dim != found[axis]:
            raise WellposedError(
                f"wp.keyed was told that over processes {list(axis.ranks)} the input of {asked.who}, {asked.path!r}, "
                f"is {_named(dim)}, and it is {_named(found[axis])}; tell how it lies by its path, or leave that out, "
                "since it is found"
            )
    return [(axis, dim) for axis, dim in steps if axis not in found]


def _boxes(boxes: tuple[Box, ...], asked: Asked) -> Placed:
    """A tensor that consists of boxes, which follow one another along one dimension."""
    size = list(asked.x.shape)
    apart = {d for d in range(len(size)) if len({box.offset[d] for box in boxes if len(box.offset) == len(size)}) > 1}
    dim = next(iter(apart), 0)
    fits = len(apart) <= 1 and all(len(box.shape) == len(size) for box in boxes)
    if fits and len(boxes) > 1:
        fits, size[dim] = size[dim] % len(boxes) == 0, size[dim] // len(boxes)
    fits = fits and all(o + n <= s for box in boxes for o, n, s in zip(box.offset, size, box.shape, strict=True))
    if not fits:
        raise WellposedError(
            f"wp.keyed was told that the input of {asked.who}, {asked.path!r}, lies at {list(boxes)}, and it has shape "
            f"{tuple(asked.x.shape)}; expected one box, or several of equal blocks that follow one another in it"
        )
    whole = [slice(0, n) for n in size]
    starts = range(0, size[dim] * len(boxes), max(1, size[dim])) if size else (0,)
    slices = [tuple(slice(a, a + n.stop) if d == dim else n for d, n in enumerate(whole)) for a in starts]
    return Placed(tuple(zip(slices, boxes, strict=False)))


def _advice(asked: Asked) -> str:
    return (
        f"say how by wp.keyed(..., mesh=mesh, placements={{{asked.path!r}: [...]}}), one placement for each of the "
        "mesh's dimensions, or have the layer before give a DTensor, by use_local_output=False"
    )


def _named(dim: int | None) -> str:
    return "replicated" if dim is None else f"sharded in dimension {dim}"
