"""Tables to datasets, and datasets to splits: against numbers worked out by hand, and laws of any split."""

import datetime
import gzip
import importlib
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import wellposed as wp
from study_tools import write_table
from table_cases import BASE, CASES, WHOLE, TableCase
from wellposed.random.distributions import permutation
from wellposed.study import Settings
from wellposed.study.table.delimited import columns_of_text
from wellposed.study.table.encodings import decoded
from wellposed.study.table.loading import from_columns, load
from wellposed.study.training.columns import Column
from wellposed.study.training.dataset import Dataset
from wellposed.study.training.splits import MOST_SCORED, PARTS, split


def columns(**values: list[float]) -> list[Column]:
    return [Column(name, np.array(entries, dtype=np.float64)) for name, entries in values.items()]


def toy(rows: int) -> Dataset:
    return from_columns("toy", columns(x=[i / 2 for i in range(rows)], y=[i % 2 for i in range(rows)]), "y")


@given(rows=st.integers(30, 400), seed=st.integers(0, 2**64 - 1))
def test_parts_are_disjoint_and_cover_all_rows(rows: int, seed: int) -> None:
    parts = split(toy(rows), wp.Key(seed)).rows
    assert list(parts) == ["train", "validation", "test"]
    assert sorted(torch.cat(list(parts.values())).tolist()) == list(range(rows))
    for part, share in PARTS.items():
        assert abs(len(parts[part]) - share * rows) <= 1


def test_most_rows_of_a_large_table_are_trained_on() -> None:
    parts = split(toy(60_000), wp.Key(0))
    assert {part: len(rows) for part, rows in parts.rows.items()} == {
        "train": 40_000,
        "validation": MOST_SCORED,
        "test": MOST_SCORED,
    }
    assert sorted(torch.cat(list(parts.rows.values())).tolist()) == list(range(60_000))
    for y in parts.y.values():
        assert float(y.double().mean()) == pytest.approx(0.5, abs=0.02)


def test_split_is_a_function_of_the_key() -> None:
    data = toy(100)
    first, again, other = (split(data, wp.Key(seed)).rows["train"] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_permutation_sorts_the_words_of_the_key() -> None:
    wording = wp.random.bits((200,), wp.Key(3), call=5).numpy().astype(np.int64)
    assert permutation(200, wp.Key(3), call=5).tolist() == np.argsort(wording, kind="stable").tolist()


def test_scikit_learn_agrees_on_standardised_columns() -> None:
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    data = load("digits")
    parts = split(data, wp.Key(0))
    raw = np.stack([column.values for column in data.features], axis=1)
    scaler = preprocessing.StandardScaler().fit(raw[parts.rows["train"]])
    # A pixel that is the same in every training row tells nothing that could be learned; here it is 0 everywhere.
    telling = np.ptp(raw[parts.rows["train"]], axis=0) > 0
    assert telling.sum() > 50
    for part, rows in parts.rows.items():
        wanted = np.where(telling, scaler.transform(raw[rows]), 0)
        np.testing.assert_allclose(parts.x[part].numpy(), wanted, rtol=1e-5, atol=1e-5)


def test_rows_outside_training_change_nothing_that_is_fitted() -> None:
    data = toy(50)
    rows = split(data, wp.Key(0)).rows
    moved = [Column(c.name, c.values.copy()) for c in data.features]
    moved[0].values[rows["test"]] = 1e9
    other = Dataset("toy", data.task, data.target, data.classes, tuple(moved), data.y)
    assert torch.equal(split(data, wp.Key(0)).x["train"], split(other, wp.Key(0)).x["train"])
    assert torch.equal(split(data, wp.Key(0)).x["validation"], split(other, wp.Key(0)).x["validation"])


def test_golden_table(tmp_path: Path) -> None:
    """Types, gaps, texts, dates, a column without values, a constant one and one of names."""
    path = tmp_path / "golden.csv"
    body = "".join(
        f"{i},{'' if i == 3 else i / 2},{('red', 'blue', '')[i % 3]},2020-01-{1 + i % 28:02d},"
        f",7,name{i},{'yes' if i % 2 else 'no'}\n"
        for i in range(60)
    )
    path.write_text("n,half,colour,day,nothing,seven,who,goal\n" + body)
    data = load(path, "goal")
    assert data.task == "classification"
    assert data.classes == ("no", "yes")
    assert [c.name for c in data.features] == ["half", "colour", "day"]
    assert data.features[1].levels == ("blue", "red")
    assert np.diff(data.features[2].values[:3]).tolist() == [86400, 86400]
    notes = " ".join(data.notes)
    for part in ("1 gap in column 'half'", "20 gaps in column 'colour'", "'nothing': every row is missing"):
        assert part in notes
    assert "'seven': it is the same" in notes
    assert "'who': nearly every row" in notes
    assert "'n': it counts the rows" in notes


def test_gaps_are_filled_with_the_training_mean_and_the_commonest_text() -> None:
    numbers = np.arange(40.0)
    numbers[:8] = np.nan
    texts = np.array([-1] * 8 + [0] * 8 + [1] * 24)
    goal = np.arange(40) % 2.0
    table = [Column("x", numbers), Column("t", texts, ("rare", "common")), Column("y", goal)]
    data = from_columns("gaps", table, "y")
    parts = split(data, wp.Key(4))
    for part, rows in parts.rows.items():
        gaps = rows < 8
        assert (parts.x[part][gaps][:, 0] == 0).all()
        assert (parts.x[part][gaps][:, 1:] == torch.tensor([0.0, 1.0])).all()
    assert parts.x["train"][:, 1:].sum(1).eq(1).all()


def test_texts_that_training_never_saw_have_no_input() -> None:
    for seed in range(20):
        texts = np.array([1] + [0] * 39)
        data = from_columns("rare", [Column("t", texts, ("usual", "once")), Column("y", np.arange(40) % 2.0)], "y")
        parts = split(data, wp.Key(seed))
        for part in ("validation", "test"):
            if 0 in parts.rows[part]:
                row = parts.x[part][parts.rows[part] == 0]
                assert (row == 0).all()
                return
    pytest.fail("no split put the rare row outside training")


@pytest.mark.parametrize("huge", [1e300, 1e-300, -1e200])
def test_huge_and_tiny_values_stay_finite(huge: float) -> None:
    data = from_columns("huge", columns(x=[huge * i for i in range(40)], y=[i % 2 for i in range(40)]), "y")
    assert torch.isfinite(split(data, wp.Key(0)).x["train"]).all()


TASKS = {
    "texts": (["a", "b", "c"] * 20, "classification", ("a", "b", "c")),
    "truth values": ([True, False] * 30, "classification", ("false", "true")),
    "long whole numbers": ([10000001, 10000002] * 30, "classification", ("10000001", "10000002")),
    "few whole numbers": ([1, 2, 5] * 20, "classification", ("1", "2", "5")),
    "whole floats": ([1.0, 2.0] * 30, "classification", ("1", "2")),
    "many whole numbers": (list(range(60)), "regression", ()),
    "fractions": ([i / 7 for i in range(60)], "regression", ()),
}


@pytest.mark.parametrize("name", TASKS)
def test_the_target_tells_the_task(name: str, tmp_path: Path) -> None:
    values, task, classes = TASKS[name]
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": BASE, "y": values}), path)
    data = load(path, "y")
    assert (data.task, data.classes) == (task, classes)


def test_csv_and_parquet_of_one_table_are_one_dataset(tmp_path: Path) -> None:
    csv = write_table(tmp_path / "t.csv")
    parquet = tmp_path / "t.parquet"
    texts = pacsv.read_csv(csv)
    pq.write_table(texts.set_column(2, "town", texts["town"].dictionary_encode()), parquet)
    assert load(csv, "kind").digest == load(parquet, "kind").digest


def entries(column: Column) -> list[float | str | None]:
    """A column's entries as a case has them."""
    if column.levels is not None:
        return [column.levels[code] if code >= 0 else None for code in column.values]
    return [None if np.isnan(value) else float(value) for value in column.values]


def load_case(case: TableCase, folder: Path) -> Dataset:
    path = folder / case.file
    path.write_bytes(case.content if isinstance(case.content, bytes) else case.content.encode())
    return load(path, case.target, **case.options)


READABLE = [name for name, case in CASES.items() if not case.refused]


@pytest.mark.parametrize("name", READABLE)
def test_a_table_is_read_as_its_case_says(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    data = load_case(case, tmp_path)
    features = {column.name: column for column in data.features}
    assert ("x" in features) == (case.x is not None)
    assert case.x is None or entries(features["x"])[: len(case.x)] == pytest.approx(list(case.x))
    assert entries(features["base"])[:5] in (BASE[:5], WHOLE[:5])
    assert data.classes == case.classes
    assert len(data.notes) == len(case.notes), data.notes
    for note, told in zip(data.notes, case.notes, strict=True):
        assert told in note
        assert note.endswith(".")
        assert "\n" not in note


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.refused])
def test_a_table_is_refused_as_its_case_says(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    with pytest.raises(wp.WellposedError) as refusal:
        load_case(case, tmp_path)
    for told in case.refused:
        assert told in str(refusal.value)


@pytest.mark.parametrize("name", [name for name in READABLE if CASES[name].file != "t.csv.gz"])
def test_a_table_is_the_same_packed_or_from_standard_input(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    data = load_case(case, tmp_path)
    content = (tmp_path / case.file).read_bytes()
    packed = tmp_path / "packed.gz"
    packed.write_bytes(gzip.compress(content))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=BytesIO(content)))
    for source in (packed, "-"):
        again = load(source, case.target, **case.options)
        assert (again.digest, again.notes) == (data.digest, data.notes)


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
@pytest.mark.parametrize("name", [name for name in READABLE if CASES[name].file.endswith("csv")])
def test_a_frame_of_texts_is_read_as_the_file_is(library: str, name: str, tmp_path: Path) -> None:
    case = CASES[name]
    data = load_case(case, tmp_path)
    text, _ = decoded("t", (tmp_path / case.file).read_bytes(), case.options.get("encoding"))
    columns, file_notes = columns_of_text("t", text, case.options.get("sep"))
    texts = {title: column.to_pylist() for title, column in columns}
    frame = {"pandas": pandas.DataFrame, "polars": polars.DataFrame, "pyarrow": pa.table}[library](texts)
    again = load(frame, case.target, **{**case.options, "sep": None, "encoding": None})
    assert again.digest == data.digest
    assert [*again.notes] == [note for note in data.notes if note not in file_notes and not note.startswith("Read as")]


def test_spaces_around_names_and_texts_mean_nothing(tmp_path: Path) -> None:
    tidy, spaced = tmp_path / "tidy.csv", tmp_path / "spaced.csv"
    rows = [("a", "b", "y"), *((f"{i / 4}", f"town {i % 3}", ("yes", "no", "")[i % 3]) for i in range(60))]
    tidy.write_text("".join(f"{a},{b},{y}\n" for a, b, y in rows))
    spaced.write_text("".join(f"{a}, {b} ,{y}  \n" for a, b, y in rows))
    assert load(spaced, "y").digest == load(tidy, "y").digest


def test_times_and_durations_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    noon, day = datetime.time(12, 30), datetime.timedelta(days=1)
    pq.write_table(pa.table({"at": [noon, None] * 30, "took": [day, 2 * day] * 30, "y": [0, 1] * 30}), path)
    (took,) = load(path, "y", drop=["at"]).features
    assert took.values[:2].tolist() == [86400.0, 172800.0]
    with pytest.raises(wp.WellposedError, match="target 'at' is '45000' in every row"):
        load(path, "at")


def arrays() -> tuple[Any, Any]:
    """X and y of a table whose columns are called ``x0`` and so on."""
    return np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 3


SHAPES: dict[str, Callable[[Any, Any], tuple[Any, Any]]] = {
    "a tuple": lambda x, y: ((x, y), None),
    "two arguments": lambda x, y: (x, y),
    "a column of targets": lambda x, y: (x, y[:, None]),
    "tensors": lambda x, y: (torch.tensor(x), torch.tensor(y)),
    "lists": lambda x, y: (x.tolist(), y.tolist()),
    "pandas": lambda x, y: (pandas.DataFrame(x, columns=["x0", "x1", "x2"]), pandas.Series(y)),
    "pandas with the target inside": lambda x, y: (pandas.DataFrame(x, columns=["x0", "x1", "x2"]).assign(y=y), "y"),
    "polars": lambda x, y: (polars.DataFrame(x, schema=["x0", "x1", "x2"]), polars.Series(y)),
    "pyarrow": lambda x, y: (pa.table({"x0": x[:, 0], "x1": x[:, 1], "x2": x[:, 2], "y": y}), "y"),
    "numbers for names": lambda x, y: (pandas.DataFrame(x).assign(y=y).set_axis(["x0", "x1", "x2", 7], axis=1), 7),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_arrays_and_frames_are_one_dataset(shape: str) -> None:
    x, y = arrays()
    data = load(*SHAPES[shape](x, y))
    assert data.digest == load((x, y)).digest
    assert data.classes == ("0", "1", "2")
    assert [column.values[0] for column in data.features] == x[0].tolist()


REFUSED: dict[str, tuple[Callable[[Any, Any], tuple[Any, Any]], str]] = {
    "rows that do not fit": (lambda x, y: (x, y[:50]), "X has 60 rows and y has 50; expected one target a row"),
    "images": (lambda x, y: (x.reshape(20, 3, 3), y), r"shape \(20, 3, 3\); expected \(rows, columns\), as X.resh"),
    "many targets": (lambda x, y: (x, x), r"y was given with the shape \(60, 3\); expected \(rows,\)"),
    "no frame yet": (
        lambda x, y: (polars.DataFrame(x).lazy(), "y"),
        "given as LazyFrame; .* call .collect\\(\\) first",
    ),
    "no table": (lambda x, y: ({"a": 1}, "y"), "given as dict; expected digits, a path"),
    "names of levels": (
        lambda x, y: (pandas.DataFrame(x, columns=[("a", 1), ("a", 2), ("b", 1)]), "a"),
        "names of several levels",
    ),
    "a name twice": (
        lambda x, y: (pandas.DataFrame(x, columns=["a", "b", "a"]), "b"),
        "more than one column named 'a'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_table_is_refused(name: str) -> None:
    given, told = REFUSED[name]
    with pytest.raises(wp.WellposedError, match=told):
        load(*given(*arrays()))


def test_a_frame_of_mixed_entries_and_its_index() -> None:
    frame = pandas.DataFrame({"x": [1.5, "?", None, 2.5] * 15, "kind": pandas.Categorical([3, 1, 3, 1] * 15)})
    frame["y"], frame.index = ["a", "b"] * 30, pandas.Index(range(60), name="day")
    data = load(frame, "y")
    assert entries(data.features[0])[:4] == [1.5, None, None, 2.5]
    assert data.features[1].levels == ("1", "3")
    assert data.notes[:2] == (
        "Left out the frame's index 'day'; reset_index() makes it a column to learn from.",
        "Took '?' in column 'x' for gaps; the other 30 of 45 entries are numbers.",
    )


def test_the_study_is_called_by_the_name_of_its_package(tmp_path: Path) -> None:
    part: object = importlib.import_module("wellposed.study")
    assert part is wp.study
    path = write_table(tmp_path / "t.csv")
    few = Settings(hidden=(6,), seeds=1, steps=2, rates=(0.1,))
    found = wp.study(pandas.read_csv(path), "kind", settings=few, jobs=1, out=tmp_path / "o")
    assert found.results["data"]["digest"] == load(path, "kind").digest
    with pytest.raises(wp.WellposedError, match="--task was given 'guess'"):
        wp.study(path, "kind", task="guess")


STRANGE = {
    "bytes": ([b"a", b"b"] * 30, "binary"),
    "lists": ([[1], [2, 3]] * 30, "list<"),
    "records": ([{"a": 1}, {"a": 2}] * 30, "struct<"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_no_number_date_or_text_is_left_out_and_refused_as_a_target(name: str, tmp_path: Path) -> None:
    values, kind = STRANGE[name]
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": BASE, "odd": values, "y": [0, 1] * 30}), path)
    data = load(path, "y")
    assert [column.name for column in data.features] == ["x"]
    (note,) = data.notes
    assert note.startswith(f"Left out column 'odd': it holds {kind}")
    with pytest.raises(wp.WellposedError, match=f"target 'odd' .* holds {re.escape(kind)}.*expected numbers, dates or"):
        load(path, "odd")


def test_names_are_told_so_that_their_ends_can_be_seen() -> None:
    x, y = columns(x=[float(i) for i in range(40)], y=[i % 2 for i in range(40)])
    table = [Column("a, b", x.values), y]
    for target in (None, "z"):
        with pytest.raises(wp.WellposedError, match="'a, b', 'y'"):
            from_columns("t", table, target)


def test_rows_without_a_target_are_left_out_and_told(tmp_path: Path) -> None:
    data = from_columns("t", columns(x=[i / 2 for i in range(50)], y=[np.nan] * 5 + [i % 2 for i in range(45)]), "y")
    assert data.rows == 45
    assert "5 rows without a target" in data.notes[-1]


def test_a_regression_target_is_standardised_on_training_rows() -> None:
    data = from_columns("t", columns(x=[i / 2 for i in range(50)], y=[i**1.5 for i in range(50)]), "y")
    y = split(data, wp.Key(0)).y["train"].double()
    assert abs(float(y.mean())) < 1e-6
    assert abs(float(y.std(correction=0)) - 1) < 1e-6
