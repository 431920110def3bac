"""Cells filled side by side, as many guests at once as asked for; one that fails is an ERROR with its cause."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import harness
from harness.checks.recording import Recording, now
from harness.checks.side_by_side import TOLD_LINES, Work, side_by_side
from harness.errors import HarnessError
from harness.matrix import store
from harness.matrix.model import Cell, Matrix
from harness.matrix.question import Question, Task, tasks
from harness.report import Outcome, Report, Result
from harness.vm import limits
from harness.vm.job import Job
from harness.vm.machine import Machine

CELL_SECONDS = 1800.0  # a guest has a limit of its own, from measured boots; this is for what hangs outside of one


class Listener(Protocol):
    """Who hears how it goes."""

    def getting(self, spec: str) -> None:
        """A kernel is being got: fetched, unpacked or built where it is not in the cache."""

    def begin(self, tasks: Sequence[Task]) -> None: ...

    def starting(self, task: Task) -> None: ...

    def finished(self, task: Task, cell: Cell) -> None: ...

    def tick(self) -> None:
        """Some time went by."""


Perform = Callable[[Machine, Job], Report]


def measure(question: Question, jobs: int, listener: Listener, *, reuse: bool = True) -> Matrix:
    """Fill the matrix that a question asks for. Raises HarnessError where no guest can be run at all."""
    started, clock = now(), time.monotonic()
    found = tasks(question, listener.getting)
    listener.begin(found)
    cells: dict[tuple[str, str], Cell] = {}

    def done(task: Task, report: Report, reused: bool = False) -> None:
        cell = Cell(task.row.name, task.program.name, task.key, report, reused)
        cells[cell.row, cell.program] = cell
        listener.finished(task, cell)

    waiting = []
    for task in found:
        kept = store.find(task.key) if reuse else None
        if task.machine is None:
            done(task, _no_kernel(task))
        elif kept is not None:
            done(task, kept, reused=True)
        else:
            waiting.append(task)
    if waiting:
        fill(in_turn(waiting), jobs, perform(), listener, done)
        store.prune()
    order = [(task.row.name, task.program.name) for task in found]
    return Matrix(
        rows=list(dict.fromkeys(task.row for task in found)),
        programs=question.columns(),
        checks=list(question.checks),
        cells=[cells[place] for place in order],
        harness_version=harness.__version__,
        started=started,
        ended=now(),
        seconds=round(time.monotonic() - clock, 6),
    )


def perform() -> Perform:
    """How a cell is filled. The modules are there before anything forks. Raises HarnessError without QEMU."""
    from harness.vm import qemu
    from harness.vm.run import run

    qemu.binary()
    return run


def in_turn(waiting: Sequence[Task]) -> list[Task]:
    """Each kernel's first cell before any kernel's second: guests that run side by side are of different kernels.

    The kernels that take longest to boot begin, so that in the end no processor waits for one of them.
    """
    numbers: dict[str, int] = {}
    turns = []
    for task in waiting:
        slowness = limits.quickest(task.machine) if task.machine else 0
        turns.append((numbers.setdefault(task.row.name, 0), -slowness, task))
        numbers[task.row.name] += 1
    return [task for *_, task in sorted(turns, key=lambda turn: turn[:2])]


def fill(
    waiting: Sequence[Task],
    jobs: int,
    perform: Perform,
    listener: Listener,
    done: Callable[[Task, Report], None],
    limit: float = CELL_SECONDS,
) -> None:
    """Run the tasks, at most so many at once; each Report is kept and told as it comes."""

    def keep(task: Task, report: Report) -> None:
        store.keep(task.key, report)
        done(task, report)

    work = Work(
        make=lambda task: _performed(task, perform),
        failed=_lost,
        limit=limit,
        starting=listener.starting,
        tick=listener.tick,
    )
    side_by_side(waiting, jobs, work, keep)


def _performed(task: Task, perform: Perform) -> Report:
    assert task.machine is not None
    try:
        report = perform(task.machine, task.job)
    except HarnessError as error:
        detail = error.detail.splitlines()[-TOLD_LINES:]
        return _failed(task, "start", f"could not find out: {error}", {"said": detail}, error.remedy)
    return report if task.program.own else replace(report, program=report.program or task.program.digest)


def _lost(task: Task, what: str, how: str, said: Sequence[str]) -> Report:
    who = "the cell" if what == "time" else "the process of this cell"
    return _failed(task, what, f"could not find out: {who} {how}", {"said": said})


def _no_kernel(task: Task) -> Report:
    problem = task.problem
    assert problem is not None
    detail = {"said": problem.detail.splitlines()[-TOLD_LINES:]} if problem.detail else {}
    return _failed(task, "kernel", f"could not find out: {problem}", detail, problem.remedy)


def _failed(
    task: Task, what: str, summary: str, observed: Mapping[str, Sequence[str]], remedy: str | None = None
) -> Report:
    """A cell of which nothing is known, and why."""
    title = "A guest with this kernel runs the checks"
    seen = {name: lines for name, lines in observed.items() if lines}
    result = Result(f"guest.{what}", title, Outcome.ERROR, summary, observed=seen, remedy=remedy)
    report = Recording(f"{task.row.origin or task.row.name} in a guest").report([result], program=task.program.digest)
    return replace(report, kernel=task.row.release, distribution="unknown")
