"""A network in training: with its optimizer, its penalty, and how far it has come."""

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wellposed.dropouts import Dropout, keyed
from wellposed.penalties import Penalty, regularize
from wellposed.random.distributions import permutation
from wellposed.random.key import Key

Loss = Callable[[Tensor, Tensor], Tensor]  # outputs and targets to a loss for each row


@dataclass(frozen=True)
class Rows:
    """Rows to train on.

    Attributes:
        x: Inputs, float32 (rows, inputs).
        y: Targets, int64 (rows,) or float32 (rows, outputs).
        weight: How much each row counts, float32 (rows,), 1 on average; ``None`` where all count alike.
    """

    x: Tensor
    y: Tensor
    weight: Tensor | None = None

    def __getitem__(self, which: Tensor) -> "Rows":
        return Rows(self.x[which], self.y[which], None if self.weight is None else self.weight[which])

    def mean(self, losses: Tensor) -> Tensor:
        """The mean of the rows' losses, each as much as it counts."""
        return losses.mean() if self.weight is None else (losses * self.weight).mean()


class Trainer:
    """AdamW with a penalty and keyed dropout; what it does is a function of the key, the rows and the settings.

    It can be copied and pickled in the middle of training, and goes on from there as if it had not been.

    Args:
        network: The network, initialized.
        loss: The loss of each row.
        key: Names the order of the rows and the masks of dropout.
        optimizer: AdamW's options.
        penalty: A penalty, or several by globs on parameters' names; ``None`` for none.
        penalty_options: What else ``wp.regularize`` is given.

    Attributes:
        network: The network.
        epochs: How often the rows have been gone through.
        losses: The mean loss of each epoch's training rows while they were trained on.
        validation_losses: The mean loss of the held-out rows after each epoch.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Loss,
        key: Key,
        optimizer: Mapping[str, Any],
        penalty: Penalty | Mapping[str, Penalty | None] | None,
        penalty_options: Mapping[str, Any],
    ) -> None:
        self.network, self._loss, self._key = network, loss, key
        self._drops = any(isinstance(module, Dropout) for module in network.modules())
        self._optimizer_options, self._penalty, self._penalty_options = dict(optimizer), penalty, dict(penalty_options)
        self.epochs = self._steps = 0
        self.losses: list[float] = []
        self.validation_losses: list[float] = []
        self._build()

    def _build(self) -> None:
        self._optimizer = torch.optim.AdamW(self.network.parameters(), **self._optimizer_options)
        self._handle = None
        if self._penalty is not None:
            self._handle = regularize(self._optimizer, self.network, self._penalty, **self._penalty_options)

    def run(self, rows: Rows, held_out: Rows | None, *, epochs: int, batch: int, patience: int) -> None:
        """Train for so many epochs, or until the held-out rows' loss has not fallen for ``patience`` of them.

        With held-out rows the network ends as it was after the epoch that was best on them.
        """
        best, kept = math.inf, 0
        state = self._values()
        for epoch in range(1, epochs + 1):
            self._train(rows, batch)
            if held_out is None:
                continue
            self.validation_losses.append(self._loss_on(held_out))
            if self.validation_losses[-1] < best:
                best, kept, state = self.validation_losses[-1], epoch, self._values()
            elif epoch - kept >= patience or not math.isfinite(self.losses[-1]):
                break
        if held_out is not None:
            self.network.load_state_dict(state)
        self.network.eval()

    def _train(self, rows: Rows, batch: int) -> None:
        self.network.train()
        masks = self._key.fold("dropout")
        order = permutation(len(rows.x), self._key.fold("batches"), call=self.epochs).to(rows.x.device)
        total = torch.zeros((), dtype=torch.float64, device=rows.x.device if rows.x.device.type != "mps" else "cpu")
        for which in order.tensor_split(-(-len(order) // batch)):
            part = rows[which]
            with keyed(masks, self._steps) if self._drops else contextlib.nullcontext():
                loss = part.mean(self._loss(self.network(part.x), part.y))
            self._optimizer.zero_grad()
            torch.autograd.backward(loss)
            self._optimizer.step()
            self._steps += 1
            total += loss.detach().to(total) * len(which)
        self.losses.append(float(total) / len(order))
        self.epochs += 1

    def _loss_on(self, rows: Rows) -> float:
        self.network.eval()
        with torch.no_grad():
            return float(rows.mean(self._loss(self.network(rows.x), rows.y)))

    def _values(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.network.state_dict().items()}

    def __getstate__(self) -> dict[str, Any]:
        plain = {name: value for name, value in vars(self).items() if name not in ("_optimizer", "_handle")}
        handle = None if self._handle is None else self._handle.state_dict()
        return plain | {"_states": (self._optimizer.state_dict(), handle)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        optimizer, handle = state.pop("_states")
        vars(self).update(state)
        self._build()
        self._optimizer.load_state_dict(optimizer)
        if self._handle is not None:
            self._handle.load_state_dict(handle)
