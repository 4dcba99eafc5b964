"""How plans and reports show themselves."""

import json
from html.parser import HTMLParser
from typing import Any

import pytest
from torch import nn

import wellposed as wp
from wellposed.tabular import Table, folded


def test_repeated_blocks_are_folded_and_measured_numbers_become_ranges() -> None:
    rows = [(f"blocks.{i}.{name}", "4", str(i)) for i in range(12) for name in ("w", "b")] + [("head.w", "5", "7")]
    assert folded(rows, measured=[2]) == [
        ["blocks.0-11.w", "4", "0 to 11"],
        ["blocks.0-11.b", "4", "0 to 11"],
        ("head.w", "5", "7"),
    ]
    odd = [row if row[0] != "blocks.3.w" else ("blocks.3.w", "9", "3") for row in rows]
    assert [row[0] for row in folded(odd, measured=[2])][:2] == ["blocks.0-2,4-11.w", "blocks.0-11.b"]
    assert folded(rows)[0] == rows[0], "numbers that differ keep rows apart where they were not measured"


def test_both_numbers_of_nested_blocks_are_folded() -> None:
    rows = [(f"stages.{i}.blocks.{j}.w", "4") for i in range(3) for j in range(5)]
    assert folded(rows) == [["stages.0-2.blocks.0-4.w", "4"]]


@pytest.mark.parametrize("width", [30, 60, 100])
def test_a_table_fits_its_width_and_loses_nothing(width: int) -> None:
    words = ["because", "the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog"]
    table = Table("title", ("name", "why"), [("a.long.path.to.some.weight", " ".join(words)), ("b", "no")])
    lines = table.text(width).splitlines()
    assert max(map(len, lines)) <= width
    assert [word for word in "".join(f"{line} " for line in lines).split() if word in words] == words
    assert "a.long.path.to.some.weight" in "".join(line.split("  ")[0].strip() for line in lines)


def test_a_word_of_the_header_is_not_broken() -> None:
    table = Table("t", ("initializer", "", "why"), [("VarianceScaling(scale=2.0)", "1", "a reason " * 9)] * 2)
    assert table.text(22).splitlines()[1].split() == ["initializer", "why"]


def test_columns_without_text_are_left_out() -> None:
    assert Table("t", ("a", "b", "c"), [("1", "", "2")]).text(0) == "t\na  c\n1  2"
    assert Table("t", ("a", "b"), []).text(0) == "t\na  b"


def deep(width: int = 8, layers: int = 60) -> nn.Module:
    return nn.Sequential(*(layer for _ in range(layers) for layer in (nn.Linear(width, width), nn.ReLU())))


def test_a_long_plan_is_short_to_read_and_whole_as_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    plan = wp.initialize(deep())
    assert len(str(plan).splitlines()) < 12
    assert max(map(len, str(plan).splitlines())) <= 100
    assert len(json.loads(json.dumps(plan.to_dict()))["rows"]) == len(plan) == 120


class Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] in ("td", "th"):
            self.cells.append(data)


def test_a_table_in_a_notebook_is_well_formed_and_escaped() -> None:
    parser = Cells()
    parser.feed(Table("<t>", ("a", "b"), [("<script>", "x & y")], ["note <"]).html())
    assert parser.open == []
    assert parser.cells == ["a", "b", "<script>", "x & y"]
    parser.feed(wp.plan_initialize(deep(layers=2))._repr_html_())
    assert parser.open == []
