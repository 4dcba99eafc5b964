"""``wp.lint_dropout``, and the watched run that it shares with ``wp.plan_convert_dropout``."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.functional import dropout, scaled_dot_product_attention

import wellposed as wp

X = torch.ones(2, 4, 4)


class One(nn.Module):
    """A rate of its own beside a layer with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.rate, self.norm, self.drop = 0.5, nn.BatchNorm1d(4), nn.Dropout(0.5)


class Aliased(One):
    def forward(self, x: Tensor) -> Tensor:
        return dropout(x)


class AnotherAlias(One):
    def forward(self, x: Tensor) -> Tensor:
        return nnf.dropout2d(x, 0.3)


class Torchs(One):
    def forward(self, x: Tensor) -> Tensor:
        return torch.dropout(x, 0.5, True)


class Attends(One):
    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x, dropout_p=self.rate)


class AttendsByPosition(One):
    def forward(self, x: Tensor) -> Tensor:
        return scaled_dot_product_attention(x, x, x, None, 0.1)


class ManyHeads(One):
    def forward(self, x: Tensor) -> Tensor:
        weight, bias = torch.eye(4).repeat(3, 1), torch.zeros(12)
        return F.multi_head_attention_forward(
            x, x, x, 4, 2, weight, bias, None, None, False, 0.1, torch.eye(4), bias[:4]
        )[0]


class ImportedWithin(One):
    def forward(self, x: Tensor) -> Tensor:
        import torch.nn.functional as within

        return within.dropout(x, 0.1)


class ThroughAHelper(One):
    def forward(self, x: Tensor) -> Tensor:
        return helper(x)


def helper(x: Tensor) -> Tensor:
    return F.alpha_dropout(x, 0.2, training=True)


class Guarded(One):
    def forward(self, x: Tensor) -> Tensor:
        x = torch.dropout(x, p=0.5, train=self.training)
        x = F.alpha_dropout(nnf.dropout(x, self.rate, self.training))  # which is off unless told otherwise
        rate = self.rate if self.training else 0.0
        x = F.scaled_dot_product_attention(x, x, x, dropout_p=rate)
        return F.scaled_dot_product_attention(x, x, x, None, self.rate if self.training else 0.0)


class Never(One):
    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(F.dropout(x, 0.0), x, x, dropout_p=0.0)


LIVE = [Aliased, AnotherAlias, Torchs, Attends, AttendsByPosition, ManyHeads, ImportedWithin, ThroughAHelper]


def left(model: nn.Module, *more: str) -> set[str]:
    """The paths of what drops on the example in training mode and has no equivalent; and of what is not known."""
    return {row.path for row in wp.plan_convert_dropout(model, example=X) if row.what in ("left", *more)}


def rules(model: nn.Module, example: Any = None) -> list[tuple[str, str]]:
    return [(finding.rule, finding.path) for finding in wp.lint_dropout(model, example)]


@pytest.mark.filterwarnings("ignore:.*dropout2d")
@pytest.mark.parametrize("kind", LIVE)
def test_dropout_that_is_live_in_evaluation_is_found(kind: Callable[[], nn.Module]) -> None:
    """By running only: without an example, calls of functions are not seen."""
    model = nn.Sequential(kind())
    assert rules(model, X) == [("live-in-eval", "0")]
    assert rules(model) == []
    assert left(model) == {"0"}


@pytest.mark.parametrize("kind", [Guarded, Never])
def test_dropout_that_the_mode_governs_is_not(kind: Callable[[], nn.Module]) -> None:
    model = nn.Sequential(kind())
    assert rules(model, X) == rules(model) == []
    assert left(model) == ({"0"} if kind is Guarded else set())


class Called(One):
    """Dropout, then the normalisation, as its own ``forward`` has them."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(2 * self.drop(x))
        return y


class CalledAsFunctions(One):
    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(F.dropout(x, self.rate, self.training), torch.zeros(4), torch.ones(4))


class Apart(One):
    """Both are called in that order, on branches that do not meet before the end."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.drop(x) + self.norm(x)
        return y


class AfterIt(One):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.drop(self.norm(x))
        return y


linear, norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
ORDERED: list[tuple[nn.Module, str, bool]] = [  # a model, where the dropout is, whether nn.Sequential tells
    (nn.Sequential(linear, nn.Dropout(0.5), norm), "1", True),
    (nn.Sequential(nn.Sequential(linear, nn.Dropout(0.5)), norm), "0.1", True),
    (nn.Sequential(nn.Dropout(0.5), nn.Sequential(linear, norm)), "0", True),
    (nn.Sequential(wp.Dropout(0.5), nn.Sequential(linear, norm)), "0", True),
    (nn.Sequential(nn.Identity(), Called()), "1.drop", False),
    (nn.Sequential(CalledAsFunctions()), "0", False),
    (nn.Sequential(wp.convert_dropout(Called())), "0.drop", False),
]


@pytest.mark.parametrize("case", range(len(ORDERED)))
def test_dropout_before_batch_normalisation(case: int) -> None:
    model, path, by_order = ORDERED[case]
    wanted = [("before-batch-norm", path)]
    assert rules(model) == (wanted if by_order else [])
    assert rules(model, X) == wanted


@pytest.mark.parametrize("model", [Apart(), AfterIt(), nn.Sequential(nn.Dropout(0.0), linear, norm)])
def test_dropout_that_does_not_reach_batch_normalisation(model: nn.Module) -> None:
    assert rules(model) == rules(model, X) == []


class InPlaceFunctions(One):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(F.relu(x + 1, inplace=True), 0.5, self.training, inplace=True)


class InPlaceOnAnother(One):
    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(x + 1, inplace=True)
        return y + F.dropout(x + 1, 0.5, self.training, inplace=True)


def test_dropout_in_place_of_what_was_written_in_place() -> None:
    relu, drop = nn.ReLU(inplace=True), nn.Dropout(0.5, inplace=True)
    for model, path in ((nn.Sequential(relu, drop), "1"), (nn.Sequential(nn.Sequential(linear, relu), drop), "1")):
        assert rules(model) == rules(model, X) == [("in-place-twice", path)]
    assert rules(nn.Sequential(InPlaceFunctions()), X) == [("in-place-twice", "0")]
    assert rules(nn.Sequential(InPlaceOnAnother()), X) == rules(nn.Sequential(relu, linear, drop), X) == []


class Sometimes(nn.Module):
    """Runs a layer, or not, as torch's generator says."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Attends() for _ in range(6)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            if float(torch.rand(())) < 0.5:
                x = layer(x)
        return x


def test_what_an_example_runs_does_not_depend_on_torchs_generator() -> None:
    """And a module that it does not reach is reported as unseen."""
    state = torch.get_rng_state()
    for seed in range(4):
        torch.manual_seed(seed)
        assert left(Sometimes(), "unseen") == {"", *(f"layers.{i}" for i in range(6))}
        found = rules(Sometimes(), X)
        assert {path for _, path in found} == {"", *(f"layers.{i}" for i in range(6))}
        assert {rule for rule, _ in found} == {"live-in-eval", "unseen"}
    torch.set_rng_state(state)


class ByItsMethod(nn.Module):
    """Calls the function of a module in another way than as a module."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Attends()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner.forward(x)


class StochasticDepth(nn.Module):
    """A module that passes for torchvision's, whose class is known to obey the mode."""

    __module__ = "torchvision.ops.stochastic_depth"
    p, mode = 0.5, "row"

    def forward(self, x: Tensor) -> Tensor:
        return x


class Skips(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x


def test_what_draws_or_is_known_is_not_unseen() -> None:
    assert rules(ByItsMethod(), X) == [("live-in-eval", "inner")]
    assert rules(Skips(StochasticDepth(), nn.Dropout(0.5), wp.Dropout(0.5), Attends()), X) == [("unseen", "3")]


class OwnRate(nn.Module):
    def __init__(self, rate: float) -> None:
        super().__init__()
        self.attention_dropout = rate

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.attention_dropout, self.training)


def test_a_rate_of_zero_drops_nothing() -> None:
    assert left(nn.Sequential(OwnRate(0.0))) == set()
    assert left(nn.Sequential(OwnRate(0.1))) == {"0"}


LINES: list[tuple[nn.Module, list[tuple[str, str]], tuple[int, ...]]] = [  # a model, what is found, an input's shape
    (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Dropout(0.5), nn.Linear(2, 2)), [], (3, 2)),
    (nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2), nn.BatchNorm1d(2)), [("before-batch-norm", "0")], (3, 2)),
    (nn.Sequential(wp.Dropout(0.5), nn.BatchNorm1d(2)), [("before-batch-norm", "0")], (3, 2)),
    (nn.Sequential(wp.Dropout(0.0), nn.BatchNorm1d(2)), [], (3, 2)),
    (nn.Sequential(nn.Sequential(nn.Dropout2d(0.1), nn.BatchNorm2d(2))), [("before-batch-norm", "0.0")], (1, 2, 3, 3)),
    (nn.Sequential(nn.ReLU(inplace=True), nn.Dropout(0.1, inplace=True)), [("in-place-twice", "1")], (3,)),
    (nn.Sequential(nn.ReLU(), nn.Dropout(0.1, inplace=True)), [], (3,)),
]


@pytest.mark.parametrize(("model", "wanted", "shape"), LINES)
def test_what_is_found_along_a_line_of_layers(
    model: nn.Module, wanted: list[tuple[str, str]], shape: tuple[int, ...]
) -> None:
    for findings in (wp.lint_dropout(model), wp.lint_dropout(model, torch.ones(shape))):
        assert [(finding.rule, finding.path) for finding in findings] == wanted
        assert all("; " in finding.message for finding in findings)


def test_findings_are_in_the_models_order_and_name_its_lines() -> None:
    model = nn.Sequential(Guarded(), Attends(), Aliased())
    attends, aliased = wp.lint_dropout(model, X)
    assert (attends.rule, attends.path, aliased.rule, aliased.path) == ("live-in-eval", "1", "live-in-eval", "2")
    assert f"{__name__}:" in attends.message
    assert "return F.scaled_dot_product_attention(x, x, x, dropout_p=self.rate); pass training=" in attends.message
    assert "return dropout(x); pass training=self.training" in aliased.message


def test_what_is_called_live_in_eval_is() -> None:
    for model, is_live in ((Attends(), True), (Aliased(), True), (Guarded(), False)):
        x = torch.ones(2, 64, 64)
        model.eval()
        assert torch.equal(model(x), model(x)) != is_live
