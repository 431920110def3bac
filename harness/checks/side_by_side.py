"""Reports made side by side: a process for each, as many at once as asked for.

Each process ends with this one, and what it started with it, however either ends. One that fails or hangs is a Report
too, and the others go on.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from harness import interruption
from harness.errors import HarnessError
from harness.kernel import processes
from harness.report import Report
from harness.report import json as report_json

_TICK = 100  # ms between two looks at the clock
_GRACE = 5.0  # seconds for a process to end by itself once it is told to
TOLD_LINES = 20  # of what a lost process said

Task = TypeVar("Task")


@dataclass(frozen=True)
class Work(Generic[Task]):
    """What is to be done with each task, and who hears of it.

    make runs in the task's own process. failed makes the Report of one that gave none: what ("lost", "time"), a
    clause that says why, and the last lines that it printed. limit: seconds that a task may take.
    """

    make: Callable[[Task], Report]
    failed: Callable[[Task, str, str, Sequence[str]], Report]
    limit: float
    starting: Callable[[Task], None] = lambda task: None
    tick: Callable[[], None] = lambda: None


def side_by_side(tasks: Sequence[Task], jobs: int, work: Work[Task], done: Callable[[Task, Report], None]) -> None:
    """Do the tasks, at most so many at once; done is told each Report as it comes."""
    queue, running, poll = deque(tasks), dict[int, _Running[Task]](), select.poll()
    try:
        while queue or running:
            interruption.check()
            while queue and len(running) < jobs:
                one = _start(queue.popleft(), work)
                running[one.pidfd] = one
                poll.register(one.pidfd, select.POLLIN)
                work.starting(one.task)
            ended = [number for number, _ in poll.poll(_TICK)]
            late = [number for number, one in running.items() if time.monotonic() - one.clock > work.limit]
            for number in dict.fromkeys([*ended, *late]):
                poll.unregister(number)
                one = running.pop(number)
                done(one.task, one.report() if number in ended else one.late())
            work.tick()
    finally:
        for one in running.values():
            one.tell_to_end()
        for one in running.values():
            one.end()


@dataclass(frozen=True)
class _Running(Generic[Task]):
    """A process at work, with the files without names into which it puts its Report, and what it says."""

    task: Task
    work: Work[Task]
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
            last = said.strip().splitlines()[-TOLD_LINES:]
            return self.work.failed(self.task, "lost", how + (f": {last[-1]}" if last else ""), last)

    def late(self) -> Report:
        self.tell_to_end()
        self.end()
        return self.work.failed(self.task, "time", f"was not done after {self.work.limit:g} s", [])

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


def _start(task: Task, work: Work[Task]) -> _Running[Task]:
    output, said, parent = os.memfd_create("report"), os.memfd_create("said"), os.getpid()
    pid = processes.fork_child()
    if pid == 0:
        status = 1
        try:
            processes.die_with_parent(parent)
            os.dup2(said, 1)
            os.dup2(said, 2)
            interruption.install()  # SIGTERM: to undo what the task made
            _write(output, report_json.dump(work.make(task)))
            status = 0
        except interruption.Interrupted as interrupted:
            status = interrupted.exit_code
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(status)
    return _Running(task, work, pid, os.pidfd_open(pid), output, said, time.monotonic())


def _write(number: int, content: str) -> None:
    with open(number, "wb", closefd=False) as file:
        file.write(content.encode())


def _content(number: int) -> str:
    with open(number, "rb", closefd=False) as file:
        file.seek(0)
        return file.read().decode("utf-8", "replace")
