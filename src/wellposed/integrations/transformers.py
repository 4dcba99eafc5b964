"""Hugging Face's Trainer: initialization, a penalty and named dropout masks as one callback."""

import functools
import json
from pathlib import Path
from typing import Any, Self

from torch import nn

from wellposed.errors import WellposedError
from wellposed.integrations.packages import require

require("transformers")

from safetensors import safe_open
from safetensors.torch import save_file
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

from wellposed.integrations.verbs import Started, Verbs, data_rank, figures, first_row, load_states, states
from wellposed.penalties import Handle

FILE = "penalty.safetensors"  # in the folder of a checkpoint


class TransformersCallback(Verbs, TrainerCallback):  # type: ignore[misc]
    """A callback of ``transformers.Trainer``: initialize before training, regularize the optimizer, name the masks.

    It is put on a trainer by :meth:`attach`, and not by ``callbacks=``: a callback there is told of a step, but cannot
    lie around it. A micro-batch's masks, in forward and backward pass, are those of
    ``wp.keyed(seed, step=state.global_step, microbatch=its number within the step)``; of several processes each has
    its rows of the whole batch's masks. The folder of a checkpoint holds what is needed to go on.

    Logged with the training loss, to the trainer's own history and to whatever it reports to: ``wellposed/penalty``,
    ``wellposed/sparsity``, ``wellposed/nan_steps``.

    Args:
        scheme: What the weights start as before training; ``None`` leaves them as they are, for a pretrained model. A
            model is initialized once by a callback, and not where training goes on from a checkpoint.
        rules: As for ``wp.initialize``.
        example: As for ``wp.initialize``: an input, which some schemes need.
        penalty: As for ``wp.regularize``; ``None`` for none.
        where: As for ``wp.regularize``.
        mode: As for ``wp.regularize``.
        schedule: As for ``wp.regularize``.
        keyed: Whether masks depend on seed, module, step and micro-batch alone.
        seed: Where initial values and masks come from.

    Attributes:
        handles: What ``wp.regularize`` returned, once training has begun.

    Raises:
        WellposedError: In ``train``, as ``wp.initialize`` and ``wp.regularize``; if the penalty refers to starting
            weights, and a checkpoint does not hold them.

    Example:
        >>> import wellposed as wp
        >>> callback = TransformersCallback(penalty=wp.L1(1e-3), seed=1)
        >>> callback.handles
        ()
    """

    def __post_init__(self) -> None:
        self.handles: tuple[Handle, ...] = ()
        self._started = Started()
        self._trainer: Trainer | None = None
        self._checkpoint: str | bool | None = None
        self._at = (-1, 0)  # the step and the number of the micro-batch within it

    def attach(self, trainer: Trainer) -> Self:
        """Put this on a trainer.

        Args:
            trainer: The trainer, which is changed: its ``training_step`` opens the block of the masks. It may be of a
                subclass.

        Returns:
            This callback.

        Raises:
            WellposedError: If it is on a trainer already.
        """
        if self._trainer is not None:
            raise WellposedError(
                "attach was given a trainer, and the callback is on one already; make another callback"
            )
        self._trainer, run, train = trainer, trainer.training_step, trainer.train

        @functools.wraps(run)
        def training_step(model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            step = trainer.state.global_step
            self._at = step, self._at[1] + 1 if step == self._at[0] else 0
            with self.masks(*self._at, row=first_row(inputs, data_rank(trainer.accelerator))):
                return run(model, inputs, *args, **kwargs)

        @functools.wraps(train)
        def train_from(resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
            self._checkpoint, self._at = resume_from_checkpoint, (-1, 0)
            return train(resume_from_checkpoint, *args, **kwargs)

        trainer.training_step, trainer.train = training_step, train_from
        # Before what reports to TensorBoard and others, which come first in the list and read what is logged.
        trainer.callback_handler.callbacks.insert(0, self)
        return self

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Initialize the model, put the penalty on the optimizer, and take up a checkpoint."""
        if self._trainer is None:
            raise WellposedError(
                "TransformersCallback was given to callbacks=, where it cannot lie around a step; take it out there, "
                "and write TransformersCallback(...).attach(trainer)"
            )
        model, is_resumed = kwargs["model"], state.global_step > 0
        if self._started.note(model) and not is_resumed:
            self.start(model)
        for handle in self.handles:
            handle.remove()
        self.handles = self.put_on([kwargs["optimizer"]], model)
        if is_resumed:
            self._take_up(args, state.global_step)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Add what there is to say of the penalty to what is logged of the loss."""
        if "loss" in logs:
            found = figures(self.handles)
            logs.update(found)
            state.log_history[-1].update(found)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write what a checkpoint holds."""
        folder = Path(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")
        saved = states(self.handles)
        if args.should_save and folder.is_dir():
            _write(folder / FILE, saved)

    def _take_up(self, args: TrainingArguments, step: int) -> None:
        folder = get_last_checkpoint(args.output_dir) if self._checkpoint is True else self._checkpoint
        file = Path(folder or args.output_dir, FILE)
        if file.is_file():
            load_states(self.handles, _read(file))
            return
        for handle in self.handles:
            if handle.state_dict()["references"]:
                raise WellposedError(
                    f"{file} is not there, which holds the starting weights that the penalty refers to; expected a "
                    "checkpoint that was written with a TransformersCallback on the trainer"
                )
            handle.load_state_dict(handle.state_dict() | {"step": step})


def _write(file: Path, saved: list[dict[str, Any]]) -> None:
    """Starting weights as tensors, by the number of the handle and the parameter; all else beside them as text."""
    tensors = {
        f"{n}:{name}": w.contiguous() for n, state in enumerate(saved) for name, w in state["references"].items()
    }
    save_file(tensors, file, metadata={"handles": json.dumps([state | {"references": {}} for state in saved])})


def _read(file: Path) -> list[dict[str, Any]]:
    with safe_open(file, framework="pt") as stored:
        saved: list[dict[str, Any]] = json.loads(stored.metadata()["handles"])
        for key in stored.keys():  # noqa: SIM118  # it is no mapping
            number, _, name = key.partition(":")
            saved[int(number)]["references"][name] = stored.get_tensor(key)
    return saved
