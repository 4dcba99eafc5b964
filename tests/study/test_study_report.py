"""The report: one safe file that needs nothing else, whose sentences follow from its figures."""

import copy
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from study_tools import HOSTILE, SETTINGS, write_table
from wellposed.study import Study, study
from wellposed.study.report import report
from wellposed.study.results.findings import findings
from wellposed.study.results.verdict import verdict
from wellposed.study.training.run_files import SCHEMA
from wellposed.study.wording import Wording

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Reads a page; tags have to close in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if self.open:
            self.text.setdefault(self.open[-1], []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module", params=["classification", "regression"])
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("hostile")
    numbers = request.param == "regression"
    table = write_table(
        folder / f"{HOSTILE.replace('/', '')}.csv", target=HOSTILE, feature=f"{HOSTILE} $x$", numbers=numbers
    )
    with table.open("a") as file:
        file.writelines(f",,,{'0.5' if numbers else 'low'}\n" for _ in range(3))
    return study(table, HOSTILE, settings=SETTINGS, jobs=1, out=folder / "out", command=["wellposed", "study", HOSTILE])


@pytest.fixture(scope="module")
def page(done: Study) -> Page:
    return Page(done.report.read_text(encoding="utf-8"))


def test_names_are_escaped(done: Study, page: Page) -> None:
    text = done.report.read_text(encoding="utf-8")
    assert "<script" not in text.lower()
    assert "&lt;script&gt;" in text
    assert page.all("script") == []
    assert any(HOSTILE in part for part in page.text["p"])
    assert any(HOSTILE in part for part in page.text["li"])


def test_nothing_outside_is_referred_to(done: Study, page: Page) -> None:
    for _, attributes in page.tags:
        for name in ("href", "src", "xlink:href", "data", "srcset", "action"):
            assert (attributes.get(name) or "#").startswith("#")
    text = re.sub(r'xmlns(:xlink)?="[^"]*"', "", done.report.read_text(encoding="utf-8"))
    assert "http" not in text
    assert "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    assert page.all("link") == page.all("img") == page.all("iframe") == []


def test_figures_have_text_alternatives(page: Page) -> None:
    drawings = page.all("svg")
    assert len(drawings) == 19
    identities = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identities) == len(set(identities))
    for drawing in drawings:
        assert drawing["role"] == "img"
        assert all(name in identities for name in (drawing["aria-labelledby"] or "").split())
    descriptions = page.text["desc"]
    assert len(descriptions) == len(drawings)
    assert all(re.search(r"\d", description) for description in descriptions)


def test_every_reference_inside_has_its_target(page: Page) -> None:
    identities = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for _, attributes in page.tags:
        for value in attributes.values():
            for name in re.findall(r"(?:^|url\()#([^)]+)", value or ""):
                assert name in identities


def test_structure(page: Page) -> None:
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == len(page.all("main")) == 1
    assert page.all("meta")[0] == {"charset": "utf-8"}
    assert len(page.all("table")) == len(page.all("caption")) == 5
    order = [attributes.get("id") for tag, attributes in page.tags if tag == "h2"]
    assert order == ["verdict", "findings", "together", "initializers", "penalties", "dropout", "tables", "method"]


def test_light_and_dark_give_every_colour(done: Study) -> None:
    text = done.report.read_text(encoding="utf-8")
    used = set(re.findall(r"var\(--([a-z0-9]+)\)", text))
    for name in used:
        assert len(re.findall(rf"--{name}:#", text)) == 2
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert set(re.findall(r"#[0-9a-f]{6}\b", drawn)) == set()


def test_the_report_is_a_function_of_the_results(done: Study) -> None:
    kept = json.loads((done.folder / "results.json").read_text(encoding="utf-8"))
    assert report(kept) == done.report.read_text(encoding="utf-8")


def test_results_hold_what_it_takes_to_check_them(done: Study) -> None:
    kept = json.loads((done.folder / "results.json").read_text(encoding="utf-8"))
    assert kept["schema"] == SCHEMA
    assert kept["seeds"] == [0, 1]
    assert kept["command"] == f"wellposed study '{HOSTILE}'"
    assert {"wellposed", "torch", "numpy", "python"} <= set(kept["versions"])
    assert kept["data"]["notes"]
    assert [line["kind"] for line in kept["verdict"]["lines"]] == ["helped", "unclear", "hurt"]
    assert kept["recommended"]["code"] == (done.folder / "recommended.py").read_text(encoding="utf-8")
    assert set(kept["experiments"]) == {"initializers", "penalties", "dropout", "together"}
    for row in kept["experiments"]["penalties"]:
        assert (row["test"] is not None) == row["chosen"]
    rows = [row for rows in kept["experiments"].values() for row in rows]
    assert all(len(row["validation"]["values"]) == 2 for row in rows)


def level(value: Any) -> Any:
    """The same results, had every network scored alike and kept every scale."""
    if isinstance(value, dict) and set(value) == {"mean", "error", "values"}:
        return {"mean": 0.5, "error": 0.0, "values": [0.5] * len(value["values"])}
    if isinstance(value, dict):
        scales = "measured" in value
        return {name: [1.0] * len(entry) if scales else level(entry) for name, entry in value.items()}
    return [level(entry) for entry in value] if isinstance(value, list) else value


def test_without_differences_there_are_no_findings_of_any(done: Study) -> None:
    flat = copy.deepcopy(done.results)
    flat["experiments"] = level(flat["experiments"])
    for row in flat["experiments"]["penalties"]:
        row["zero"] = {"mean": 0.0, "error": 0.0, "values": [0.0, 0.0]}
    texts = [finding["text"] for finding in findings(flat)]
    flat["verdict"] = verdict(flat)
    assert {item["kind"] for item in flat["verdict"]["items"]} == {"unclear"}
    assert all(text.startswith(("Theory predicts", "The one network with its weights scaled")) for text in texts)
    assert Page(report(flat | {"findings": []}))


def test_diverged_training_is_reported_not_hidden(done: Study) -> None:
    broken = copy.deepcopy(done.results)
    none = {"mean": None, "error": None, "values": [None, None]}
    for row in broken["experiments"]["initializers"][:3]:
        row |= {"validation": none, "test": none, "signal": {"measured": [None] * 4, "predicted": [None] * 4}}
    for row in broken["experiments"]["dropout"]:
        row |= {"validation": none, "test": none, "gap": none}
    broken["verdict"] = verdict(broken)
    broken["findings"] = findings(broken)
    text = report(broken)
    assert "diverged" in text
    Page(text)


def test_one_seed_has_no_error_and_claims_no_difference(done: Study) -> None:
    single = copy.deepcopy(done.results)

    def first(value: Any) -> Any:
        if isinstance(value, dict) and set(value) == {"mean", "error", "values"}:
            return {"mean": value["values"][0], "error": None, "values": value["values"][:1]}
        if isinstance(value, dict):
            return {name: first(entry) for name, entry in value.items()}
        return [first(entry) for entry in value] if isinstance(value, list) else value

    single["experiments"], single["seeds"] = first(single["experiments"]), [0]
    for name in ("baselines", "recommended"):
        single[name] = first(single[name])
    single["verdict"], single["findings"] = verdict(single), findings(single)
    assert not any(re.search("±\u00a0\\d", line["text"]) for line in single["verdict"]["lines"])
    assert not any(re.search("±\u00a0\\d", finding["text"]) for finding in single["findings"])
    Page(report(single))


def test_what_is_trained_and_for_how_long_is_said(done: Study, page: Page) -> None:
    text = " ".join(done.report.read_text(encoding="utf-8").split())
    assert "AdamW without weight decay of its own at a learning rate of 0.001," in text
    for regime in done.results["design"]["regimes"].values():
        assert all(str(number) in page.text["td"] for number in regime.values())


def test_the_verdict_stands_first(done: Study) -> None:
    text = done.report.read_text(encoding="utf-8")
    assert text.index('id="verdict"') < text.index("<svg") < text.index('id="tables"')
    assert [item for item in done.verdict if item.split(":")[0] not in text] == []


def test_scores_of_thinned_networks_are_drawn_against_the_same_rows(done: Study) -> None:
    changed = copy.deepcopy(done.results)
    for row in changed["experiments"]["dropout"]:
        if row["ensemble"]:
            row["ensemble"]["scaled"]["test"] = {"mean": 0.123, "error": 0.0, "values": [0.123, 0.123]}
    said = Wording(changed["data"]["measure"]).score({"mean": 0.123, "error": 0.0, "values": []})
    assert f"one scaled network: {said} " in report(changed)
