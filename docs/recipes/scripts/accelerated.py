"""Accelerate: ``torchrun --nproc-per-node 2 accelerated.py``, or ``accelerate launch``."""

import hashlib
import os

import torch
from accelerate import Accelerator
from torch import nn

import wellposed as wp


def build():
    """A small network; the sizes of a real one change nothing below."""
    return nn.Sequential(nn.Linear(16, 50), nn.ReLU(), nn.Dropout(0.2), nn.Linear(50, 3))


accelerator = Accelerator(cpu=True)  # without an argument on GPUs
rank, world = accelerator.process_index, accelerator.num_processes
model = build()
wp.convert_dropout(model)  # gives each dropout a name for its masks
wp.initialize(model, seed=0)  # the same weights in each process, without a broadcast
start = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()[:12]

x, y = wp.random.normal((24, 16), wp.Key(1)), torch.arange(24) % 3
rows = len(x) // world  # of the batch, for each process
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=rows)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
handle = wp.regularize(optimizer, model, wp.L1(1e-3))
for step in range(5):
    for inputs, targets in loader:  # one batch, of which each process has its rows
        optimizer.zero_grad()
        with wp.keyed(seed=0, step=step, row=rank * rows):
            loss = nn.functional.cross_entropy(model(inputs), targets)
        accelerator.backward(loss)
        optimizer.step()

loss = accelerator.reduce(loss.detach(), "mean")
if accelerator.is_main_process:
    print(f"start {start}, loss {float(loss):.5f}, zeros {handle.sparsity():.4f}", flush=True)

# At an ordinary exit a thread of gloo's may meet the end of Python, and the process aborts now and then: end together,
# and without the interpreter's farewell.
accelerator.wait_for_everyone()
os._exit(0)
