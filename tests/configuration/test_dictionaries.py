"""Values as plain dictionaries and back: every row of the tables, and what is refused."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import wellposed as wp
from dropout_module_cases import CASES as DROPOUTS
from initializer_cases import CASES as INITIALIZERS
from penalty_cases import CASES as PENALTIES
from wellposed.configuration.kinds import public


def values() -> Iterator[tuple[str, Any]]:
    """All values of the tables that are written by dictionaries, by names."""
    yield from ((str(case), case.initializer) for case in INITIALIZERS)
    yield from ((f"axes of {case}", case.axes) for case in INITIALIZERS)
    yield from ((name, case.penalty) for name, case in PENALTIES.items() if not holds_tensors(case.penalty))
    yield from ((case.name, case.make(0.3)) for case in DROPOUTS if is_alone(case.make(0.3)))
    yield from wp.init.SCHEMES.items()
    shapes = wp.schedules
    for schedule in (shapes.Linear(0, 1, 9), shapes.Cosine(1.0, 0.5, 3), shapes.WarmUp(4, 2), shapes.Step(7, 0.5)):
        yield repr(schedule), schedule
    yield "curriculum", shapes.Curriculum(4, 2.5)
    yield "all fields of a constructor", wp.AlphaDropout(0.1, dims=(0, 2))
    yield "an endless interval", wp.init.TruncatedNormal(0.0, 1.0, 0.5, float("inf"))
    yield "a scheme of initializers", wp.init.Scheme("mine", "us", {"weight": wp.init.Normal(0.0, 0.1)})
    yield "a product", 0.5 * wp.Towards(wp.L1(0.1))
    yield "globs", {"*.head.*": wp.L1(0.1) + wp.GroupLasso(0.3), "frozen.*": None}
    yield "numbers in a tensor", wp.LogSum(0.5, eps=0.25)


def holds_tensors(value: object) -> bool:
    return any((isinstance(each, Tensor) and each.ndim) or holds_tensors(each) for each in parts_of(value))


def parts_of(value: object) -> list[object]:
    if isinstance(value, tuple):
        return list(value)
    return list(vars(value).values()) if isinstance(value, wp.Penalty) else []


def is_alone(value: object) -> bool:
    """Whether a module holds neither weights nor modules."""
    return isinstance(value, nn.Module) and not [*value.parameters(), *value.children()]


ROWS = dict(values())


@pytest.mark.parametrize("name", ROWS)
def test_what_is_written_and_read_is_what_it_was(name: str) -> None:
    value = ROWS[name]
    written = wp.to_dict(value)
    again = wp.from_dict(json.loads(json.dumps(written, allow_nan=False)))
    assert type(again) is type(value)
    assert wp.to_dict(again) == written
    assert repr(again) == repr(value)
    if not isinstance(value, nn.Module):
        assert again == value


def test_every_public_type_is_among_the_rows() -> None:
    """Or holds weights of its own; the rows are not a few that happen to work."""
    written = json.dumps([wp.to_dict(value) for value in ROWS.values()])
    holding = {"ConcreteDropout", "DropConnect", "EmbeddingDropout", "LayerDrop", "MultiheadAttention", "Zoneout"}
    missing = {name for name in public() if f'"type": "{name}"' not in written}
    assert missing == holding | {"AdaptiveL1", "AttentionDropout"}


@pytest.mark.parametrize("value", [wp.AdaptiveL1(0.5), wp.AttentionDropout(0.25)])
def test_what_the_tables_have_with_tensors_only_is_written_without(value: Any) -> None:
    assert wp.to_dict(wp.from_dict(wp.to_dict(value))) == wp.to_dict(value)


@pytest.mark.parametrize("name", [name for name, case in PENALTIES.items() if holds_tensors(case.penalty)])
def test_tensors_are_refused(name: str) -> None:
    with pytest.raises(wp.WellposedError, match=r"it is a tensor of shape .*single numbers"):
        wp.to_dict(PENALTIES[name].penalty)


@pytest.mark.parametrize("case", [case for case in DROPOUTS if not is_alone(case.make(0.3))], ids=str)
def test_modules_that_hold_others_are_refused(case: Any) -> None:
    with pytest.raises(wp.WellposedError, match=r"holds weights or modules|no name leads to the class"):
        wp.to_dict(case.make(0.3))


def test_a_dictionary_has_the_name_of_the_class_and_its_fields() -> None:
    assert wp.to_dict(wp.L1(1e-3)) == {"type": "L1", "lam": 1e-3}
    assert wp.to_dict(wp.init.SCHEMES["he"]) == {"type": "Scheme", "name": "he"}
    assert wp.from_dict({"type": "Scheme", "name": "Kaiming"}) is wp.init.SCHEMES["he"]
    assert wp.to_dict(wp.L1(torch.tensor(0.5)))["lam"] == 0.5
    assert wp.from_dict("Zeros") == wp.init.Zeros()


def test_a_list_is_a_sum_and_a_mapping_without_a_type_is_one_of_globs() -> None:
    l1, l2, group = wp.L1(0.1), wp.L2(0.2), wp.GroupLasso(0.3)
    written = [wp.to_dict(each) for each in (l1, l2, group)]
    assert wp.from_dict(written) == l1 + l2 + group
    assert wp.from_dict({"type": "Sum", "parts": written}).value(torch.ones(2, 2)).item() == pytest.approx(
        (l1 + l2 + group).value(torch.ones(2, 2)).item()
    )
    assert wp.from_dict({"a.*": written[:2], "*.b": None, "c": "Ones"}) == {
        "a.*": wp.ElasticNet(0.1, 0.2),
        "*.b": None,
        "c": wp.init.Ones(),
    }


def test_numbers_that_yaml_takes_for_text_are_numbers() -> None:
    assert wp.from_dict({"type": "L1", "lam": "1e-4"}) == wp.L1(1e-4)
    assert wp.from_dict({"type": "GroupLasso", "lam": 1, "groups": "rows"}).groups == "rows"


def test_streams_of_modules_are_kept() -> None:
    module = wp.Dropout(0.5)
    module.stream = "7"
    again = wp.from_dict(wp.to_dict(module))
    assert again.stream == "7"  # and no number
    with wp.keyed(0):
        one = module(torch.ones(64))
    with wp.keyed(0):
        assert again(torch.ones(64)).equal(one)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"type": "l1"}, "there is no type 'l1'; did you mean 'L1'"),
        ({"type": "Grouplaso"}, "did you mean 'GroupLasso'"),
        ({"type": "Penalty"}, "there is no type 'Penalty'"),
        ({"type": "study"}, "there is no type 'study'"),
        (
            {"type": "L1", "strength": 1e-3},
            "L1 was given the field 'strength'; expected some of its own, which are 'lam'",
        ),
        ({"type": "Zeros", "value": 1}, "which are none"),
        ({"type": "L1"}, "expected 'lam' too"),
        ({"type": "L1", "lam": -1}, "expected a finite number >= 0"),
        ({"type": "Uniform", "low": "a", "high": 1}, "which it cannot be made from"),
        ({"type": ["L1"]}, "there is no type"),
        ([{"type": "L1", "lam": 1}, {"type": "Zeros"}], "expected penalties, to be added up"),
        ([], "expected a dictionary such as"),
        (3, "expected a dictionary such as"),
    ],
)
def test_what_is_not_known_is_refused(spec: Any, message: str) -> None:
    with pytest.raises(wp.WellposedError, match=message):
        wp.from_dict(spec)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            wp.init.Scheme("mine", "us", {"weight": lambda site: wp.init.Zeros()}),
            r"Scheme.rules\['weight'\].*a function",
        ),
        (wp.init.mup(nn.Linear(3, 2)), "a function"),
        (wp.L1, "a function|no name leads"),
        (nn.Linear(3, 2), "no name leads"),
        (3, "expected an initializer"),
        ({"type": wp.L1(0.1)}, "one of them 'type'"),
    ],
)
def test_what_cannot_be_written_is_refused(value: Any, message: str) -> None:
    with pytest.raises(wp.WellposedError, match=message):
        wp.to_dict(value)


@dataclass(frozen=True, eq=False, repr=False)
class Quartic(wp.Penalty):
    """A user's own penalty."""

    lam: float
    strengths = ("lam",)

    def _value(self, w: Tensor) -> Tensor:
        return self.lam * w.pow(4).sum()


def test_a_users_own_class_is_found_by_its_name() -> None:
    written = wp.to_dict(Quartic(0.5) + wp.L1(0.1))
    assert {part["type"] for part in written["parts"]} == {"Quartic", "L1"}
    assert wp.from_dict(written) == Quartic(0.5) + wp.L1(0.1)


def test_names_that_may_be_several_classes_are_refused() -> None:
    def one() -> type[wp.Penalty]:
        class Twice(wp.Penalty):
            pass

        return Twice

    def other() -> type[wp.Penalty]:
        class Twice(wp.Penalty):
            pass

        return Twice

    kinds = one(), other()
    with pytest.raises(wp.WellposedError, match=r"may be any of .*names of their own"):
        wp.from_dict({"type": kinds[0].__name__})
