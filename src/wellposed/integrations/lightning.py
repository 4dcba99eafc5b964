"""Lightning: initialization, a penalty and named dropout masks as one callback."""

import contextlib
from typing import Any

from wellposed.integrations.packages import require

require("lightning")

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from wellposed.integrations.verbs import Started, Verbs, figures, first_row, load_states, states
from wellposed.penalties import Handle


class LightningCallback(Verbs, Callback):  # type: ignore[misc]
    """A callback of ``lightning.Trainer``: initialize before the fit, regularize the optimizers, name the masks.

    A batch's masks, in forward and backward pass, are those of
    ``wp.keyed(seed, step=trainer.global_step, microbatch=number of the batch within the step)``. With several data
    parallel processes of equal batches they are the rows of the whole batch's masks. The penalty goes on every
    optimizer, for the parameters that it holds. Checkpoints of the trainer hold what is needed to go on.

    Logged by the module, every ``log_every_n_steps`` steps of the trainer: ``wellposed/penalty``,
    ``wellposed/sparsity``, ``wellposed/nan_steps``.

    Args:
        scheme: What the weights start as before the fit; ``None`` leaves them as they are. A model is initialized once
            by a callback, and not where a fit goes on from a checkpoint.
        rules: As for ``wp.initialize``.
        example: As for ``wp.initialize``: an input, which some schemes need.
        penalty: As for ``wp.regularize``; ``None`` for none.
        where: As for ``wp.regularize``.
        mode: As for ``wp.regularize``.
        schedule: As for ``wp.regularize``.
        keyed: Whether masks depend on seed, module, step and micro-batch alone.
        seed: Where initial values and masks come from.

    Attributes:
        handles: What ``wp.regularize`` returned, for each optimizer that holds penalised weights.

    Raises:
        WellposedError: In ``fit``, as ``wp.initialize`` and ``wp.regularize``.

    Example:
        >>> import wellposed as wp
        >>> from lightning import Trainer
        >>> callback = LightningCallback(scheme="auto", penalty=wp.L1(1e-3))
        >>> trainer = Trainer(callbacks=[callback], accelerator="cpu", logger=False, enable_checkpointing=False)
    """

    def __post_init__(self) -> None:
        self.handles: tuple[Handle, ...] = ()
        self._started = Started()
        self._saved: list[dict[str, Any]] | None = None  # of a checkpoint that was read before the optimizers were made
        self._block: contextlib.ExitStack | None = None
        self._at = (-1, 0)  # the step and the number of the batch within it

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Initialize the model, and put the penalty on its optimizers."""
        if self._started.note(pl_module) and trainer.ckpt_path is None:
            self.start(pl_module)
        for handle in self.handles:
            handle.remove()
        self.handles = self.put_on(trainer.optimizers, pl_module)
        self._take_up()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Open the block of the batch's masks."""
        self._close()
        step = trainer.global_step
        self._at = step, self._at[1] + 1 if step == self._at[0] else 0
        replicas = getattr(trainer.strategy, "distributed_sampler_kwargs", None) or {}
        self._block = contextlib.ExitStack()
        self._block.enter_context(self.masks(*self._at, row=first_row(batch, replicas.get("rank", 0))))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Close the block, and log."""
        self._close()
        every = trainer.log_every_n_steps
        if every and trainer.global_step // every > self._at[0] // every:
            for name, value in figures(self.handles).items():
                pl_module.log(name, value)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the block of a batch that was left out."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the block of the batch that failed."""
        self._close(exception)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"handles": states(self.handles), "at": list(self._at)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what a checkpoint holds, now or when the optimizers are made."""
        self._saved, self._at = state_dict["handles"], tuple(state_dict["at"])
        if self.handles:
            self._take_up()

    def _take_up(self) -> None:
        if self._saved is not None:
            load_states(self.handles, self._saved)
        self._saved = None

    def _close(self, exception: BaseException | None = None) -> None:
        block, self._block = self._block, None
        if block is not None:
            block.__exit__(type(exception) if exception else None, exception, None)
