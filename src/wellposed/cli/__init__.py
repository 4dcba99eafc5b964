"""The command line: parse, call, print.

Exit codes: 0 clean, 1 findings of a check, 2 wrong use, bad input or a fault, 130 interrupted. With ``--json``
standard output holds data alone; what is meant for people goes to standard error.
"""

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from wellposed import __version__
from wellposed.cli.init_command import init
from wellposed.cli.json_option import Json, print_json
from wellposed.errors import WellposedError

WRONG_USE, INTERRUPTED = 2, 130

app = typer.Typer(
    help="Initialization, regularization and dropout for PyTorch, reproducible bit for bit.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_TOLD, _READING = "told from the table", "How a table is read"


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        with redirect_stdout(sys.stderr):  # where typer's help goes by itself
            typer.echo(context.get_help(), err=True, nl=False)
        raise typer.Exit(WRONG_USE)


@app.command()
def study(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="digits, a path to a CSV or Parquet file, or - for standard input.",
            show_default="digits",
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Argument(metavar="TARGET", help="The column to predict; required for a table.")
    ] = None,
    data_option: Annotated[str | None, typer.Option("--data", metavar="DATA", help="The same, by name.")] = None,
    target_option: Annotated[str | None, typer.Option("--target", metavar="TARGET", help="The same, by name.")] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="classification or regression.", show_default="told from the target", rich_help_panel=_READING
        ),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Leave out a column; may be repeated.", rich_help_panel=_READING),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="Learn from a column that looks like an identifier; may be repeated.",
            rich_help_panel=_READING,
        ),
    ] = None,
    sep: Annotated[
        str | None,
        typer.Option(help="Between columns: a character, tab or space.", show_default=_TOLD, rich_help_panel=_READING),
    ] = None,
    decimal: Annotated[
        str | None, typer.Option(help="Before decimals: . or ,", show_default=_TOLD, rich_help_panel=_READING)
    ] = None,
    dates: Annotated[
        str | None, typer.Option(help="day-first or month-first.", show_default=_TOLD, rich_help_panel=_READING)
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(
            help="Of a text, as latin-1.", show_default="as its mark says, or UTF-8", rich_help_panel=_READING
        ),
    ] = None,
    hidden: Annotated[str, typer.Option(help="The width of each hidden layer.")] = "128,128,128,128",
    seeds: Annotated[int, typer.Option(help="Number of seeds; each run is repeated with every one.")] = 5,
    steps: Annotated[
        int | None, typer.Option(help="Gradient steps of a run.", show_default="made from the data")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Processes that train in parallel.", show_default="one a core, at most 8")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Train on a Dask cluster instead, as tcp://host:8786.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The folder for the report, the results and finished runs.",
            show_default="wellposed-study/ and the table's name",
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Measure what initialization, regularization and dropout each do to a network, on data.

    Writes report.html and results.json. A study that was interrupted resumes from its finished runs.
    """
    from wellposed.study import Settings
    from wellposed.study import study as conduct
    from wellposed.study.terminal import Progress, show

    data, target = _once("data", data, data_option), _once("target", target, target_option)
    console = Console(stderr=json_)
    with Progress(Console(stderr=True)) as progress:
        found = conduct(
            "digits" if data is None else data,
            target,
            task=task,
            drop=drop or (),
            keep=keep or (),
            sep=sep,
            decimal=decimal,
            encoding=encoding,
            date_order=dates,
            settings=Settings(hidden=_widths(hidden), seeds=seeds, steps=steps),
            jobs=jobs,
            scheduler=scheduler,
            out=out,
            listener=progress,
            command=["wellposed", *sys.argv[1:]],
        )
    show(found, console)
    if json_:
        print_json(found.results)


app.command()(init)


@app.command()
def env(json_: Json = False) -> None:
    """Print versions, threads, devices, and the backends of the random numbers."""
    from wellposed.environment import environment

    facts = environment()
    if json_:
        print_json(facts)
        return
    width = max(map(len, facts))
    for name, fact in facts.items():
        typer.echo(f"{name:<{width}}  {', '.join(map(str, fact)) if isinstance(fact, list) else fact}")


def main() -> None:
    """Run the command line and end the process with its exit code."""
    sys.exit(_guarded(_command))


def _command() -> None:
    # Typer's own way to run a command ends it with 1 where a reader left, and with nothing said where it was stopped.
    command = typer.main.get_command(app)
    if "_WELLPOSED_COMPLETE" in os.environ:  # the shell asks what could follow
        command(prog_name="wellposed")
    with command.make_context("wellposed", sys.argv[1:]) as context:
        command.invoke(context)


def _guarded(command: Callable[[], object]) -> int:
    """Run a command; errors of use become one sentence on standard error and an exit code."""
    try:
        command()
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        return _say("interrupted; the same command goes on from what is finished", INTERRUPTED)
    except WellposedError as error:
        return _say(str(error), WRONG_USE)
    except typer.Exit as end:
        return end.exit_code
    except _WrongUse as error:
        return _say(error.format_message(), WRONG_USE)
    except OSError as error:
        if error.filename is not None:
            return _fault()
        # What cannot be written must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # there the reader left, as head does
            return _say(f"standard output cannot be written: {error.strerror}", WRONG_USE)
    except Exception:
        return _fault()
    return 0


def _fault() -> int:
    traceback.print_exc()
    return _say("this is a fault of wellposed's own; please report it with the lines above", WRONG_USE)


# Typer carries its parser inside and does not name the parser's errors; the one it does name leads to their base.
_WrongUse: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def _say(sentence: str, code: int) -> int:
    print(f"wellposed: {sentence}", file=sys.stderr)  # noqa: T201
    return code


def _once(name: str, argument: str | None, option: str | None) -> str | None:
    """What was given in its place or by its option."""
    if argument is not None and option is not None:
        raise WellposedError(
            f"the {name} was given twice, as {argument!r} and as --{name} {option!r}; the form is: "
            "wellposed study DATA TARGET"
        )
    return option if argument is None else argument


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise WellposedError(
            f"--hidden was given {text!r}; expected the width of each hidden layer, as in 256,256"
        ) from None
