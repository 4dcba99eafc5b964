"""Where a module's mask comes from: by default, one int64 a call from torch's default CPU generator.

``torch.manual_seed`` governs that generator, and activation checkpointing, which restores it, repeats the mask. The
number is the key, and the call number is 0. A graph draws it by an operator: it takes the input that the mask is for,
or two draws would be merged into one, and carries the tag that tells compilers never to draw again when they recompute.
"""

import ctypes
import threading
from typing import Any

import torch
from torch import Tensor

_library: Any = torch.library.Library("wellposed", "FRAGMENT")
_library.define("draw(Tensor x) -> Tensor", tags=(torch.Tag.nondeterministic_seeded, torch.Tag.pt2_compliant_tag))


def draw_key() -> tuple[int, int]:
    """Draw a key's two words from torch's default CPU generator."""
    _local.tensor.random_()
    number = _local.number.value
    return number & 0xFFFF_FFFF, number >> 32


def draw_words(x: Tensor) -> Tensor:
    """Draw key and call as the operator ``wellposed::dropout`` takes them."""
    words: Tensor = torch.ops.wellposed.draw(x)
    return words


class _Local(threading.local):
    """A number of each thread's own, filled anew by each draw: making a tensor would take longer than drawing."""

    def __init__(self) -> None:
        with torch.inference_mode(mode=False):
            self.tensor = torch.empty((), dtype=torch.int64, device="cpu")
        self.number = ctypes.c_int64.from_address(self.tensor.data_ptr())


_local = _Local()


@torch.library.impl(_library, "draw", "CompositeExplicitAutograd")
def _draw(x: Tensor) -> Tensor:
    low, high = draw_key()
    return torch.tensor([low | high << 32, 0], dtype=torch.int64, device="cpu")


@torch.library.register_fake("wellposed::draw", lib=_library)  # type: ignore[untyped-decorator]
def _fake(x: Tensor) -> Tensor:
    return torch.empty(2, dtype=torch.int64, device="cpu")


@torch.library.register_vmap("wellposed::draw", lib=_library)  # type: ignore[untyped-decorator]
def _vmap(info: Any, in_dims: tuple[int | None], x: Tensor) -> tuple[Tensor, int | None]:
    if info.randomness == "error":
        raise RuntimeError(
            "vmap: dropout draws a random number, which vmap's randomness='error' forbids; "
            "pass randomness='different' or 'same' to vmap, or use wellposed.dropout with a key"
        )
    if info.randomness == "same":
        return draw_words(x), None
    return torch.stack([draw_words(x) for _ in range(info.batch_size)]), 0
