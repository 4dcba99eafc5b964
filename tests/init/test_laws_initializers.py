"""Laws that every initializer keeps, over the table in initializer_cases.py."""

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import wellposed as wp
from initializer_cases import CASES, Case
from wellposed.init import Axes

RV = type(stats.norm())
KEY = wp.Key(2021).fold("laws")
EVERY = pytest.mark.parametrize("case", CASES, ids=str)
DRAWN = pytest.mark.parametrize("case", [case for case in CASES if isinstance(case.truth, RV)], ids=str)


def make(case: Case, key: wp.Key = KEY, **options: Any) -> torch.Tensor:
    return case.initializer(case.shape, key, axes=case.axes, **options)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_shape_dtype_and_support(case: Case, dtype: torch.dtype) -> None:
    tensor = make(case, dtype=dtype)
    assert tensor.shape == case.shape
    assert tensor.dtype == dtype
    assert not tensor.requires_grad
    if case.truth is None:
        assert bool(torch.isfinite(tensor).all())
        return
    low, high = (case.truth, case.truth) if isinstance(case.truth, float) else case.truth.support()
    # A bound that a float32 cannot hold is rounded to its neighbour.
    slack = 1e-7 * max(abs(low), abs(high)) if math.isfinite(high) else 0.0
    values = tensor.double()
    assert low - slack <= float(values.min())
    assert float(values.max()) <= high + slack


@DRAWN
def test_entries_have_the_distribution(case: Case) -> None:
    """Kolmogorov-Smirnov at one fixed key: a right implementation has a p-value below 1e-4 once in 10,000 keys."""
    values = make(case, dtype=torch.float64).flatten().numpy()
    assert stats.kstest(values, case.truth.cdf).pvalue > 1e-4


@DRAWN
def test_moments(case: Case) -> None:
    """Mean and variance within 4.5 standard errors, missed by chance once in 150,000 keys."""
    values = make(case, dtype=torch.float64)
    n = values.numel()
    mean, variance, _, kurtosis = (float(m) for m in case.truth.stats("mvsk"))
    assert abs(float(values.mean()) - mean) < 4.5 * math.sqrt(variance / n)
    assert abs(float(values.var(correction=0)) - variance) < 4.5 * variance * math.sqrt((kurtosis + 2) / n)


@EVERY
def test_std_for_is_the_standard_deviation(case: Case) -> None:
    got = case.initializer.std_for(case.shape, case.axes)
    if case.truth is None:
        values = make(case, dtype=torch.float64)
        # Of normal entries a sample's standard deviation is off by more than five times this once in a million keys.
        error = 5 / math.sqrt(2 * values.count_nonzero()) if case.initializer.keyed else 1e-12
        assert got == pytest.approx(float(values.std(correction=0)), rel=error)
    else:
        wanted = 0.0 if isinstance(case.truth, float) else float(case.truth.std())
        assert got == pytest.approx(wanted, rel=1e-9)


@EVERY
def test_values_depend_on_the_key_alone(case: Case) -> None:
    torch.manual_seed(1)
    first = make(case)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(first, make(case))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first, make(case, KEY.fold("another"))) != case.initializer.keyed


@EVERY
@settings(max_examples=10, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_box_equals_the_block_of_the_whole(case: Case, data: st.DataObject) -> None:
    whole = make(case)
    starts = [data.draw(st.integers(0, size - 1)) for size in case.shape]
    stops = [data.draw(st.integers(start, size)) for start, size in zip(starts, case.shape, strict=True)]
    block = whole[tuple(map(slice, starts, stops))]
    part = torch.full(block.shape, math.nan)
    case.initializer.fill_(part, KEY, axes=case.axes, box=wp.Box(case.shape, tuple(starts)))
    assert torch.equal(part, block)


@EVERY
def test_memory_layout_does_not_matter(case: Case) -> None:
    strided = torch.full((*case.shape, 2), math.nan)[..., 0]
    assert case.initializer.fill_(strided, KEY, axes=case.axes) is strided
    assert torch.equal(strided, make(case))
    permuted = torch.full(case.shape[::-1], math.nan).permute(*reversed(range(len(case.shape))))
    assert torch.equal(case.initializer.fill_(permuted, KEY, axes=case.axes), make(case))


@EVERY
def test_a_parameter_is_filled_without_a_trace(case: Case) -> None:
    parameter = torch.nn.Parameter(torch.full(case.shape, math.nan))
    before = parameter._version
    with torch.enable_grad():
        assert case.initializer.fill_(parameter, KEY, axes=case.axes) is parameter
    assert parameter.requires_grad
    assert parameter.is_leaf
    assert parameter.grad_fn is None
    assert parameter._version > before
    assert torch.equal(parameter.detach(), make(case))


@EVERY
def test_zero_size(case: Case) -> None:
    for d in range(len(case.shape)):
        shape = (*case.shape[:d], 0, *case.shape[d + 1 :])
        assert case.initializer(shape, KEY, axes=case.axes).shape == shape
        assert math.isfinite(case.initializer.std_for(shape, case.axes))


@EVERY
def test_is_a_value(case: Case) -> None:
    initializer = case.initializer
    for counterpart in (pickle.loads(pickle.dumps(initializer)), copy.deepcopy(initializer), copy.copy(initializer)):
        assert counterpart == initializer
        assert hash(counterpart) == hash(initializer)
    assert eval(repr(initializer), {name: getattr(wp.init, name) for name in dir(wp.init)}) == initializer
    with pytest.raises(AttributeError):
        initializer.scale = 3.0  # type: ignore[attr-defined]


def test_different_initializers_differ() -> None:
    distinct = {case.initializer for case in CASES}
    assert len(distinct) == len({repr(initializer) for initializer in distinct})


@EVERY
def test_dtype_and_device_default_to_torchs(case: Case) -> None:
    with torch.device("meta"):
        assert make(case).is_meta
    torch.set_default_dtype(torch.float64)
    try:
        assert make(case).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@DRAWN
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_a_dtype_that_cannot_hold_the_values_is_refused(case: Case, dtype: torch.dtype) -> None:
    tensor = torch.ones(case.shape, dtype=dtype)
    with pytest.raises(wp.WellposedError, match="float dtype"):
        case.initializer.fill_(tensor, KEY, axes=case.axes)
    assert bool((tensor == 1).all())


@DRAWN
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_quantised_tensor_is_refused(case: Case) -> None:
    tensor = torch.quantize_per_tensor(torch.ones(case.shape), 0.5, 0, torch.qint8)
    with pytest.raises(wp.WellposedError, match="float dtype"):
        case.initializer.fill_(tensor, KEY, axes=case.axes)
    assert bool((tensor.dequantize() == 1).all())


class Halves(torch.Tensor):
    """A tensor that is stored as its half."""

    half_: torch.Tensor

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> "Halves":
        made: Halves = torch.Tensor._make_wrapper_subclass(cls, values.shape, dtype=values.dtype)
        made.half_ = values / 2
        return made

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["half_"], None

    @classmethod
    def __torch_dispatch__(cls, *_: Any) -> Any:
        raise NotImplementedError


@DRAWN
def test_a_tensor_that_stores_its_values_in_another_form_is_refused(case: Case) -> None:
    tensor = Halves(torch.ones(case.shape))
    with pytest.raises(wp.WellposedError, match=r"Halves.*another form"):
        case.initializer.fill_(tensor, KEY, axes=case.axes)


def test_constants_in_integers() -> None:
    assert wp.init.Ones()((3,), KEY, dtype=torch.int64).tolist() == [1, 1, 1]
    assert wp.init.Zeros()((2,), KEY, dtype=torch.bool).tolist() == [False, False]
    for value, dtype in ((0.5, torch.int64), (300, torch.int8), (2, torch.bool), (math.inf, torch.int32)):
        with pytest.raises(wp.WellposedError, match="float dtype"):
            wp.init.Constant(value)((3,), KEY, dtype=dtype)


def test_a_box_that_does_not_fit_is_refused() -> None:
    for case in CASES:
        tensor = torch.full((4,) * len(case.shape), 7.0)
        with pytest.raises(wp.WellposedError, match="fit"):
            case.initializer.fill_(tensor, KEY, axes=case.axes, box=wp.Box(case.shape, case.shape))
        assert bool((tensor == 7).all())


def test_named_initializers_agree_with_torch() -> None:
    shape, weight = (48, 20, 3, 5), torch.empty(48, 20, 3, 5)
    for ours, theirs in (
        (wp.init.Glorot(), torch.nn.init.xavier_uniform_),
        (wp.init.He(scale=2.0), lambda w: torch.nn.init.kaiming_uniform_(w, nonlinearity="relu")),
        (wp.init.He(scale=1 / 3), lambda w: torch.nn.init.kaiming_uniform_(w, a=math.sqrt(5))),
    ):
        theirs(weight)
        bound = ours.at(shape)
        assert isinstance(bound, wp.init.Uniform)
        assert float(weight.abs().max()) == pytest.approx(bound.high, rel=1e-3)
        assert float(weight.abs().max()) <= bound.high * (1 + 1e-6)


def test_aliases() -> None:
    assert wp.init.Xavier is wp.init.Glorot
    assert wp.init.Kaiming is wp.init.He


BAD: list[tuple[Any, dict[str, Any], str]] = [
    (wp.init.Constant, {"value": math.nan}, "NaN"),
    (wp.init.Constant, {"value": "0"}, "number"),
    (wp.init.Uniform, {"low": 1.0, "high": 0.0}, "low <= high"),
    (wp.init.Uniform, {"low": 0.0, "high": math.inf}, "finite"),
    (wp.init.Normal, {"std": -1.0}, "std"),
    (wp.init.Normal, {"mean": math.nan}, "mean"),
    (wp.init.TruncatedNormal, {"a": 2.0, "b": 2.0}, "a < b"),
    (wp.init.TruncatedNormal, {"std": math.inf}, "std"),
    (wp.init.Random, {"bound": 0.0}, "bound"),
    (wp.init.VarianceScaling, {"scale": 0.0}, "Zeros"),
    (wp.init.VarianceScaling, {"mode": "fan"}, "fan_geo_avg"),
    (wp.init.VarianceScaling, {"distribution": "gauss"}, "truncated_normal"),
    (wp.init.Glorot, {"scale": -1.0}, "scale"),
    (wp.init.Glorot, {"bound": "book"}, "chapter"),
    (wp.init.Glorot, {"bound": "chapter", "distribution": "normal"}, "uniform"),
    (wp.init.He, {"mode": "fan_both"}, "fan_geo_avg"),
    (wp.init.He, {"bound": "chapter", "distribution": "truncated_normal"}, "uniform"),
    (wp.init.LeCun, {"distribution": ""}, "truncated_normal"),
]


@pytest.mark.parametrize(("make", "options", "message"), BAD)
def test_bad_arguments_are_refused(make: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(wp.WellposedError, match=message):
        make(**options)


def test_a_weight_without_fans_is_refused() -> None:
    for initializer in (wp.init.Glorot(), wp.init.VarianceScaling()):
        with pytest.raises(wp.WellposedError, match="no dimension"):
            initializer((5,), KEY)
    assert wp.init.Random()((5,), KEY).shape == (5,)
    assert wp.init.He()((5,), KEY, axes=Axes(out=(), in_=0)).shape == (5,)
