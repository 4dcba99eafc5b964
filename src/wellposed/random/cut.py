"""What dropout makes of an element, ready for any backend."""

from typing import NamedTuple


class Cut(NamedTuple):
    """Elements whose word is below a threshold become ``floor``, and the others ``x * scale + shift``.

    Attributes:
        threshold: In [0, 2^32].
        scale: What the others are multiplied by.
        shift: What is added to them then; -0 changes nothing, not even the sign of a zero.
        floor: What the dropped ones become.
    """

    threshold: int
    scale: float
    shift: float = -0.0
    floor: float = 0.0
