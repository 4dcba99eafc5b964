"""How far a piece of work on bytes is: a progress bar in a terminal, and a line now and then elsewhere."""

from types import TracebackType

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

_LINES = 10  # of all the work, where there is no terminal to draw a bar on


class BytesBar:
    """A progress bar of bytes with the speed and the time that is left; where no terminal is, a line now and then.

    Args:
        console: Where it is drawn.
        done: What is done with the bytes, as in ``"written"``.
    """

    def __init__(self, console: Console, done: str) -> None:
        self.console, self.done = console, done
        self.bar = Progress(
            BarColumn(bar_width=28),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("", total=None)
        self.told: int | None = None

    def __enter__(self) -> "BytesBar":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """Show how many bytes are done; what was done before the first call does not count towards the speed."""
        tenth = _LINES * done // total if total else _LINES
        if self.told is None:
            self.bar.reset(self.task, total=total, completed=done)
            if 0 < done < total:
                self._say(f"going on from {decimal(done)} of {decimal(total)}")
        else:
            self.bar.update(self.task, completed=done)
            if not self.console.is_terminal and tenth > self.told:
                self._say(f"{decimal(done)} of {decimal(total)} {self.done}")
        self.told = tenth

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)
