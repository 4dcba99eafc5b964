"""Lightning: ``torchrun --nproc-per-node 2 with_lightning.py``."""

import hashlib
import os

import lightning
import torch
from torch import nn

import wellposed as wp


class Net(lightning.LightningModule):
    """A small network; the sizes of a real one change nothing below."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(16, 50), nn.ReLU(), nn.Dropout(0.2), nn.Linear(50, 3))
        wp.convert_dropout(self.net)  # gives each dropout a name for its masks
        wp.initialize(self.net, seed=0)  # the same weights in each process, without a broadcast

    def configure_optimizers(self):
        """An optimizer, and the penalty on it."""
        optimizer = torch.optim.Adam(self.parameters(), lr=1e-2)
        self.handle = wp.regularize(optimizer, self.net, wp.L1(1e-3))
        return optimizer

    def training_step(self, batch, index):
        """The loss of this process's rows; masks are those of the whole batch."""
        x, y = batch
        with wp.keyed(seed=0, step=self.global_step, row=self.global_rank * len(x)):
            self.loss = nn.functional.cross_entropy(self.net(x), y)
        return self.loss


x, y = wp.random.normal((24, 16), wp.Key(1)), torch.arange(24) % 3
world = int(os.environ.get("WORLD_SIZE", 1))
rows = len(x) // world  # of the batch, for each process
rank = int(os.environ.get("RANK", 0))
mine = torch.utils.data.TensorDataset(x[rank * rows :][:rows], y[rank * rows :][:rows])

model = Net()
start = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()[:12]
trainer = lightning.Trainer(
    max_epochs=5,
    accelerator="cpu",
    strategy="ddp" if world > 1 else "auto",
    devices=world,
    use_distributed_sampler=False,  # the rows are shared out above
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(model, torch.utils.data.DataLoader(mine, batch_size=rows))

loss = trainer.strategy.reduce(model.loss.detach(), reduce_op="mean")
if trainer.is_global_zero:
    print(f"start {start}, loss {float(loss):.5f}, zeros {model.handle.sparsity():.4f}", flush=True)

# At an ordinary exit a thread of gloo's may meet the end of Python, and the process aborts now and then: end together,
# and without the interpreter's farewell.
trainer.strategy.barrier()
os._exit(0)
