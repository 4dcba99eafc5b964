"""Keys and boxes as values."""

import copy
import pickle
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

import wellposed as wp

PARTS = st.lists(st.one_of(st.text(max_size=8), st.integers(-(2**127), 2**127 - 1)), min_size=1, max_size=4)


@given(st.integers(0, 2**64 - 1), PARTS)
def test_fold_is_blake2b_of_tagged_parts(seed: int, parts: list[str | int]) -> None:
    message = seed.to_bytes(8, "little")
    for part in parts:
        data = part.encode() if isinstance(part, str) else part.to_bytes(16, "little", signed=True)
        message += (b"s" if isinstance(part, str) else b"i") + len(data).to_bytes(8, "little") + data
    want = int.from_bytes(blake2b(message, digest_size=8).digest(), "little")
    assert wp.Key(seed).fold(*parts).seed == want


def test_folds_that_look_alike_differ() -> None:
    key = wp.Key(0)
    texts: list[tuple[str | int, ...]] = [("ab", "c"), ("a", "bc"), ("abc",), ("1",), ("",), ("", "")]
    names = [*texts, (1,), (1, 1), (11,), (-1,), ("1", 1)]
    assert len({key.fold(*name) for name in names}) == len(names)


def test_a_key_is_a_value() -> None:
    key = wp.Key(3).fold("encoder", 0)
    assert key == wp.Key(key.seed)
    assert hash(key) == hash(wp.Key(key.seed))
    assert repr(key) == "Key(3).fold('encoder', 0)"
    assert eval(repr(key), {"Key": wp.Key}) == key
    assert copy.deepcopy(key) == key == pickle.loads(pickle.dumps(key))
    assert wp.Key(-1) == wp.Key(2**64 - 1)
    assert wp.Key(0x1_0000_0002).words == (2, 1)
    with pytest.raises(AttributeError):
        key.seed = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: wp.Key(2**64), "expected an integer in"),
        (lambda: wp.Key(-(2**63) - 1), "expected an integer in"),
        (lambda: wp.Key(True), "expected an integer"),
        (lambda: wp.Key(1.5), "expected an integer"),  # type: ignore[arg-type]
        (lambda: wp.Key("seed"), "expected an integer"),  # type: ignore[arg-type]
        (lambda: wp.Key(0).fold(), "nothing to fold in"),
        (lambda: wp.Key(0).fold(2**127), "expected an integer in"),
        (lambda: wp.Key(0).fold(0.5), "expected an integer"),  # type: ignore[arg-type]
        (lambda: wp.Key(0).fold("a", True), "expected an integer"),
        (lambda: wp.Box((2, 3), (0,)), "an offset in"),
        (lambda: wp.Box((2, 3), (0, 4)), "an offset in"),
        (lambda: wp.Box((2, 3), (-1, 0)), "an offset in"),
        (lambda: wp.Box((2**40, 2**40), (0, 0)), "at most 2"),
    ],
)
def test_refusals(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(wp.WellposedError, match=message):
        make()
