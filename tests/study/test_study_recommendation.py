"""The code that a study recommends: run in a process of its own, it predicts what the study's network does."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from study_tools import HOSTILE, write_table
from wellposed.study.methods import PENALTIES, STARTS
from wellposed.study.recommendation import recommend
from wellposed.study.table.loading import load
from wellposed.study.training.dataset import Dataset
from wellposed.study.training.train import TrainingRun, train

RUN = TrainingRun(seed=0, hidden=(12, 10), steps=24)
PREDICT = """
import json, sys
from recommended import predict, train, network
import torch
rows = json.loads(sys.argv[1])
print(json.dumps([predict(row) for row in rows]))
x = torch.randn(40, network()[0].in_features)
y = torch.randn(40) if {regression} else torch.randint(0, network()[-1].out_features, (40,))
assert train(x, y, x, y)(x).isfinite().all()
"""


def fresh(folder: Path, rows: list[dict[str, Any]], *, regression: bool) -> list[Any]:
    """What the code predicts, run beside the network that it loads; it also trains one."""
    command = [sys.executable, "-W", "error", "-c", PREDICT.format(regression=regression), json.dumps(rows)]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    answer: list[Any] = json.loads(ended.stdout)
    return answer


def written(run: TrainingRun, data: Dataset, folder: Path) -> None:
    network, code = recommend(run, data)
    (folder / "network.safetensors").write_bytes(network)
    (folder / "recommended.py").write_text(code, encoding="utf-8")
    compile(code, "recommended.py", "exec")


def table_rows(data: Dataset, indices: list[int]) -> list[dict[str, Any]]:
    """Rows of the table as a person writes them; a gap is left out or empty."""
    return [
        {
            column.name: column.said(column.values[i]) if column.levels else float(column.values[i])
            for column in data.features
            if not column.missing[i]
        }
        for i in indices
    ]


RUNS = {
    "a start alone": replace(RUN, start="lecun"),
    "PyTorch's default with dropout": replace(RUN, start="torch", p=0.2),
    "a penalty and dropout": replace(RUN, start="he_chapter", penalty="l1_proximal", strength=1e-3, p=0.1),
    "decay": replace(RUN, start="glorot", penalty="l2", strength=5.0),
}


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("numbers", [False, True])
def test_a_fresh_process_predicts_what_the_study_scored(name: str, numbers: bool, tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv", feature=HOSTILE, numbers=numbers)
    with path.open("a") as file:
        file.writelines(f",,,{'0.5' if numbers else 'low'}\n" for _ in range(3))
    data = replace(load(path, "kind"), target='who"""\\')
    written(RUNS[name], data, tmp_path)
    trained = train(RUNS[name], data)
    rows = trained.parts.rows["test"].tolist()[:8]
    found = fresh(tmp_path, table_rows(data, rows), regression=numbers)
    with torch.no_grad():
        outputs = trained.network(trained.parts.x["test"][:8])
    if numbers:
        mean, deviation = trained.parts.center
        assert found == pytest.approx((outputs.squeeze(1).double() * deviation + mean).tolist(), rel=1e-5)
    else:
        assert [kind for kind, _ in found] == [data.classes[i] for i in outputs.argmax(1)]
        for (_, shares), wanted in zip(found, outputs.softmax(1).tolist(), strict=True):
            assert list(shares) == list(data.classes)
            assert list(shares.values()) == pytest.approx(wanted, rel=1e-5)


AS_TEXT = {
    "truth": ("true", "False", True, " TRUE ", False, 1, 0),
    "day": ("2020-12-31", "2021-01-01 00:00:00", "2021-06-30T12:30", "2021-01-01T01:00+01:00"),
    "hour": ("08:30", "23:59:30"),
}
VALUES = {
    "truth": (1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0),
    "day": (1609372800.0, 1609459200.0, 1625056200.0, 1609459200.0),
    "hour": (30600.0, 86370.0),
}


def test_truth_values_and_dates_are_predicted_from_as_they_are_written(tmp_path: Path) -> None:
    lines = [f"{i % 2 == 0},2020-{1 + i % 12:02d}-11,{i % 24:02d}:30,{i % 3}" for i in range(60)]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["truth,day,hour,y", *lines]) + "\n")
    data = load(path, "y")
    written(RUN, data, tmp_path)
    pairs = [(name, *pair) for name in AS_TEXT for pair in zip(AS_TEXT[name], VALUES[name], strict=True)]
    as_text, as_number = (fresh(tmp_path, [{pair[0]: pair[i]} for pair in pairs], regression=False) for i in (1, 2))
    assert as_text == as_number
    assert len({str(told) for told in as_text}) > 5
    with pytest.raises(AssertionError, match="'day' is 'soon'; expected a number, true or false, or a date as 2020"):
        fresh(tmp_path, [{"day": "soon"}], regression=False)


def test_uneven_classes_are_predicted_as_they_are_scored(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv", rows=200)
    lines = path.read_text().splitlines()
    rare = [line for line in lines[1:] if line.endswith("high")][:6]
    path.write_text("\n".join([lines[0], *(line for line in lines[1:] if not line.endswith("high")), *rare]) + "\n")
    data = load(path, "kind")
    written(RUN, data, tmp_path)
    trained = train(RUN, data)
    shares = torch.bincount(trained.parts.y["train"], minlength=3).clamp(min=0.5).log()
    with torch.no_grad():
        told = (trained.network(trained.parts.x["test"]) - shares).argmax(1)
    rows = table_rows(data, trained.parts.rows["test"].tolist())
    assert [kind for kind, _ in fresh(tmp_path, rows, regression=False)] == [data.classes[i] for i in told]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_the_code_names_what_was_trained(start: str, penalty: str, tmp_path: Path) -> None:
    data = load(write_table(tmp_path / "t.csv"), "kind")
    strength = 0.0123 if penalty != "none" else 0.0
    _, code = recommend(replace(RUN, start=start, penalty=penalty, strength=strength, p=0.35, steps=2), data)
    compile(code, "recommended.py", "exec")
    assert ("wp.initialize(" in code) == (start != "torch")
    assert ("wp.regularize(" in code) == (penalty != "none")
    assert "wp.Dropout(0.35)" in code
    if penalty != "none":
        assert "0.0123" in code
        assert f"mode='{PENALTIES[penalty].mode}'" in code
