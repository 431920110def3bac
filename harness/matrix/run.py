"""Cells filled side by side: a process for each guest, as many at once as asked for.

The process that runs a cell ends with this one, and its QEMU with it, however either ends. A cell whose guest or
process fails is an ERROR with its cause, and the others go on.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import harness
from harness import interruption
from harness.checks.recording import Recording, now
from harness.errors import HarnessError
from harness.kernel import processes
from harness.matrix import store
from harness.matrix.model import Cell, Matrix
from harness.matrix.question import Question, Task, tasks
from harness.report import Outcome, Report, Result
from harness.report import json as report_json
from harness.vm.job import Job
from harness.vm.machine import Machine

CELL_SECONDS = 1800.0  # a guest has a limit of its own, from measured boots; this is for what hangs outside of one
_TICK = 100  # ms between two looks at the clock
_GRACE = 5.0  # seconds for a cell to end by itself once it is told to
_TOLD_LINES = 20  # of what a lost process said


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
    """Each kernel's first cell before any kernel's second: guests that run side by side are of different kernels."""
    numbers: dict[str, int] = {}
    turns = []
    for task in waiting:
        turns.append((numbers.setdefault(task.row.name, 0), task))
        numbers[task.row.name] += 1
    return [task for _, task in sorted(turns, key=lambda turn: turn[0])]


def fill(
    waiting: Sequence[Task],
    jobs: int,
    perform: Perform,
    listener: Listener,
    done: Callable[[Task, Report], None],
    limit: float = CELL_SECONDS,
) -> None:
    """Run the tasks, at most so many at once; each Report is kept and told as it comes."""
    queue, running, poll = deque(waiting), dict[int, _Running](), select.poll()
    try:
        while queue or running:
            interruption.check()
            while queue and len(running) < jobs:
                one = _start(queue.popleft(), perform)
                running[one.pidfd] = one
                poll.register(one.pidfd, select.POLLIN)
                listener.starting(one.task)
            ended = [number for number, _ in poll.poll(_TICK)]
            late = [number for number, one in running.items() if time.monotonic() - one.clock > limit]
            for number in dict.fromkeys([*ended, *late]):
                poll.unregister(number)
                one = running.pop(number)
                report = one.report() if number in ended else one.late(limit)
                store.keep(one.task.key, report)
                done(one.task, report)
            listener.tick()
    finally:
        for one in running.values():
            one.tell_to_end()
        for one in running.values():
            one.end()


@dataclass(frozen=True)
class _Running:
    """A process that fills a cell, with the files without names into which it puts its Report, and what it says."""

    task: Task
    pid: int
    pidfd: int
    output: int
    said: int
    clock: float

    def report(self) -> Report:
        """What the process that has ended found out."""
        _, status = os.waitpid(self.pid, 0)
        content, said = _content(self.output), _content(self.said)
        self._close()
        try:
            return report_json.load(content)
        except HarnessError:
            code = os.waitstatus_to_exitcode(status)
            how = f"ended with status {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
            last = said.strip().splitlines()[-_TOLD_LINES:]
            summary = f"could not find out: the process of this cell {how}" + (f": {last[-1]}" if last else "")
            return _failed(self.task, "lost", summary, {"said": last})

    def late(self, limit: float) -> Report:
        self.tell_to_end()
        self.end()
        return _failed(self.task, "time", f"could not find out: the cell was not done after {limit:g} s", {})

    def tell_to_end(self) -> None:
        signal.pidfd_send_signal(self.pidfd, signal.SIGTERM)

    def end(self) -> None:
        """Wait for its end, a while, then end it."""
        if not select.select([self.pidfd], [], [], _GRACE)[0]:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._close()

    def _close(self) -> None:
        for number in (self.pidfd, self.output, self.said):
            os.close(number)


def _start(task: Task, perform: Perform) -> _Running:
    output, said, parent = os.memfd_create("report"), os.memfd_create("said"), os.getpid()
    pid = processes.fork_child()
    if pid == 0:
        status = 1
        try:
            processes.die_with_parent(parent)
            os.dup2(said, 1)
            os.dup2(said, 2)
            interruption.install()  # SIGTERM: to undo what the guest's run made
            _write(output, report_json.dump(_performed(task, perform)))
            status = 0
        except interruption.Interrupted as interrupted:
            status = interrupted.exit_code
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(status)
    return _Running(task, pid, os.pidfd_open(pid), output, said, time.monotonic())


def _performed(task: Task, perform: Perform) -> Report:
    assert task.machine is not None
    try:
        report = perform(task.machine, task.job)
    except HarnessError as error:
        detail = error.detail.splitlines()[-_TOLD_LINES:]
        return _failed(task, "start", f"could not find out: {error}", {"said": detail}, error.remedy)
    return report if task.program.own else replace(report, program=report.program or task.program.digest)


def _write(number: int, content: str) -> None:
    with open(number, "wb", closefd=False) as file:
        file.write(content.encode())


def _content(number: int) -> str:
    with open(number, "rb", closefd=False) as file:
        file.seek(0)
        return file.read().decode("utf-8", "replace")


def _no_kernel(task: Task) -> Report:
    problem = task.problem
    assert problem is not None
    detail = {"said": problem.detail.splitlines()[-_TOLD_LINES:]} if problem.detail else {}
    return _failed(task, "kernel", f"could not find out: {problem}", detail, problem.remedy)


def _failed(
    task: Task, what: str, summary: str, observed: Mapping[str, list[str]], remedy: str | None = None
) -> Report:
    """A cell of which nothing is known, and why."""
    title = "A guest with this kernel runs the checks"
    seen = {name: lines for name, lines in observed.items() if lines}
    result = Result(f"guest.{what}", title, Outcome.ERROR, summary, observed=seen, remedy=remedy)
    report = Recording(f"{task.row.origin or task.row.name} in a guest").report([result], program=task.program.digest)
    return replace(report, kernel=task.row.release, distribution="unknown")
