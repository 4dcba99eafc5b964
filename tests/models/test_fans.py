"""Fans against torch's own where torch is right, and against counted sums where it is not."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.init import _calculate_fan_in_and_fan_out

import wellposed as wp
from wellposed.init import Axes, fans


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5))
def test_the_defaults_are_torchs(shape: list[int]) -> None:
    assert fans(shape) == _calculate_fan_in_and_fan_out(torch.empty(shape))


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5))
def test_counting_from_the_end_is_counting_from_the_front(shape: list[int]) -> None:
    n = len(shape)
    for out, in_ in ((0, 1), (n - 1, n - 2), (1, 0)):
        assert fans(shape, Axes(out, in_)) == fans(shape, Axes(out - n, in_ - n))


COUNTED: list[tuple[tuple[int, ...], Axes, tuple[float, float]]] = [
    ((5, 7), Axes(out=1, in_=0), (5, 7)),
    ((3, 3, 16, 32), Axes(out=3, in_=2), (144, 288)),
    ((8, 64, 16), Axes(out=1, in_=2, batch=0), (16, 64)),
    ((8, 2, 64, 16), Axes(out=2, in_=3, batch=(0, 1)), (16, 64)),
    ((96, 32), Axes(groups=3), (32, 32)),
    ((32, 96), Axes(out=1, in_=0, groups=3), (32, 32)),
    ((12, 8, 64), Axes(out=(0, 1), in_=2), (64, 96)),
    ((64, 12, 8), Axes(out=0, in_=(1, 2)), (96, 64)),
    ((10, 4, 6), Axes(out=0, in_=(1, 2)), (24, 10)),
    ((100, 16), Axes(out=1, in_=(), batch=0), (1, 16)),
    ((16,), Axes(out=0, in_=()), (1, 16)),
    ((768, 3, 16, 16), Axes(out_stride=256), (768, 768)),
    ((4, 6, 3, 3), Axes(out=1, in_=0, in_stride=4), (9, 54)),
    ((0, 4), Axes(), (4, 0)),
]


@pytest.mark.parametrize(("shape", "axes", "wanted"), COUNTED, ids=str)
def test_counted_by_hand(shape: tuple[int, ...], axes: Axes, wanted: tuple[float, float]) -> None:
    assert fans(shape, axes) == wanted


CONVOLUTIONS: list[tuple[Any, Axes]] = [
    (nn.Conv1d(4, 6, 3, padding=1, padding_mode="circular", bias=False), Axes()),
    (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular", bias=False), Axes()),
    (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular", bias=False, groups=2), Axes(groups=2)),
    (nn.Conv2d(4, 8, 3, padding=1, padding_mode="circular", bias=False, groups=4), Axes(groups=4)),
    (nn.Conv2d(4, 6, 2, stride=2, bias=False), Axes(out_stride=4)),
    (nn.Conv2d(4, 6, 4, stride=2, padding=1, padding_mode="circular", bias=False), Axes(out_stride=4)),
    (nn.Conv2d(4, 6, 1, stride=2, bias=False), Axes(out_stride=4)),
    (nn.ConvTranspose1d(4, 6, 2, stride=2, bias=False), Axes(out=1, in_=0, in_stride=2)),
    (nn.ConvTranspose2d(4, 6, 2, stride=2, bias=False, groups=2), Axes(out=1, in_=0, groups=2, grouped=0, in_stride=4)),
]


@pytest.mark.parametrize(("layer", "axes"), CONVOLUTIONS, ids=str)
def test_fans_count_the_terms_of_a_convolution(layer: Any, axes: Axes) -> None:
    """With all weights one, an output of ones is the number of terms summed, and so is the input's gradient."""
    nn.init.ones_(layer.weight)
    x = torch.ones(1, layer.in_channels, *[8] * (layer.weight.ndim - 2), requires_grad=True)
    y = layer(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert fans(layer.weight.shape, axes) == pytest.approx((float(y.detach().mean()), float(slope.mean())))


def test_axes_are_values() -> None:
    assert Axes(out=[0, 1], in_=2) == Axes(out=(0, 1), in_=2)  # type: ignore[arg-type]
    assert len({Axes(), Axes(out=0), Axes(groups=2)}) == 2
    assert repr(Axes(out=1, in_=0, batch=(2,))) == "Axes(out=1, in_=0, batch=(2,))"


BAD_AXES: list[tuple[dict[str, Any], str]] = [
    ({"out": 0, "in_": 0}, "twice"),
    ({"batch": (1,)}, "twice"),
    ({"out": 1.5}, "number"),
    ({"groups": 0}, "at least 1"),
    ({"groups": True}, "at least 1"),
    ({"in_stride": 2.0}, "at least 1"),
]


@pytest.mark.parametrize(("options", "message"), BAD_AXES)
def test_bad_axes_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(wp.WellposedError, match=message):
        Axes(**options)


BAD_FITS: list[tuple[tuple[int, ...], Axes, str]] = [
    ((5,), Axes(), r"shape \(5,\) has no dimension 1"),
    ((5, 6), Axes(out=-3), "no dimension -3"),
    ((5, 6), Axes(out=1, in_=-1), "same end"),
    ((5, 6), Axes(groups=2), "does not divide into 2 groups"),
    ((4, 6), Axes(out=(), groups=2), "grouped="),
    ((4, 6, 3), Axes(groups=3, grouped=2), "groups dimension 2"),
]


@pytest.mark.parametrize(("shape", "axes", "message"), BAD_FITS)
def test_axes_that_do_not_fit_are_refused(shape: tuple[int, ...], axes: Axes, message: str) -> None:
    with pytest.raises(wp.WellposedError, match=message):
        fans(shape, axes)
