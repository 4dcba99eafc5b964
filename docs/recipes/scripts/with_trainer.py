"""Hugging Face's Trainer: ``torchrun --nproc-per-node 2 with_trainer.py``."""

import hashlib
import os
import tempfile

import torch
from torch import nn
from transformers import Trainer, TrainingArguments

import wellposed as wp


class Net(nn.Module):
    """A small network; the sizes of a real one change nothing below."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(16, 50), nn.ReLU(), nn.Dropout(0.2), nn.Linear(50, 3))

    def forward(self, x, labels):
        """The loss, and what it is of."""
        logits = self.net(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class KeyedTrainer(Trainer):
    """Names the masks by the step, and by the rows that this process has of the batch."""

    def training_step(self, model, inputs, *args):
        """One step of training; Trainer calls it."""
        first = self.args.process_index * self.args.per_device_train_batch_size
        with wp.keyed(seed=0, step=self.state.global_step, row=first):
            self.loss = super().training_step(model, inputs, *args)
        return self.loss

    def _get_train_sampler(self, data=None):
        return torch.utils.data.SequentialSampler(data or self.train_dataset)


model = Net()
wp.convert_dropout(model.net)  # gives each dropout a name for its masks
wp.initialize(model.net, seed=0)  # the same weights in each process, without a broadcast
start = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()[:12]

x, y = wp.random.normal((24, 16), wp.Key(1)), torch.arange(24) % 3
data = [{"x": row, "labels": label} for row, label in zip(x, y, strict=True)]
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
handle = wp.regularize(optimizer, model.net, wp.L1(1e-3))
options = TrainingArguments(
    tempfile.mkdtemp(),
    max_steps=5,
    per_device_train_batch_size=len(x) // int(os.environ.get("WORLD_SIZE", 1)),
    max_grad_norm=0,
    use_cpu=True,  # leave it out on GPUs
    save_strategy="no",
    report_to="none",
    disable_tqdm=True,
)
constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
trainer = KeyedTrainer(model, options, train_dataset=data, optimizers=(optimizer, constant))
trainer.train()

loss = trainer.accelerator.reduce(trainer.loss, "mean")
if trainer.is_world_process_zero():
    print(f"start {start}, loss {float(loss):.5f}, zeros {handle.sparsity():.4f}", flush=True)

# At an ordinary exit a thread of gloo's may meet the end of Python, and the process aborts now and then: end together,
# and without the interpreter's farewell.
trainer.accelerator.wait_for_everyone()
os._exit(0)
