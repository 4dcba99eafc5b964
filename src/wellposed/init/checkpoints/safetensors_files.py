"""Safetensors files: a header in JSON, then the bytes of each tensor; and which tensors lie in which file."""

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wellposed.errors import WellposedError
from wellposed.init.checkpoints.contents import Stored
from wellposed.models.names import listed

INDEX = "model.safetensors.index.json"
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_ALIGNED = 8  # the header is as long as puts every tensor where its numbers may lie
_LONGEST = 10**8  # bytes of a header, by the format


@dataclass(frozen=True, eq=False)
class ShardFile:
    """One file of a checkpoint.

    Attributes:
        name: The file's name.
        tensors: The tensors in it under the names that they have there, in the order of their bytes.
        header: What stands before them.
    """

    name: str
    tensors: tuple[tuple[str, Stored], ...]
    header: bytes

    @property
    def size(self) -> int:
        """The file's bytes."""
        return len(self.header) + sum(entry.size for _, entry in self.tensors)


def shards(entries: Sequence[Stored], most: int, *, tied: bool) -> tuple[ShardFile, ...]:
    """Distribute tensors over files of at most so many bytes; a larger tensor has a file of its own.

    Args:
        entries: The tensors.
        most: The bytes of the tensors in a file.
        tied: Whether a tied tensor is written under each of its names, rather than under the first alone. The others
            are then told in the file's metadata, as the safetensors library does it.

    Returns:
        The files, in the order of the model.

    Raises:
        WellposedError: If the format has no place for a dtype.
    """
    bad = [f"{entry.names[0]} ({entry.dtype})" for entry in entries if entry.dtype not in _NAMES]
    if bad:
        raise WellposedError(f"{listed(bad)}: safetensors files have no place for these dtypes; convert them first")
    groups: list[list[tuple[str, Stored]]] = [[]]
    filled = 0
    for name, entry in [(name, e) for e in entries for name in (e.names if tied else e.names[:1])]:
        if groups[-1] and filled + entry.size > most:
            groups.append([])
            filled = 0
        groups[-1].append((name, entry))
        filled += entry.size
    found = []
    for number, group in enumerate(groups, 1):
        # Wide numbers first, so that all are aligned.
        group.sort(key=lambda tensor: -tensor[1].dtype.itemsize)
        others = {} if tied else {other: name for name, entry in group for other in entry.names[1:]}
        name = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        found.append(ShardFile(name, tuple(group), _header(group, {"format": "pt", **others})))
    return tuple(found)


def _header(tensors: Iterable[tuple[str, Stored]], metadata: dict[str, str]) -> bytes:
    described: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, entry in tensors:
        first, end = end, end + entry.size
        described[name] = {"dtype": _NAMES[entry.dtype], "shape": entry.shape, "data_offsets": [first, end]}
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNED)
    return len(text).to_bytes(8, "little") + text


def index(found: Sequence[ShardFile]) -> bytes:
    """What the index file says: in which file each tensor is."""
    size = sum(entry.size for shard in found for _, entry in shard.tensors)
    where = {name: shard.name for shard in found for name, _ in shard.tensors}
    told = {"metadata": {"total_size": size}, "weight_map": where}
    return (json.dumps(told, indent=2, sort_keys=True) + "\n").encode()


@dataclass(frozen=True)
class Span:
    """Where a tensor lies on disk.

    Attributes:
        path: The file.
        first: The byte at which it starts.
        dtype: Its dtype, by the format's name.
        shape: Its shape.
    """

    path: Path
    first: int
    dtype: str
    shape: tuple[int, ...]

    def is_for(self, entry: Stored) -> bool:
        """Whether the tensor has the dtype and the shape of an entry."""
        return self.dtype == _NAMES.get(entry.dtype) and self.shape == entry.shape


def places(path: Path) -> Iterator[tuple[str, Span]]:
    """The tensors that a file holds.

    Raises:
        ValueError: If it is no whole safetensors file.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST:
            raise ValueError("no header")
        described = json.loads(file.read(length))
        end = os.fstat(file.fileno()).st_size
    try:
        for name, tensor in described.items():
            if name != "__metadata__":
                first, last = (8 + length + offset for offset in tensor["data_offsets"])
                place = Span(path, first, tensor["dtype"], tuple(tensor["shape"]))
                if last > end or (last - first) % max(math.prod(place.shape), 1):
                    raise ValueError("cut short")
                yield name, place
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError("no header") from error
