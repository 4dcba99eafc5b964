"""The study in a terminal: a progress bar, tables and findings."""

import textwrap
from types import TracebackType

from rich import box
from rich.console import Console, ConsoleOptions
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table as RichTable
from rich.text import Text

from wellposed.study.conduct import Study
from wellposed.study.results.tables import ResultTable, tables
from wellposed.study.wording import Wording, count

_LINES = 10  # of a whole study, where there is no terminal to draw a bar on


class Progress:
    """A progress bar with what is running and the time that is left; where no terminal is, a line now and then.

    Args:
        console: Where it is drawn.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar = Bar(
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("runs"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            # Names of methods only, yet brackets in them would be read as markup.
            TextColumn("{task.description}", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("reading the data", total=None)
        self.kept: int | None = None

    def __enter__(self) -> "Progress":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def planned(self, total: int, kept: int) -> None:
        """Set the total; runs that were kept from before do not count towards the estimate of the time that is left."""
        if self.kept is None:
            self.kept = kept
            self.bar.reset(self.task, total=total, completed=kept, description="")
            if kept:
                self._say(f"going on from {count(kept, 'finished run')}")
        else:
            self.bar.update(self.task, total=total, completed=kept)

    def started(self, label: str) -> None:
        """Show the label of what is running."""
        self.bar.update(self.task, description=label)

    def finished(self, label: str) -> None:
        """Advance the bar by one run."""
        self.bar.advance(self.task)
        done, total = (int(number or 0) for number in (self.bar.tasks[0].completed, self.bar.tasks[0].total))
        if not self.console.is_terminal and total and _LINES * done // total > _LINES * (done - 1) // total:
            self._say(f"{done} of {total} runs")

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)


def show(study: Study, console: Console) -> None:
    """Print a study's verdict, the notes on its data, its tables, its findings, and where its report is.

    Args:
        study: The study.
        console: Where to.
    """
    wording = Wording(study.results["data"]["measure"])
    verdict = study.results["verdict"]
    for text in (*study.verdict, *verdict["beside"]):
        console.print(Text(text), highlight=False)
    console.print()
    if notes := study.results["data"]["notes"]:
        console.print(Text("Data", "bold"))
        for note in notes:
            console.print(Text(f"• {note}"), highlight=False)
        console.print()
    for table in tables(study.results["experiments"], wording):
        columns = [list(column) for column in zip(table.head, *table.rows, strict=True)]
        grid = _grid(table, [[_heading(column[0]), *column[1:]] for column in columns])
        if console.measure(grid, options=_endless(console)).maximum > console.width:
            grid = _grid(table, [_narrow(column) for column in columns], gap=0)
        # Where even that has no room, a terminal breaks the lines; nothing is cut.
        grid.width = console.measure(grid, options=_endless(console)).maximum
        console.print(grid, soft_wrap=True)
        if not grid.show_edge:
            console.print()
    console.print(Text("Findings", "bold"))
    for finding in study.findings or ["The seeds cannot tell any difference from chance."]:
        console.print(Text(f"• {finding}"), highlight=False)
    console.print()
    console.print(Text(f"Bold rows are what validation chose. Report: {study.report}"), highlight=False, soft_wrap=True)
    console.print(Text(f"The recommended network and its code: {study.recommended}"), highlight=False, soft_wrap=True)


def _grid(table: ResultTable, columns: list[list[str]], gap: int = 1) -> RichTable:
    grid = RichTable(title=Text(table.title, "bold"), title_justify="left", box=box.SIMPLE_HEAD)
    grid.pad_edge, grid.padding, grid.show_edge = False, (0, gap, 0, 0), gap > 0
    for place, (heading, *_) in enumerate(columns):
        grid.add_column(Text(heading), justify="left" if place < table.text_columns else "right", no_wrap=True)
    for place, row in enumerate(zip(*(cells for _, *cells in columns), strict=True)):
        grid.add_row(*map(Text, row), style="bold" if place in table.chosen else None)
    return grid


def _endless(console: Console) -> ConsoleOptions:
    return console.options.update(width=10_000)


def _heading(name: str) -> str:
    if ", " not in name:
        return "\n".join(name.rsplit(" ", 1))
    return name.replace(", ", ",\n").replace(" / ", " /\n")


def _narrow(column: list[str]) -> list[str]:
    """A column as narrow as it gets without a word or a number being broken; its heading needs no commas then."""
    column = [column[0].replace(",", ""), *column[1:]]
    width = max(len(word) for text in column for word in text.split(" "))
    return [textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False) for text in column]
