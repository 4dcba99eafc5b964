"""The interface of initializers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from wellposed.arguments import unwritable
from wellposed.errors import WellposedError
from wellposed.models.fans import LINEAR, Axes
from wellposed.random.box import Box
from wellposed.random.key import Key


class Initializer(ABC):
    """What a weight starts as: a value that can be compared, printed, pickled, and used for any number of tensors.

    The values depend on the key and on each element's place alone, so an initializer has no state. To write another
    one, make a frozen dataclass under ``Distributed`` that has ``at``, or one under ``Initializer`` that has ``fill_``
    and ``std_for``.

    Attributes:
        keyed: Whether the values depend on the key.
    """

    keyed: ClassVar[bool] = True

    def __call__(
        self,
        shape: Sequence[int],
        key: Key,
        *,
        axes: Axes = LINEAR,
        dtype: torch.dtype | None = None,
        device: torch.device | str | int | None = None,
    ) -> Tensor:
        """Make a tensor.

        Args:
            shape: Its shape.
            key: Which stream its values come from.
            axes: What its dimensions are for.
            dtype: Its dtype; ``None`` is torch's default.
            device: Its device; ``None`` is torch's default.

        Returns:
            A new tensor.

        Raises:
            WellposedError: If the axes do not fit the shape, or the dtype cannot hold the values.

        Example:
            >>> import wellposed as wp
            >>> wp.init.He()((256, 128), wp.Key(0).fold("hidden.weight")).shape
            torch.Size([256, 128])
        """
        return self.fill_(torch.empty(tuple(shape), dtype=dtype, device=device), key, axes=axes)

    @abstractmethod
    def fill_(self, tensor: Tensor, key: Key, *, axes: Axes = LINEAR, box: Box | None = None) -> Tensor:
        """Fill a tensor in place, leaving no trace in autograd.

        Args:
            tensor: Of any floating dtype, device and memory layout; a parameter keeps its ``requires_grad``.
            key: Which stream its values come from.
            axes: What its dimensions are for.
            box: Which block of a larger tensor this is; the fans are then those of the larger one.
                ``None`` is the whole.

        Returns:
            The tensor.

        Raises:
            WellposedError: If the axes do not fit the shape, the box does not fit the tensor, or the dtype cannot hold
                the values.

        Example:
            >>> import wellposed as wp
            >>> layer = torch.nn.Linear(128, 256)
            >>> wp.init.LeCun().fill_(layer.weight, wp.Key(0)).requires_grad
            True
        """

    def fill_blocks(self, blocks: Sequence[tuple[Tensor, Box | None]], key: Key, *, axes: Axes = LINEAR) -> None:
        """Fill blocks of one weight in place, as ``fill_`` does with each; what they share is made once.

        Args:
            blocks: Tensors and where each lies in the whole, which is one and the same.
            key: Which stream its values come from.
            axes: What its dimensions are for.
        """
        for block, box in blocks:
            self.fill_(block, key, axes=axes, box=box)

    @abstractmethod
    def std_for(self, shape: Sequence[int], axes: Axes = LINEAR) -> float:
        """The standard deviation that the entries of a tensor of this shape are meant to have.

        Args:
            shape: The tensor's shape; of a part, that of the whole.
            axes: What its dimensions are for.

        Returns:
            The standard deviation of the distribution, after any truncation.

        Raises:
            WellposedError: If the axes do not fit the shape.

        Example:
            >>> import wellposed as wp
            >>> wp.init.He().std_for((256, 128)), wp.init.Glorot(bound="chapter").std_for((256, 12))
            (0.125, 0.16666666666666666)
        """


class Distributed(Initializer):
    """An initializer that draws every entry from one distribution, which may depend on the shape."""

    @abstractmethod
    def at(self, shape: Sequence[int], axes: Axes = LINEAR) -> "Entrywise":
        """The one distribution that each entry of a tensor of this shape has.

        Args:
            shape: The tensor's shape; of a part, that of the whole.
            axes: What its dimensions are for.

        Returns:
            An initializer that does not depend on the shape.

        Raises:
            WellposedError: If the fans are needed and the axes do not fit the shape.

        Example:
            >>> import wellposed as wp
            >>> wp.init.Glorot().at((256, 128))
            Uniform(low=-0.125, high=0.125)
        """

    def fill_(self, tensor: Tensor, key: Key, *, axes: Axes = LINEAR, box: Box | None = None) -> Tensor:
        """Fill a tensor in place from the distribution at its shape."""
        return self.at(tensor.shape if box is None else box.shape, axes).fill_(tensor, key, axes=axes, box=box)

    def std_for(self, shape: Sequence[int], axes: Axes = LINEAR) -> float:
        """The standard deviation of the distribution at this shape."""
        return self.at(shape, axes).std_for(shape, axes)


class Entrywise(Distributed):
    """An initializer whose entries all have the same distribution, whatever the shape."""

    def at(self, shape: Sequence[int], axes: Axes = LINEAR) -> "Entrywise":
        """The initializer itself."""
        return self

    def fill_(self, tensor: Tensor, key: Key, *, axes: Axes = LINEAR, box: Box | None = None) -> Tensor:
        """Fill a tensor in place, as every initializer does; the axes do not matter."""
        if why := unwritable(tensor):
            raise WellposedError(f"{self} was given a tensor that {why}")
        if not self._suits(tensor):
            raise WellposedError(
                f"{self} was given a tensor of dtype {tensor.dtype}, which cannot hold its values; use a float dtype"
            )
        with torch.no_grad():
            return self._fill_(tensor, key, box)

    def std_for(self, shape: Sequence[int] = (), axes: Axes = LINEAR) -> float:
        """The standard deviation of an entry, the same for every shape."""
        return self._std()

    def _suits(self, tensor: Tensor) -> bool:
        return tensor.is_floating_point()

    @abstractmethod
    def _fill_(self, tensor: Tensor, key: Key, box: Box | None) -> Tensor: ...

    @abstractmethod
    def _std(self) -> float: ...
