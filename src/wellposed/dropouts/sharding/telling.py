"""What ``keyed`` may be told of where tensors lie, and that it is well said."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from wellposed.errors import WellposedError
from wellposed.random.box import Box


class Axis(NamedTuple):
    """A dimension of a mesh: the processes along it through this one, and which of them this one is."""

    ranks: tuple[int, ...]
    place: int


Step = tuple[Axis, int | None]  # along an axis a tensor is sharded in a dimension, or replicated


class Steps(NamedTuple):
    """How a tensor lies along axes, as it was given."""

    steps: tuple[Step, ...]

    def of(self, x: Tensor, name: str) -> list[Step]:
        """The same for a tensor, with dimensions counted from the first.

        Raises:
            WellposedError: If the tensor has no such dimension.
        """
        for _, dim in self.steps:
            if dim is not None and not -x.dim() <= dim < x.dim():
                raise WellposedError(
                    f"wp.keyed was told that the input of {name} is sharded in dimension {dim}, and it has shape "
                    f"{tuple(x.shape)}; expected a dimension that is there: give placements by the modules' paths"
                )
        return [(axis, None if dim is None else dim % x.dim()) for axis, dim in self.steps]


Told = Steps | tuple[Box, ...]
# One placement for each dimension of the mesh, or where the tensor's blocks lie.
Placements = Sequence[Any] | Box


def axes_of(mesh: Any) -> tuple[Axis, ...]:
    """The dimensions of a mesh; none if this process is not in it."""
    place = mesh.get_coordinate()
    if place is None:
        return ()
    ranks = (mesh.mesh[(*place[:i], slice(None), *place[i + 1 :])].tolist() for i in range(mesh.ndim))
    return tuple(Axis(tuple(along), at) for along, at in zip(ranks, place, strict=True))


def steps_of(mesh: Any, placements: Sequence[Any]) -> list[Step]:
    """How a tensor lies along the axes of a mesh, but for those of one process; terms of a sum count as replicated."""
    pairs = zip(axes_of(mesh), placements, strict=False)
    return [(axis, getattr(placement, "dim", None)) for axis, placement in pairs if len(axis.ranks) > 1]


def check_mesh(mesh: Any) -> None:
    """Refuse what is no mesh, or one without this process."""
    if not hasattr(mesh, "get_coordinate"):
        raise WellposedError(f"keyed was given mesh={mesh!r}; expected a DeviceMesh")
    if mesh.get_coordinate() is None:
        raise WellposedError(f"keyed was given {mesh}, which this process is not in; expected a mesh with it")


def told_by(placements: Placements | Mapping[str, Placements], mesh: Any) -> dict[str, Told]:
    """What was said of how tensors lie, by globs on the paths of modules.

    Raises:
        WellposedError: If there is not one placement for each dimension of the mesh, or one is of another kind.
    """
    by_path = placements if isinstance(placements, Mapping) else {"*": placements}
    return {glob: _told(given, mesh) for glob, given in by_path.items()}


def _told(given: Any, mesh: Any) -> Told:
    given = (given,) if isinstance(given, Box) else tuple(given) if isinstance(given, Sequence) else given
    if isinstance(given, tuple) and given and all(isinstance(each, Box) for each in given):
        return given
    dims = None if mesh is None else mesh.ndim
    if not isinstance(given, tuple) or len(given) != dims or not all(map(_is_fit, given)):
        wanted = "wp.Box, or a mesh" if mesh is None else f"{dims} placements, each Shard or Replicate, or wp.Box"
        raise WellposedError(f"keyed was given placements {given} for a mesh of {dims} dimensions; expected {wanted}")
    return Steps(tuple(steps_of(mesh, given)))


def _is_fit(placement: Any) -> bool:
    return hasattr(placement, "is_shard") and (placement.is_replicate() or placement.is_shard())
