"""What a connect() costs: clients that time batches of connects to a listener of their own, taking turns.

Each client is a process in a place of its own (a network namespace, a cgroup) and both ends of its connections: it
connects, accepts, resets. Only connect() is timed. What is compared takes turns, a batch each, so that whatever else
the machine does meanwhile falls on all alike.
"""

from __future__ import annotations

import os
import socket
import statistics
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from harness.kernel import cgroups, processes
from harness.kernel.processes import Namespace
from harness.lab.lab import Lab
from harness.lab.redirection import Redirection
from harness.lab.worker import Handler, Worker
from harness.msp.endpoints import IMDS

PORT = 3099  # the listener of a client whose connects are redirected to it
BATCH = 250
_ARRIVES = 2.0  # seconds until a connect that has not come to the listener went elsewhere
_RESET = struct.pack("ii", 1, 0)  # struct linger: no TIME_WAIT

Measure = Callable[[], float]
"""Times a batch and gives the mean seconds of one connect()."""


def handlers(place: Callable[[], None], port: int) -> Mapping[str, Handler]:
    """A client's calls, once it is in its place: `ready`, `listen` on its own loopback, `batch` of connects."""
    place()
    listener: list[socket.socket] = []

    def listen() -> None:
        listener.append(socket.create_server(("127.0.0.1", port), backlog=64))
        listener[0].settimeout(_ARRIVES)

    def batch(address: str, port: int, count: int = BATCH) -> float:
        total = 0.0
        for _ in range(count):
            with socket.socket() as client:
                began = time.perf_counter()
                client.connect((address, port))
                total += time.perf_counter() - began
                accepted = listener[0].accept()[0]
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            accepted.close()
        return total / count

    return {"ready": lambda: os.getpid(), "listen": listen, "batch": batch}


def in_vm(lab: Lab, group: Path) -> Callable[[], None]:
    """The place in a lab's VM, in one of its cgroups."""

    def go() -> None:
        cgroups.move(0, group)
        processes.enter(lab.vm.pid, Namespace.NETWORK)

    return go


def client(lab: Lab, group: Path, port: int = PORT) -> AbstractContextManager[Worker]:
    """A client in a lab's VM. It forks: while the process has one thread."""
    return Worker("client that is timed", lambda: handlers(in_vm(lab, group), port))


def take_turns(kinds: Mapping[str, Measure], rounds: int) -> dict[str, list[float]]:
    """Seconds a connect() by kind, one for each round, alternating; a round before that warms everything up."""
    for measure in kinds.values():
        measure()
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind, measure in kinds.items():
            times[kind].append(measure())
    return times


def to_itself(redirection: Redirection) -> None:
    """Send IMDS to the timed client's own listener, in place of the proxy."""
    redirection.set_policy(IMDS, ("127.0.0.1", PORT))


def redirected(worker: Worker, count: int = BATCH) -> Measure:
    return lambda: float(worker.call("batch", address=IMDS.address, port=IMDS.port, count=count))


def direct(worker: Worker, port: int = PORT, count: int = BATCH) -> Measure:
    return lambda: float(worker.call("batch", address="127.0.0.1", port=port, count=count))


def microseconds(sample: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of a sample of seconds, in microseconds."""
    low, median, high = statistics.quantiles(sample, n=4)
    return {"low": round(low * 1e6, 2), "median": round(median * 1e6, 2), "high": round(high * 1e6, 2)}
