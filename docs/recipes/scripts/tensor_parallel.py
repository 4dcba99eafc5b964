"""Tensor parallelism: ``torchrun --nproc-per-node 2 tensor_parallel.py``."""

import hashlib
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import wellposed as wp


def build():
    """A small network; the sizes of a real one change nothing below."""
    return nn.Sequential(nn.Linear(16, 50), nn.ReLU(), nn.Dropout(0.2), nn.Linear(50, 3))


def fingerprint(model):
    """A word for all weights as a whole, the same for the same bits."""
    whole = [getattr(p, "full_tensor", lambda p=p: p)().detach() for p in model.parameters()]
    return hashlib.sha256(b"".join(p.numpy().tobytes() for p in whole)).hexdigest()[:12]


dist.init_process_group("gloo")  # "nccl" on GPUs
rank, world = dist.get_rank(), dist.get_world_size()
mesh = init_device_mesh("cpu", (world,))

with torch.device("meta"):  # shapes without memory
    model = build()
wp.convert_dropout(model)  # gives each dropout a name for its masks
# What dropout sees between the two layers is a part of the hidden units, and says so.
first, last = ColwiseParallel(use_local_output=False), RowwiseParallel()
parallelize_module(model, mesh, {"0": first, "3": last})
wp.initialize(model, seed=0, device="cpu")  # each process fills its shards
start = fingerprint(model)

# Every process has the whole batch.
x, y = wp.random.normal((24, 16), wp.Key(1)), torch.arange(24) % 3
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
handle = wp.regularize(optimizer, model, wp.L1(1e-3))
for step in range(5):
    optimizer.zero_grad()
    with wp.keyed(seed=0, step=step):
        loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()

sparsity = handle.sparsity()  # of the whole model, so all processes have to call it
if rank == 0:
    print(f"start {start}, loss {float(loss.detach()):.5f}, zeros {sparsity:.4f}", flush=True)

# At an ordinary exit a thread of gloo's may meet the end of Python, and the process aborts now and then: end together,
# and without the interpreter's farewell.
dist.barrier()
os._exit(0)
