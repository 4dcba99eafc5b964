"""What the draws refuse, in words that help, with the tensor left as it was."""

import importlib
import math
import sys
from collections.abc import Callable

import pytest
import torch

import wellposed as wp

backend = importlib.import_module("wellposed.random.backend")  # whose name a function of it has taken
KEY = wp.Key(0)
NAN, INF = math.nan, math.inf
R = wp.random

REFUSALS: list[tuple[Callable[[torch.Tensor], object], str]] = [
    (lambda t: R.uniform_(t, 0), "expected a wp.Key"),  # type: ignore[arg-type]
    (lambda t: R.uniform_(t, KEY, call=-1), "expected an integer in"),
    (lambda t: R.uniform_(t, KEY, call=2**64), "expected an integer in"),
    (lambda t: R.uniform_(t, KEY, call=1.5), "expected an integer"),  # type: ignore[arg-type]
    (lambda t: R.uniform_(t, KEY, 1.0, 0.0), "low <= high"),
    (lambda t: R.uniform_(t, KEY, NAN, 1.0), "low <= high"),
    (lambda t: R.uniform_(t, KEY, 0.0, INF), "finite"),
    (lambda t: R.uniform_(t, KEY, -3e38, 3e38), "below 3.4e38"),
    (lambda t: R.uniform_(t, KEY, 0.1, 0.10000000001), "wider interval"),
    (lambda t: R.uniform_(t.long(), KEY), "expected float32"),
    (lambda t: R.normal_(t, KEY, NAN), "finite"),
    (lambda t: R.normal_(t, KEY, 0.0, -1.0), "std >= 0"),
    (lambda t: R.normal_(t, KEY, 0.0, INF), "finite"),
    (lambda t: R.normal_(t.to(torch.complex64), KEY), "expected float32"),
    (lambda t: R.truncated_normal_(t, KEY, a=1.0, b=1.0), "a < b"),
    (lambda t: R.truncated_normal_(t, KEY, a=2.0, b=-2.0), "a < b"),
    (lambda t: R.truncated_normal_(t, KEY, a=NAN), "a < b"),
    (lambda t: R.truncated_normal_(t, KEY, 5.0, 0.0), "positive std"),
    (lambda t: R.truncated_normal_(t, KEY, 1e300, 1e-300, 0.0, 1.0), "a finite number of standard"),
    (lambda t: R.bernoulli_(t, KEY, -0.1), "in \\[0, 1\\]"),
    (lambda t: R.bernoulli_(t, KEY, 1.1), "in \\[0, 1\\]"),
    (lambda t: R.bernoulli_(t, KEY, NAN), "in \\[0, 1\\]"),
    (lambda t: R.bernoulli_(t.to(torch.complex64), KEY), "real dtype"),
    (lambda t: R.normal_(t, KEY, box=wp.Box((4, 4), (0, 2))), "does not fit"),
    (lambda t: R.normal_(t, KEY, box=wp.Box((9,), (0,))), "does not fit"),
    (lambda t: R.normal_(t, KEY, box=((4, 4), (0, 2))), "expected a wp.Box"),  # type: ignore[arg-type]
    (lambda t: R.normal_(t, KEY, box=wp.Box((3.5, 3), (0, 0))), "expected an integer"),  # type: ignore[arg-type]
    (lambda t: R.normal_(t, KEY, box=wp.Box(9, 0)), "one for each dimension"),  # type: ignore[arg-type]
    (lambda t: R.normal_(t, KEY, mean="a"), r"normal\(mean\) was given 'a'"),  # type: ignore[arg-type]
    (lambda t: R.normal_(t, KEY, std=t), r"normal\(std\) was given a tensor of shape \(3, 3\)"),  # type: ignore[arg-type]
    (lambda t: R.uniform_(t, KEY, None), r"uniform\(low\) was given None"),  # type: ignore[arg-type]
    (lambda t: R.truncated_normal_(t, KEY, b="2"), r"truncated_normal\(b\) was given '2'"),  # type: ignore[arg-type]
    (lambda t: R.bernoulli_(t, KEY, 1j), "expected a number"),  # type: ignore[arg-type]
    (lambda t: R.normal_(t.numpy(), KEY), "a ndarray was given"),  # type: ignore[arg-type]
    (lambda t: R.normal_(t.tolist(), KEY), "a list was given"),  # type: ignore[arg-type]
    (lambda t: R.normal_(t.to_sparse(), KEY), "expected a dense one"),
    (lambda t: R.uniform_(t.half(), KEY, 70_000.0, 70_000.0), "no torch.float16 number lies between"),
    (lambda t: R.uniform_(t, KEY.fold("\ud800")), "no UTF-8"),
]


@pytest.mark.parametrize(("act", "message"), REFUSALS, ids=[str(n) for n in range(len(REFUSALS))])
def test_refusals(act: Callable[[torch.Tensor], object], message: str) -> None:
    tensor = torch.full((3, 3), 7.0)
    version = tensor._version
    with pytest.raises(wp.WellposedError, match=message):
        act(tensor)
    assert (tensor == 7).all()
    assert tensor._version == version


@pytest.mark.parametrize("name", ["numba", "", "CPU"])
def test_unknown_backends(name: str) -> None:
    with pytest.raises(wp.WellposedError, match="expected one of"), R.backend(name):
        pass


def test_a_backend_that_is_not_installed_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_loaded", {})
    monkeypatch.delitem(sys.modules, "wellposed.random.gpu", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(wp.WellposedError, match="pip install triton"), R.backend("gpu"):
        pass
    with pytest.warns(RuntimeWarning, match="plain torch serves"):
        assert backend._on_gpu.__wrapped__() == ("reference",)


def test_an_explicit_backend_never_falls_back() -> None:
    with R.backend("cpu"), pytest.raises(wp.WellposedError, match="cannot serve"):
        R.bernoulli(3, KEY, dtype=torch.int64)
    with R.backend("cpu"), pytest.raises(wp.WellposedError, match="cannot serve"):
        R.bernoulli_(torch.zeros(3).to_sparse(), KEY)
    assert R.bernoulli(3, KEY, dtype=torch.int64).dtype == torch.int64
