"""A process that outlives a killed harness just long enough to end what lives in a cgroup of the run.

An agent dies with the harness, but what it started itself need not: nothing tells a grandchild. The warden waits for
the end of the harness, however that comes, kills every process in the cgroup, and ends.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.kernel import cgroups, processes
from harness.lab.worker import end

_ROUNDS = 100  # a process may fork while it is being killed


@contextmanager
def warden(cgroup: Path) -> Iterator[int]:
    """Have the processes in a cgroup and below end with this one; its pid. At the end of the with block they end too.

    Call it while the process has one thread: it forks.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = processes.fork_child()
    if pid == 0:
        try:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends with the harness, not before
            os.closerange(0, reading)
            os.closerange(reading + 1, 1 << 20)
            os.read(reading, 1)  # nothing is ever written: it returns when the last writer is gone
            kill_all(cgroup)
        finally:
            os._exit(0)
    os.close(reading)
    try:
        yield pid
    finally:
        kill_all(cgroup)
        os.close(writing)
        end(pid)


def kill_all(cgroup: Path) -> None:
    """SIGKILL every process in a cgroup and below, until none is there."""
    for _ in range(_ROUNDS):
        if not cgroups.kill(cgroup):
            return
        os.sched_yield()
