"""Tables of dropout cases; every row goes through every law in test_laws_dropout.py."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

import wellposed as wp

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Case:
    """One call of ``wp.dropout``: how its input lies in memory, and the arguments."""

    name: str
    make: Callable[[Tensor], Tensor]  # lays a tensor of ``shape`` out in memory without changing a value
    shape: tuple[int, ...] = (37, 5)
    p: float = 0.3
    call: int = 0
    dims: tuple[int, ...] | None = None
    box: wp.Box | None = None

    def __str__(self) -> str:
        return self.name

    def drop(self, x: Tensor, key: wp.Key, p: float | None = None) -> Tensor:
        return wp.dropout(x, self.p if p is None else p, key=key, call=self.call, dims=self.dims, box=self.box)

    def dropped(self, key: wp.Key) -> Tensor:
        """The elements that must be dropped, by the public Bernoulli draw."""
        whole = self.shape if self.box is None else self.box.shape
        dims = range(len(whole)) if self.dims is None else [d % len(whole) for d in self.dims]
        drawn = wp.random.bernoulli([whole[d] for d in dims], key, self.p, call=self.call)
        drawn = drawn.reshape([n if d in dims else 1 for d, n in enumerate(whole)]).expand(whole)
        if self.box is None:
            return drawn
        corner = zip(self.box.offset, self.shape, strict=True)
        return drawn[tuple(slice(start, start + length) for start, length in corner)]


def kept_for_backward(work: Callable[[], object]) -> list[Tensor]:
    """The tensors that autograd stores while ``work`` runs."""
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        work()
    return kept


def bytes_kept(work: Callable[[], object]) -> int:
    """The bytes that those tensors have in all, shared memory counted once."""
    memory = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept_for_backward(work)}
    return sum(memory.values())


def gradient(x: Tensor) -> Tensor:
    assert x.grad is not None
    return x.grad


def plain(x: Tensor) -> Tensor:
    return x.clone()


def transposed(x: Tensor) -> Tensor:
    return x.mT.contiguous().mT


def stepped(x: Tensor) -> Tensor:
    return torch.stack([x, x + 1], dim=-1)[..., 0]


def expanded(x: Tensor) -> Tensor:
    """Only for tensors whose rows are equal."""
    return x[:1].expand_as(x)


CASES = [
    Case("plain", plain),
    Case("one", plain, (1,), p=0.5),
    Case("scalar", plain, (), p=0.5),
    Case("empty", plain, (3, 0)),
    Case("half", plain, p=0.5),
    Case("rare", plain, (1000,), p=1e-3),
    Case("nearly all", plain, (1000,), p=1 - 2**-12),
    Case("tiny p", plain, p=2**-40),
    Case("far call", plain, call=2**64 - 1),
    Case("transposed", transposed),
    Case("stepped", stepped),
    Case("expanded", expanded),
    Case("channels last", lambda x: x.clone(memory_format=torch.channels_last), (2, 3, 4, 5)),
    Case("channels", plain, (4, 8, 3, 3), dims=(0, 1)),
    Case("last dimension", plain, (6, 7), dims=(-1,)),
    Case("first and last", transposed, (6, 7, 5), dims=(0, 2)),
    Case("long rows", plain, (3, 5001), dims=(0,)),
    Case("many short rows", plain, (5003, 3), dims=(0,)),
    Case("channels of several threads", plain, (2, 3, 400, 151), dims=(0, 1)),
    Case("no dimension", plain, (6, 7), dims=()),
    Case("block", plain, (3, 4), box=wp.Box((10, 9), (5, 2))),
    Case("block of channels", plain, (3, 4, 5), dims=(0, 1), box=wp.Box((10, 9, 5), (5, 2, 0))),
    Case("several chunks", plain, (5003,)),
    Case("several threads", plain, (300_001,), p=0.5),
    Case("all", plain, p=1.0),
]
