"""The command line: exit codes, one sentence an error, and data alone on standard output."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO, StringIO
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

import wellposed
from study_tools import write_table
from wellposed.cli import main
from wellposed.study import Settings
from wellposed.study import study as conduct
from wellposed.study.needs import EXTRA
from wellposed.study.results.tables import tables
from wellposed.study.terminal import Progress, show
from wellposed.study.wording import Wording

SMALL = ("--hidden", "6,6", "--seeds", "1", "--steps", "4", "--jobs", "1")


@pytest.fixture(autouse=True)
def _in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["wellposed", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert isinstance(end.value.code, int)
    return end.value.code


def table(text: str | bytes, name: str = "t.csv") -> tuple[str, ...]:
    Path(name).write_bytes(text.encode() if isinstance(text, str) else text)
    return ("study", "--data", name)


ROWS = "".join(f"{i},{i % 2},x\n" for i in range(40))
BAD: dict[str, tuple[Callable[[], tuple[str, ...]], str]] = {
    "no such command": (lambda: ("learn",), "learn"),
    "no such option": (lambda: ("study", "--nope"), "--nope"),
    "option without a value": (lambda: ("study", "--data"), "--data"),
    "seeds in words": (lambda: ("study", "--seeds", "many"), "--seeds"),
    "no seeds": (lambda: ("study", "--seeds", "0"), "--seeds was given 0"),
    "no jobs": (lambda: ("study", "--jobs", "0"), "--jobs was given 0"),
    "no steps": (lambda: ("study", "--steps", "0"), "--steps was given 0"),
    "hidden in words": (lambda: ("study", "--hidden", "wide"), "--hidden was given 'wide'"),
    "hidden empty": (lambda: ("study", "--hidden", ""), "--hidden was given ''"),
    "hidden zero": (lambda: ("study", "--hidden", "8,0"), "--hidden was given '8,0'"),
    "hidden with a hole": (lambda: ("study", "--hidden", "8,,8"), "--hidden"),
    "weights past memory": (
        lambda: ("study", "--hidden", "99999999,9999999"),
        "--hidden was given '99999999,9999999'; such a network does not fit in memory",
    ),
    "signals past memory": (lambda: ("study", "--hidden", "9" * 400), "does not fit in memory"),
    "no such file": (lambda: ("study", "--data", "none.csv", "--target", "y"), "no such file"),
    "no data": (
        lambda: ("study", "--data", ""),
        "--data was given '', but there is no such file; expected digits",
    ),
    "no such data": (lambda: ("study", "mnist"), "there is no such file; expected digits, a path to a CSV"),
    "data twice": (
        lambda: ("study", "a.csv", "y", "--data", "b.csv"),
        "the data was given twice, as 'a.csv' and as --data 'b.csv'; the form is: wellposed study DATA TARGET",
    ),
    "target twice": (lambda: ("study", "a.csv", "y", "--target", "y"), "the target was given twice"),
    "one word too many": (lambda: ("study", "a.csv", "y", "z"), "z"),
    "no such task": (
        lambda: (*table("x,y\n" + ROWS), "--task", "guess"),
        "--task was given 'guess'; expected 'classif",
    ),
    "no such decimal": (lambda: (*table("x,y\n" + ROWS), "--decimal", ";"), "--decimal was given ';'; expected '.' or"),
    "no such dates": (
        lambda: (*table("x,y\n" + ROWS), "--dates", "dmy"),
        "--dates was given 'dmy'; expected 'day-first'",
    ),
    "no such separator": (
        lambda: (*table("x,y\n" + ROWS), "--sep", ";;"),
        "--sep was given ';;'; expected one character",
    ),
    "a folder": (lambda: (*folder("d.csv"), "--data", "d.csv"), "is a folder"),
    "an empty file": (lambda: table(""), "is empty"),
    "blank lines": (lambda: table("\n\n \n"), "is empty"),
    "names alone": (lambda: (*table("a,b\n"), "--target", "b"), "no rows"),
    "ragged rows": (lambda: (*table("a,b\n1,2\n1,2,3\n"), "--target", "b"), "cannot be read as a table"),
    "binary": (lambda: (*table(bytes(range(256)) * 4), "--target", "b"), "is not UTF-8 text (byte 128 is not)"),
    "not parquet": (lambda: (*table("a,b\n1,2\n", "t.parquet"), "--target", "b"), "cannot be read as a Parquet file"),
    "cut parquet": (lambda: (*cut_parquet(), "--target", "y"), "cannot be read as a Parquet file"),
    "lists in parquet": (lambda: (*list_parquet(), "--target", "x"), "target 'x' of t.parquet holds list<"),
    "names twice": (lambda: (*table("a,a\n1,2\n"), "--target", "a"), "more than one column named 'a'"),
    "no target named": (
        lambda: table("x,y,z\n" + ROWS),
        "--target is missing; name the column to learn, one of: 'x', 'y', 'z'",
    ),
    "no such target": (lambda: (*table("x,y,z\n" + ROWS), "--target", "w"), "no column of t.csv"),
    "constant target": (lambda: (*table("x,y,z\n" + ROWS), "--target", "z"), "'x' in every row"),
    "constant number": (lambda: (*table("x,y\n" + "1,5\n2,5\n" * 20), "--target", "y"), "'5' in every row"),
    "target of names": (
        lambda: (*table("x,y\n" + "".join(f"{i},n{i}\n" for i in range(50))), "--target", "y"),
        "50 different",
    ),
    "target of gaps": (lambda: (*table("x,y\n" + "1,\n2,\n" * 30), "--target", "y"), "0 rows with a target"),
    "few rows": (lambda: (*table("x,y\n1,0\n2,1\n"), "--target", "y"), "at least 30"),
    "nothing to learn from": (lambda: (*table("x,y\n" + "1,0\n1,1\n" * 20), "--target", "y"), "no column to learn"),
    "one column": (lambda: (*table("y\n" + "0\n1\n" * 20), "--target", "y"), "no column to learn"),
    "digits with a target": (lambda: ("study", "--target", "y"), "leave --target out"),
    "out is a file": (lambda: (*table("", "f")[:1], "--out", "f"), "--out was given 'f'"),
    "out under a file": (lambda: (*table("", "f")[:1], "--out", "f/g"), "--out was given 'f/g'"),
}


def folder(name: str) -> tuple[str, ...]:
    Path(name).mkdir()
    return ("study",)


def cut_parquet() -> tuple[str, ...]:
    pq.write_table(pa.table({"x": list(range(40)), "y": [0, 1] * 20}), "t.parquet")
    return table(Path("t.parquet").read_bytes()[:-30], "t.parquet")


def list_parquet() -> tuple[str, ...]:
    pq.write_table(pa.table({"x": [[1], [2]] * 20, "y": [0, 1] * 20}), "t.parquet")
    return ("study", "--data", "t.parquet")


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_2(
    name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments, told = BAD[name]
    assert call(monkeypatch, *arguments()) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("wellposed: ")
    assert err.count("\n") == 1
    assert told in err
    assert not Path("wellposed-study", "report.html").exists()


@pytest.mark.parametrize("package", ["jinja2", "matplotlib", "sklearn.datasets", "pyarrow"])
def test_a_missing_package_is_one_sentence_and_2(
    package: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    arguments = (*table("x,y,z\n" + ROWS), "--target", "y") if package == "pyarrow" else ("study",)
    assert call(monkeypatch, *arguments) == 2
    err = capfd.readouterr().err
    assert f"needs {package.partition('.')[0]}" in err
    assert f"pip install {' '.join(EXTRA)}" in err
    assert err.count("\n") == 1


def test_a_table_is_named_by_its_place_or_by_an_option(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    given: list[tuple[object, ...]] = []

    def conduct(data: object, target: object, **_: object) -> None:
        given.append((data, target))
        raise wellposed.WellposedError("enough")

    monkeypatch.setattr("wellposed.study.study", conduct)
    for arguments in (("t.csv", "y"), ("--data", "t.csv", "--target", "y"), ("t.csv", "--target", "y"), ()):
        assert call(monkeypatch, "study", *arguments) == 2
    assert given == [("t.csv", "y")] * 3 + [("digits", None)]


def test_a_table_from_standard_input_is_read_as_the_options_say(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = "".join(f"{i};{i % 7},5;0{i % 3}/04/2020;x;{i % 2}\n" for i in range(40))
    piped = BytesIO(("a;b;c;d;y\n" + rows).encode("utf-16-le"))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=piped))
    read = ("--sep", ";", "--decimal", ",", "--encoding", "utf-16-le", "--dates", "day-first", "--task", "regression")
    chosen = ("--drop", "d", "--keep", "a", "--out", "o", "--json")
    assert call(monkeypatch, "study", "-", "y", *read, *chosen, *SMALL) == 0
    out, err = capfd.readouterr()
    data = json.loads(out)["data"]
    assert err.index("Read as utf-16-le, as --encoding says.") < err.index("Initializers")
    assert (data["name"], data["features"], data["task"]) == ("standard input", 3, "regression")


def test_json_is_alone_on_standard_output(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_table(tmp_path / "t.csv")
    assert call(monkeypatch, "study", "--data", "t.csv", "--target", "kind", *SMALL, "--out", "o", "--json") == 0
    out, err = capfd.readouterr()
    assert json.loads(out) == json.loads(Path("o/results.json").read_text())
    assert "Initializers" in err
    assert "report.html" in err


def test_a_study_prints_tables_and_findings(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_table(tmp_path / "t.csv", numbers=True)
    assert call(monkeypatch, "study", "--data", "t.csv", "--target", "kind", *SMALL) == 0
    out, _ = capfd.readouterr()
    for part in (
        "Initializers",
        "Regularizers",
        "Dropout",
        "On all training rows",
        "Findings",
        "report.html",
        "Recommended for ",
    ):
        assert part in out
    assert Path("wellposed-study/t/report.html").exists()


@pytest.mark.parametrize("width", [50, 60, 80])
def test_a_narrow_terminal_loses_no_word_and_no_number(width: int, tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv")
    settings = Settings(hidden=(6, 6), seeds=2, steps=4)
    found = conduct("t.csv", "kind", settings=settings, jobs=1, out=tmp_path / "o")
    told = StringIO()
    show(found, Console(file=told, width=width))
    text = told.getvalue()
    assert "\u2026" not in text
    assert max(map(len, text.partition("Initializers")[2].partition("Regularizers")[0].splitlines())) <= max(64, width)
    for table in tables(found.results["experiments"], Wording("accuracy")):
        for cell in (cell for row in table.rows for cell in row[table.text_columns :]):
            assert cell in text
        for word in {word for row in table.rows for cell in row[: table.text_columns] for word in cell.split()}:
            assert word in text


def test_progress_names_what_runs_and_not_what_is_over(tmp_path: Path) -> None:
    told = StringIO()
    with Progress(Console(file=told, force_terminal=True, width=120)) as progress:
        progress.bar.refresh()
        assert "reading the data" in told.getvalue()
        progress.planned(10, 10)
        told.truncate(0)
        progress.bar.refresh()
        assert "10/10" in told.getvalue()
        assert "reading the data" not in told.getvalue()


def test_progress_is_a_line_now_and_then_where_no_terminal_is() -> None:
    told = StringIO()
    with Progress(Console(file=told, width=120)) as progress:
        progress.planned(200, 20)
        for _ in range(180):
            progress.started("a")
            progress.finished("a")
    lines = told.getvalue().splitlines()
    assert lines[:2] == ["going on from 20 finished runs", "40 of 200 runs"]
    assert lines[-1] == "200 of 200 runs"
    assert len(lines) == 10


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is full, as Linux has one")
@pytest.mark.parametrize("command", [["env"], ["env", "--json"], ["-h"]])
def test_a_full_disk_is_no_fault_of_ours(command: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "wellposed", *command], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr == "wellposed: standard output cannot be written: No space left on device\n"


@pytest.mark.parametrize("json_", [True, False])
def test_env(json_: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "env", *(["--json"] if json_ else [])) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert torch.__version__ in out
    if json_:
        facts = json.loads(out)
        assert "reference" in facts["backends"]
        assert facts["threads"] == torch.get_num_threads()


@pytest.mark.parametrize("command", [(), ("study",), ("env",)])
def test_help(command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, *command, "--help") == 0
    told = capfd.readouterr()
    assert " ".join(("Usage: wellposed", *command)) in told.out
    assert told.err == ""
    assert call(monkeypatch, *command, "-h") == 0
    assert capfd.readouterr() == told


def test_help_shows_the_defaults_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    given: list[Settings] = []

    def conduct(*_: object, settings: Settings, **__: object) -> None:
        given.append(settings)
        raise wellposed.WellposedError("enough")

    monkeypatch.setattr("wellposed.study.study", conduct)
    assert call(monkeypatch, "study") == 2
    assert given == [Settings()]
    monkeypatch.setenv("COLUMNS", "200")
    capfd.readouterr()
    assert call(monkeypatch, "study", "-h") == 0
    told = capfd.readouterr().out
    for default in (",".join(map(str, Settings().hidden)), Settings().seeds, "(wellposed-study/ and the table's name)"):
        assert f"[default: {default}]" in told


def test_a_shell_completes_commands_and_options() -> None:
    for words, place, told in (("wellposed st", 1, "study"), ("wellposed study --tar", 2, "--target")):
        asked = {"_WELLPOSED_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(place)}
        command = [sys.executable, "-m", "wellposed"]
        done = subprocess.run(command, env=os.environ | asked, capture_output=True, text=True, timeout=60, check=True)
        assert (done.stdout.strip(), done.stderr) == (told, "")


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_without_the_extra_the_command_says_what_to_install_and_the_library_works(package: str) -> None:
    hidden = f"import sys; sys.modules[{package!r}] = None; "
    for line, code, told in (
        (
            "from wellposed.__main__ import main; main()",
            2,
            f"wellposed: the command line needs {package}, which is not",
        ),
        ("import wellposed as wp; [getattr(wp, name) for name in dir(wp)]", 0, ""),
    ):
        command = [sys.executable, "-c", hidden + line]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (code, "")
        assert done.stderr.startswith(told)
        assert done.stderr.count("\n") == bool(told)
        assert ("pip install typer rich" in done.stderr) == bool(told)


def test_version(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "--version") == 0
    assert capfd.readouterr() == (f"{wellposed.__version__}\n", "")


def test_no_command_is_wrong_use_and_answered_with_the_help(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "Usage: wellposed" in err
    assert "study" in err
    assert "wellposed:" not in err


def raised(error: BaseException) -> Callable[..., object]:
    def conduct(*_: object, **__: object) -> object:
        raise error

    return conduct


def test_a_fault_is_not_taken_for_findings(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("wellposed.study.study", raised(ZeroDivisionError("by nothing")))
    assert call(monkeypatch, "study", "--json") == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "ZeroDivisionError: by nothing" in err
    assert err.splitlines()[-1].startswith("wellposed: ")


def test_an_interrupt_is_one_sentence_and_130(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("wellposed.study.study", raised(KeyboardInterrupt()))
    assert call(monkeypatch, "study") == 130
    assert capfd.readouterr() == (
        "",
        "wellposed: interrupted; the same command goes on from what is finished\n",
    )


@pytest.mark.parametrize("arguments", [("env", "--json"), ("env",), ("--version",)])
def test_a_reader_that_leaves_is_no_error(arguments: tuple[str, ...]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "wellposed", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as told:
        assert told.read() == ""
    assert process.wait(60) == 0


def test_the_installed_command_and_the_module_are_one() -> None:
    script = Path(sys.executable).with_name("wellposed")
    for command in ([str(script)], [sys.executable, "-m", "wellposed"]):
        done = subprocess.run(
            [*command, "study", "--seeds", "0"], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "wellposed: --seeds was given 0; expected at least 1\n"
