"""Initializers by the names of torch, Keras and JAX."""

import math
from typing import Any

import pytest
import torch

import wellposed as wp
from initializer_cases import CASES

SHAPE = (40, 20)
STD = {  # what torch.nn.init gives a matrix of that shape
    "kaiming_normal": math.sqrt(2 / 20),
    "kaiming_uniform": math.sqrt(2 / 20),
    "xavier_normal": math.sqrt(2 / 60),
    "xavier_uniform": math.sqrt(2 / 60),
    "uniform": math.sqrt(1 / 12),
    "normal": 1.0,
    "zeros": 0.0,
    "ones": 0.0,
}


@pytest.mark.parametrize("name", [name for name in vars(torch.nn.init) if name.endswith("_") and name[0] != "_"])
def test_every_name_of_torchs_is_known(name: str) -> None:
    needs: dict[str, Any] = {"constant_": {"value": 0.5}, "sparse_": {"sparsity": 0.25}}.get(name, {})
    found = wp.init.get(name, **needs)
    assert found == wp.init.get(name.rstrip("_").title(), **needs)
    if name.rstrip("_") in STD:
        std = found.std_for(SHAPE)
        assert std is not None
        assert math.isclose(std, STD[name.rstrip("_")], rel_tol=1e-9)
    ours, torchs = found((2000, 2) if "dirac" not in name else (6, 3, 3), wp.Key(0)), torch.empty(2000, 2)
    if name in ("uniform_", "normal_", "trunc_normal_", "xavier_uniform_", "kaiming_uniform_", "kaiming_normal_"):
        with torch.random.fork_rng():
            getattr(torch.nn.init, name)(torchs)
        assert math.isclose(ours.std(), torchs.std(), rel_tol=0.05)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("glorot_uniform", wp.init.Glorot()),
        ("glorot_normal", wp.init.Glorot(distribution="truncated_normal")),
        ("HeNormal", wp.init.He(distribution="truncated_normal")),
        ("kaiming_normal", wp.init.He(distribution="normal")),
        ("lecun_normal", wp.init.LeCun(distribution="truncated_normal")),
        ("RandomUniform", wp.init.Uniform(-0.05, 0.05)),
        ("delta_orthogonal", wp.init.DeltaOrthogonal()),
        ("identity", wp.init.Identity()),
        ("stft", wp.init.STFT()),
    ],
)
def test_names_of_keras_and_jax(name: str, found: wp.init.Initializer) -> None:
    assert wp.init.get(name) == found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_dictionary_gives_the_initializer(case: Any) -> None:
    assert wp.init.get(wp.to_dict(case.initializer)) == case.initializer
    assert wp.init.get(case.initializer) is case.initializer


def test_fields_go_before_what_the_name_stands_for() -> None:
    assert wp.init.get("he_normal", scale=1.0, distribution="uniform") == wp.init.He(1.0)
    assert wp.init.get({"type": "trunc_normal", "std": 0.02}, a=-0.04) == wp.init.TruncatedNormal(0.0, 0.02, -0.04, 2.0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("kaimin_normal", "did you mean 'kaiming_normal'"),
        ("L1", "there is no initializer 'L1'"),
        ({"type": "L1", "lam": 1.0}, "there is no initializer 'L1'"),
        ({"std": 1.0}, "a dictionary with one under 'type'"),
        (3, "expected an initializer's name"),
    ],
)
def test_what_is_no_initializer_is_refused(spec: Any, message: str) -> None:
    with pytest.raises(wp.WellposedError, match=message):
        wp.init.get(spec)
    with pytest.raises(wp.WellposedError, match="'gain'"):
        wp.init.get("zeros", gain=2.0)
    with pytest.raises(wp.WellposedError, match="and the fields"):
        wp.init.get(wp.init.Zeros(), value=2.0)
