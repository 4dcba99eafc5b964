"""Integers of 64 bits."""


def signed(number: int) -> int:
    """The number in [-2^63, 2^63) that has the same 64 bits as one in [0, 2^64), which kernels and tensors take.

    Example:
        >>> signed(2**64 - 1)
        -1
    """
    return number if number < 9223372036854775808 else number - 18446744073709551616
