"""What a person sees while a matrix is filled: a live table on a terminal, a line for each cell elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from harness.matrix.abilities import word
from harness.matrix.model import Cell
from harness.matrix.question import Task
from harness.report import Outcome
from harness.report.console import ASCII_MARKS, MARKS, STYLES
from harness.report.text import duration, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

_SPINNER, _ASCII_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "|/-\\"

Place = tuple[str, str]


class LiveTable:
    """A Listener of harness.matrix.run, and a context manager: what it painted stays when it ends.

    It is painted when something happens and at each tick, never by a thread of its own: cells are processes that are
    forked, which threads make unsafe.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._animated = console.is_terminal and not console.is_dumb_terminal
        self._live: Live | None = None
        self._tasks: dict[Place, Task] = {}
        self._running: dict[Place, float] = {}
        self._cells: dict[Place, Cell] = {}
        self._seconds: dict[Place, float] = {}
        self._getting = ""
        self._frame = 0

    def __enter__(self) -> LiveTable:
        if self._animated:
            from rich.live import Live

            self._live = Live(console=self._console, auto_refresh=False, transient=False, redirect_stderr=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._paint()
            self._live.stop()

    def getting(self, spec: str) -> None:
        self._getting = spec
        if self._live is None:
            self._console.print(self._shown(f"kernel {spec} …"), soft_wrap=True)
        self._paint()

    def begin(self, tasks: Sequence[Task]) -> None:
        self._getting = ""
        self._tasks = {_place(task): task for task in tasks}
        self._paint()

    def starting(self, task: Task) -> None:
        self._running[_place(task)] = time.monotonic()
        self._paint()

    def finished(self, task: Task, cell: Cell) -> None:
        place = _place(task)
        self._seconds[place] = time.monotonic() - self._running.pop(place, time.monotonic())
        self._cells[place] = cell
        if self._live is None:
            self._tell(task, cell)
        self._paint()

    def tick(self) -> None:
        self._frame += 1
        self._paint()

    def _paint(self) -> None:
        if self._live is not None:
            self._live.update(self.table(), refresh=True)

    def _tell(self, task: Task, cell: Cell) -> None:
        how = "kept" if cell.reused else duration(self._seconds[_place(task)])
        done = f"[{len(self._cells)}/{len(self._tasks)}]"
        text = f"{done} {cell.outcome:5} {task.row.name} × {task.program.name}: {self._said(cell)} ({how})"
        self._console.print(visible(text, self._console.encoding), soft_wrap=True)

    def _said(self, cell: Cell) -> str:
        """A word, and for what is wrong the sentence that says most."""
        worst = next((one for one in cell.report.results if one.outcome is cell.outcome), None)
        if cell.outcome in (Outcome.FAIL, Outcome.ERROR) and worst is not None:
            return f"{word(cell.report)}: {worst.id}: {worst.summary}"
        return word(cell.report)

    def table(self) -> Table | Text:
        """As it stands."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        if not self._tasks:
            return Text(f"{self._spinner()} getting the kernel {self._shown(self._getting)}" if self._getting else "")
        ascii_only = self._console.options.ascii_only
        table = Table(box=box.ASCII if ascii_only else box.SIMPLE_HEAD, pad_edge=False)
        programs = dict.fromkeys(program for _, program in self._tasks)
        table.add_column("kernel", overflow="fold")
        for program in programs:
            table.add_column(self._shown(program), overflow="fold")
        for row in dict.fromkeys(row for row, _ in self._tasks):
            release = next(task.row.release for place, task in self._tasks.items() if place[0] == row)
            name = Text(self._shown(row)).append(f"  {self._shown(release)}", "dim")
            table.add_row(name, *(self._cell((row, program)) for program in programs))
        return table

    def _cell(self, place: Place) -> Text:
        from rich.text import Text

        cell = self._cells.get(place)
        if cell is None:
            begun = self._running.get(place)
            if begun is None:
                return Text("·" if not self._console.options.ascii_only else ".", "dim")
            return Text(f"{self._spinner()} {time.monotonic() - begun:.0f} s", "cyan")
        marks = ASCII_MARKS if self._console.options.ascii_only else MARKS
        text = Text().append(f"{marks[cell.outcome]} {word(cell.report)}", STYLES[cell.outcome])
        return text.append("  kept" if cell.reused else f"  {duration(self._seconds[place])}", "dim")

    def _spinner(self) -> str:
        frames = _ASCII_SPINNER if self._console.options.ascii_only else _SPINNER
        return frames[self._frame % len(frames)]

    def _shown(self, text: str) -> str:
        return visible(text, self._console.encoding)


def _place(task: Task) -> Place:
    return task.row.name, task.program.name
