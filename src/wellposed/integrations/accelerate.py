"""Accelerate: initialization, a penalty and named dropout masks in a training loop of one's own."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from wellposed.errors import WellposedError
from wellposed.integrations.packages import require

require("accelerate")

from accelerate import Accelerator

from wellposed.integrations.verbs import Verbs, data_rank, figures, first_row, load_states, states
from wellposed.penalties import Handle


@dataclass(eq=False, repr=False)
class AccelerateLoop(Verbs):
    """A loop over micro-batches by ``accelerate``: initialize, regularize, and name the masks of each micro-batch.

    It is made after ``prepare``, and :meth:`accumulate` stands where ``accelerator.accumulate(model)`` would. What is
    needed to go on is registered with the accelerator, so that ``save_state`` and ``load_state`` keep it.

    Logged by the accelerator's trackers, every ``log_every`` steps: ``wellposed/penalty``, ``wellposed/sparsity``,
    ``wellposed/nan_steps``.

    Args:
        accelerator: The accelerator.
        model: The model that it prepared.
        optimizer: The optimizer that it prepared.
        log_every: After how many steps of the optimizer the trackers are told; 0 for never.
        scheme: What the weights start as; ``None`` leaves them as they are. ``load_state`` comes afterwards.
        rules: As for ``wp.initialize``.
        example: As for ``wp.initialize``: an input, which some schemes need.
        penalty: As for ``wp.regularize``; ``None`` for none.
        where: As for ``wp.regularize``.
        mode: As for ``wp.regularize``.
        schedule: As for ``wp.regularize``.
        keyed: Whether masks depend on seed, module, step and micro-batch alone.
        seed: Where initial values and masks come from.

    Attributes:
        handles: What ``wp.regularize`` returned.
        step: How many steps of the optimizer are done.

    Raises:
        WellposedError: As ``wp.initialize`` and ``wp.regularize``.

    Example:
        >>> import wellposed as wp
        >>> accelerator = Accelerator(cpu=True)
        >>> model = nn.Linear(4, 1)
        >>> model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
        >>> loop = AccelerateLoop(accelerator, model, optimizer, scheme="auto", penalty=wp.L1(1e-3))
        >>> with loop.accumulate():
        ...     accelerator.backward(model(torch.ones(2, 4)).square().mean())
        ...     optimizer.step()
        ...     optimizer.zero_grad()
        >>> loop.step
        1
    """

    accelerator: Accelerator
    model: nn.Module
    optimizer: torch.optim.Optimizer
    log_every: int = field(default=50, kw_only=True)

    def __post_init__(self) -> None:
        self.start(self.model)
        self.handles: tuple[Handle, ...] = self.put_on([self.optimizer], self.model)
        self.step = self._microbatch = 0
        self.accelerator.register_for_checkpointing(self)

    @contextlib.contextmanager
    def accumulate(self, batch: Any = None) -> Iterator[None]:
        """One micro-batch: ``accelerator.accumulate(model)``, in the block of its masks.

        Args:
            batch: The micro-batch, of which the first tensor's number of rows is read; needed where there are several
                processes, which have their rows of the whole batch's masks.

        Raises:
            WellposedError: If there are several processes, and no batch.
        """
        rank = data_rank(self.accelerator)
        if self.accelerator.num_processes > 1 and batch is None and self.keyed:
            raise WellposedError(
                "accumulate was given no batch, with several processes, so all would drop the same places of theirs; "
                "give it the micro-batch: accumulate(batch)"
            )
        with (
            self.accelerator.accumulate(self.model),
            self.masks(self.step, self._microbatch, row=first_row(batch, rank)),
        ):
            yield
        self._microbatch += 1
        if self.accelerator.sync_gradients:
            self.step, self._microbatch = self.step + 1, 0
            self._log()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"handles": states(self.handles), "step": self.step, "microbatch": self._microbatch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what a checkpoint holds."""
        load_states(self.handles, state["handles"])
        self.step, self._microbatch = state["step"], state["microbatch"]

    def _log(self) -> None:
        if self.accelerator.trackers and self.log_every and self.step % self.log_every == 0:
            self.accelerator.log(figures(self.handles), step=self.step)
