"""skorch: initialization, a penalty and named dropout masks as one callback."""

import contextlib
from typing import Any

from torch import nn

from wellposed.integrations.packages import require

require("skorch")

from skorch import NeuralNet
from skorch.callbacks import Callback

from wellposed.integrations.verbs import Started, Verbs, figures
from wellposed.penalties import Handle
from wellposed.penalties.optim.hooks import attached


class SkorchCallback(Verbs, Callback):  # type: ignore[misc]
    """A callback of skorch's nets: initialize before the first fit, regularize the optimizer, name the masks.

    The masks of a forward pass in training are those of
    ``wp.keyed(seed, step=batches done, microbatch=forward passes done in this batch)``. ``partial_fit`` goes on with
    weights, penalty and steps as they are, and so does a net that was pickled or loaded with its history. All arguments
    are parameters in scikit-learn's sense: ``callbacks__wellposed__penalty`` can be searched over.

    Recorded in the history after each epoch, where skorch's loggers that come later in the list of callbacks read it:
    ``wellposed/penalty``, ``wellposed/sparsity``, ``wellposed/nan_steps``.

    Args:
        scheme: What the weights start as before the first fit; ``None`` leaves them as they are.
        rules: As for ``wp.initialize``.
        example: As for ``wp.initialize``: an input, which some schemes need.
        penalty: As for ``wp.regularize``; ``None`` for none.
        where: As for ``wp.regularize``.
        mode: As for ``wp.regularize``.
        schedule: As for ``wp.regularize``.
        keyed: Whether masks depend on seed, module, step and micro-batch alone.
        seed: Where initial values and masks come from.

    Attributes:
        handles_: What ``wp.regularize`` returned, once training has begun.
        step_: How many batches were trained on.

    Raises:
        WellposedError: In ``fit``, as ``wp.initialize`` and ``wp.regularize``.

    Example:
        >>> import wellposed as wp
        >>> callback = SkorchCallback(scheme="auto", penalty=wp.L1(1e-3))
        >>> callback.get_params()["penalty"]
        L1(lam=0.001)
    """

    def __post_init__(self) -> None:
        self.initialize()

    def initialize(self) -> "SkorchCallback":
        """Begin anew, as skorch asks before a fit."""
        self.handles_: tuple[Handle, ...] = ()
        self.step_ = self.passes_ = 0
        self.started_ = Started()
        self.hooks_: list[Any] = []
        self.block_: contextlib.ExitStack | None = None
        return self

    def on_train_begin(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:  # noqa: N803
        """Initialize the module, put the penalty on its optimizer, and watch its forward passes."""
        module, history = net.module_, net.history or []
        went_before = bool(history) and not self.started_.any  # in another process, perhaps, or in what was loaded
        if self.started_.note(module) and not went_before:
            self.start(module)
        self.step_ = self.step_ or sum(row.get("train_batch_count", 0) for row in history)
        self.handles_ = tuple(attached(net.optimizer_)) or self._put_on(net)
        self._unwatch()
        self.hooks_ = [
            module.register_forward_pre_hook(_Hook(self._open)),
            module.register_forward_hook(_Hook(self._close), always_call=True),
        ]

    def on_batch_end(self, net: NeuralNet, batch: Any = None, training: bool | None = None, **kwargs: Any) -> None:
        """Count the step."""
        if training:
            self.step_, self.passes_ = self.step_ + 1, 0

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Record what there is to say of the penalty."""
        for name, value in figures(self.handles_).items():
            net.history.record(name, value)

    def on_train_end(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:  # noqa: N803
        """Watch forward passes no more."""
        self._unwatch()

    def _put_on(self, net: NeuralNet) -> tuple[Handle, ...]:
        handles = self.put_on([net.optimizer_], net.module_)
        for handle in handles:
            handle.load_state_dict(handle.state_dict() | {"step": self.step_})
        return handles

    def _open(self, module: nn.Module) -> None:
        self._close(module)
        if module.training:
            self.block_ = contextlib.ExitStack()
            self.block_.enter_context(self.masks(self.step_, self.passes_))
            self.passes_ += 1

    def _close(self, module: nn.Module) -> None:
        block, self.block_ = self.block_, None
        if block is not None:
            block.close()

    def _unwatch(self) -> None:
        for hook in self.hooks_:
            hook.remove()
        self.hooks_ = []

    def __getstate__(self) -> dict[str, Any]:
        # The penalty is pickled with the optimizer, and found there again.
        return vars(self) | {"handles_": (), "hooks_": [], "block_": None}


class _Hook:
    """A hook on a module's forward pass; in a copy or pickle of the module it does nothing."""

    def __init__(self, act: Any = None) -> None:
        self._act = act

    def __call__(self, module: nn.Module, *given: Any) -> None:
        if self._act is not None:
            self._act(module)

    def __reduce__(self) -> tuple[type["_Hook"], tuple[()]]:
        return _Hook, ()
