"""What is seen while a matrix is filled: on a terminal, on one without Unicode, and at the end of a pipe."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from harness.matrix.model import Cell, Program
from harness.matrix.question import Task
from harness.matrix.table import LiveTable
from harness.report.console import console
from harness.vm.job import Job
from tests.unit.matrix.made import PANIC, PASSED, REFUSED, report, row


def task(kernel: str, program: str) -> Task:
    return Task(row(kernel), Program(program), None, Job(("verify",)), "key")


TASKS = [task(kernel, program) for kernel in ("5.10 bullseye", "6.1 bookworm") for program in ("plain", "a\x1b[31m.o")]


def cell(task: Task, results: tuple[object, ...], *, reused: bool = False) -> Cell:
    return Cell(task.row.name, task.program.name, "key", report(results), reused)  # type: ignore[arg-type]


def terminal(encoding: str = "utf-8") -> tuple[Console, io.BytesIO]:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="strict", write_through=True)
    return Console(file=stream, force_terminal=True, width=100, color_system=None, legacy_windows=False), raw


@pytest.mark.parametrize(("encoding", "marks"), [("utf-8", "✓✗!·"), ("ascii", "+x!.")])
def test_a_table_on_a_terminal(encoding: str, marks: str) -> None:
    screen, raw = terminal(encoding)
    with LiveTable(screen) as table:
        table.getting("bullseye")
        table.begin(TASKS)
        table.starting(TASKS[0])
        table.tick()
        table.finished(TASKS[0], cell(TASKS[0], PASSED))
        table.finished(TASKS[1], cell(TASKS[1], REFUSED))
        table.finished(TASKS[2], cell(TASKS[2], PANIC))
        screen.print(table.table())
    text = raw.getvalue().decode(encoding)
    assert "getting the kernel bullseye" in text
    last = text[text.rindex("kernel ") :]
    assert f"{marks[0]} holds" in last
    assert f"{marks[1]} refused" in last
    assert f"{marks[2]} no answer" in last
    assert marks[3] in last  # the one that waits
    assert "a\\x1b[31m.o" in last
    assert "\x1b[31m" not in text


def test_lines_at_the_end_of_a_pipe() -> None:
    stream = io.StringIO()
    with LiveTable(console(stream)) as table:
        table.getting("bullseye")
        table.begin(TASKS)
        table.starting(TASKS[0])
        table.tick()
        table.finished(TASKS[0], cell(TASKS[0], PASSED, reused=True))
        table.finished(TASKS[1], cell(TASKS[1], REFUSED))
    assert stream.getvalue().splitlines() == [
        "kernel bullseye …",
        "[1/4] PASS  bullseye × plain: holds (kept)",
        "[2/4] FAIL  bullseye × a\\x1b[31m.o: refused: load.connect4: the verifier refused it: unknown func (<1 ms)",
    ]
