"""Keys: 64 bits that name a stream of random numbers."""

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import SupportsIndex

from wellposed.arguments import integer
from wellposed.errors import WellposedError

_WORD = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True, repr=False)
class Key:
    """A 64-bit key: the name of one stream of random numbers.

    Two keys are equal when their 64 bits are. A key is never used up: the same key, call number and element index
    always give the same value.

    Args:
        seed: The 64 bits, as an integer in [-2^63, 2^64). A negative seed stands for its two's complement, as in
            ``torch.manual_seed``.

    Raises:
        WellposedError: If ``seed`` is not an integer or does not fit in 64 bits.

    Example:
        >>> import wellposed as wp
        >>> key = wp.Key(0).fold("encoder.0.weight")
        >>> key
        Key(0).fold('encoder.0.weight')
        >>> key == wp.Key(0).fold("encoder.0.weight"), key == wp.Key(0)
        (True, False)

    Source: the key words of Philox4x32 (Salmon et al., 2011).
    """

    seed: int
    words: tuple[int, int] = field(init=False, compare=False)
    origin: tuple["Key", tuple[str | int, ...]] | None = field(default=None, compare=False, kw_only=True)

    def __post_init__(self) -> None:
        seed = integer(self.seed, "Key(seed)", -(2**63), 2**64) & (_WORD << 32 | _WORD)
        object.__setattr__(self, "seed", seed)
        object.__setattr__(self, "words", (seed & _WORD, seed >> 32))

    def fold(self, *parts: str | SupportsIndex) -> "Key":
        """Derive the key that ``parts`` name under this one.

        The new 64 bits are BLAKE2b, with a digest of 8 bytes, over this key's 8 bytes and, for each part, a tag byte
        (``s`` or ``i``), the length of its bytes and the bytes themselves. So ("ab", "c") and ("a", "bc") differ, and
        so do 1 and "1".

        Args:
            parts: Text or integers in [-2^127, 2^127), at least one.

        Returns:
            A new key. Folding in two steps is not the same as folding two parts at once.

        Raises:
            WellposedError: If there is no part, or one that is neither text that UTF-8 can write nor an integer.

        Example:
            >>> Key(1).fold("layer", 2) == Key(1).fold("layer", 3)
            False

        Source: BLAKE2 (Aumasson et al., 2013; RFC 7693).
        """
        if not parts:
            raise WellposedError(
                "Key.fold() was given nothing to fold in; give text or integers, as in key.fold('layer', 3)"
            )
        plain = tuple(part if isinstance(part, str) else integer(part, "Key.fold", -(2**127), 2**127) for part in parts)
        digest = blake2b(self.seed.to_bytes(8, "little"), digest_size=8)
        for part in plain:
            if isinstance(part, str):
                tag, data = b"s", _utf8(part)
            else:
                tag, data = b"i", part.to_bytes(16, "little", signed=True)
            digest.update(tag + len(data).to_bytes(8, "little") + data)
        return Key(int.from_bytes(digest.digest(), "little"), origin=(self, plain))

    def __repr__(self) -> str:
        if self.origin is None:
            return f"Key({self.seed})"
        parent, parts = self.origin
        return f"{parent!r}.fold({', '.join(map(repr, parts))})"


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise WellposedError(f"Key.fold was given {text!r}, which has no UTF-8; expected whole characters") from None
