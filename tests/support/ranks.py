"""One process that stands for one of many."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist


@contextmanager
def rank_of(rank: int, world: int) -> Iterator[None]:
    """One rank of a job whose other ranks do not exist: what is sent to them is lost."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=rank, world_size=world, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()
