"""Clients that stay: a process in the VM that does one request after the other, and so is forked once.

A fork copies an interpreter's page tables, and what the child touches after that, page by page: most of what a client
costs, under emulation more than everything else of it. A client is used again only where nothing of what it did can be
left in it: not after an error, and for the behaviours of REPEATED alone. One of root's may also end as the owner of an
attached program (harness.lab.owner).
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from harness.errors import HarnessError
from harness.kernel import cgroups, processes
from harness.lab import clients, owner
from harness.lab.clients import GRACE, Request, Seen
from harness.lab.worker import Reply, Worker

REPEATED = frozenset({"connect", "wait", "datagram", "reset", "retried", "threads"})
"""The behaviours that leave nothing in their process: they close what they open, and change neither ids nor limits."""

LAST = frozenset({"failed-then-direct"})
"""Behaviours that such a client may do, and then no more: what failed before it connected may be in its thread."""

_PACKET = 1 << 18  # bytes

Kind = tuple[int, str]
"""What a client is for good: its uid and its cgroup."""


class Standing:
    """A client that stays, from the harness's side."""

    def __init__(self, vm: Worker, kind: Kind):
        self.kind = kind
        self.pid: int
        self.pid, descriptors = vm.call_with_descriptors("stand", uid=kind[0], cgroup=kind[1])
        self._socket = socket.socket(fileno=descriptors[0])

    def send(self, *, descriptors: Sequence[int] = (), **message: Any) -> bool:
        """Whether it is there to hear it."""
        try:
            socket.send_fds(self._socket, [json.dumps(message).encode()], list(descriptors))
        except OSError:
            return False
        return True

    def receive(self, deadline: float) -> tuple[Seen, bool] | None:
        """What it says next, and whether that is its last word; None when the deadline passes.

        Raises HarnessError when it is gone.
        """
        if not select.select([self._socket], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return None
        try:
            packet = self._socket.recv(_PACKET)
        except OSError:
            packet = b""
        if not packet:
            raise HarnessError("learn what a client saw", f"process {self.pid} ended without a word")
        told = json.loads(packet)
        return Seen(**told["seen"]), told["last"]

    def waits(self) -> bool:
        """Whether it is there, and has said nothing that nobody has heard."""
        try:
            self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def close(self) -> None:
        """It ends by itself when it waits for its next request."""
        self._socket.close()


class Crew:
    """The clients that stay in one VM, in the cgroups that stay as well; those that wait, by kind."""

    def __init__(self, vm: Worker, cgroups: Collection[str]):
        self._vm = vm
        self._cgroups = cgroups
        self._waiting: dict[Kind, list[Standing]] = {}
        self._owners: list[Standing] = []

    def does(self, request: Request) -> bool:
        known = request.behaviour in REPEATED | LAST
        return known and request.cgroup in self._cgroups and "pid" not in request.options

    def client(self, request: Request) -> StandingClient:
        """Have a client do this; one that waits, else a new one."""
        return StandingClient(self, self._take((request.uid, request.cgroup), request=vars(request)), request)

    def owner(self, program: int, **wanted: Any) -> int:
        """Have one of root's clients attach a program (its descriptor) and do nothing else from then on: its pid.

        Raises HarnessError with what the kernel said.
        """
        one = self._take((0, ""), descriptors=[program], own=wanted)
        try:
            told = one.receive(time.monotonic() + GRACE + clients.PATIENCE)
        except HarnessError:
            told = None
        problem = told[0].error if told else "it ended without a word"
        if problem:
            self.end(one)
            raise HarnessError(f"attach by {wanted['way']} in a process of its own", problem)
        self._owners.append(one)
        return one.pid

    def _take(self, kind: Kind, **message: Any) -> Standing:
        waiting = self._waiting.get(kind, [])
        while waiting:
            one = waiting.pop()
            if one.send(**message):
                return one
            one.close()  # it was killed meanwhile
        one = Standing(self._vm, kind)
        if not one.send(**message):
            raise HarnessError("start a client", f"process {one.pid} is gone")
        return one

    def fill(self, counts: Mapping[Kind, int]) -> None:
        """Have so many of each kind wait; those that died meanwhile do not count."""
        for kind, count in counts.items():
            waiting = [one for one in self._waiting.get(kind, []) if one.waits()]
            waiting += [Standing(self._vm, kind) for _ in range(count - len(waiting))]
            self._waiting[kind] = waiting

    def keep(self, one: Standing) -> None:
        self._waiting.setdefault(one.kind, []).append(one)

    def end(self, one: Standing) -> None:
        """End a client, whatever it does."""
        one.close()
        self._vm.call("reap", pid=one.pid)

    def forget(self, pid: int) -> None:
        """This process is to be killed: it gets no more requests."""
        for those in (*self._waiting.values(), self._owners):
            for one in [one for one in those if one.pid == pid]:
                those.remove(one)
                one.close()

    def close(self) -> None:
        for those in (*self._waiting.values(), self._owners):
            for one in those:
                one.close()
            those.clear()


@contextmanager
def crew(vm: Worker, cgroups: Collection[str]) -> Iterator[Crew]:
    """The clients that stay, for requests that name one of these cgroups (empty: the VM worker's own)."""
    found = Crew(vm, cgroups)
    try:
        yield found
    finally:
        found.close()


class AtWork(Protocol):
    """A client that was started: harness.lab.clients.Client, or one that stays."""

    pid: int

    def seen(self) -> Seen:
        """Wait for what it saw, or for its next stage."""

    def release(self) -> None:
        """Let it go on."""

    def __enter__(self) -> AtWork: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class StandingClient:
    """A request that a client which stays is at."""

    def __init__(self, crew: Crew, one: Standing, request: Request):
        self._crew = crew
        self._one = one
        self._patience = request.patience + GRACE
        self._behaviour = request.behaviour
        self._over = False  # it waits for its next request
        self._good = False  # and nothing went wrong in this one
        self.pid = one.pid

    def seen(self) -> Seen:
        told = self._one.receive(time.monotonic() + self._patience)
        seen, last = told or (Seen(error="timeout", step="client", pid=self.pid), False)
        self._over = last
        self._good = last and not seen.error and self._behaviour not in LAST
        return seen

    def release(self) -> None:
        self._over = self._good = False
        self._one.send(release=True)

    def __enter__(self) -> StandingClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._good:
            self._crew.keep(self._one)
        elif self._over:
            self._one.close()  # it ends by itself, and nobody need wait for that
        else:
            self._crew.end(self._one)


# --- in the VM's worker -----------------------------------------------------------------------------------------


def stand(uid: int, cgroup: str) -> Reply:
    """Fork a client that stays, of this uid and in this cgroup (empty: the worker's own): its pid and its socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _be_standing(parent, theirs, uid, cgroup)
    theirs.close()
    clients.sweep()
    clients.CHILDREN.add(pid)
    return Reply(pid, [ours.detach()])


def _be_standing(parent: int, control: socket.socket, uid: int, cgroup: str) -> None:
    """The client: never returns."""

    def tell(seen: Seen, *, last: bool = True) -> None:
        told = vars(replace(seen, pid=os.getpid(), uid=os.getuid()))
        control.send(json.dumps({"seen": told, "last": last}).encode())

    def stage(seen: Seen) -> None:
        tell(seen, last=False)
        if not control.recv(_PACKET):
            os._exit(0)

    try:
        gc.disable()  # as in every client; what a request leaves in cycles is little
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        processes.die_with_parent(parent)
        if cgroup:
            cgroups.move(0, Path(cgroup))
        if uid:
            clients.become(uid)
            processes.die_with_parent(parent)
        while True:
            packet, descriptors, _, _ = socket.recv_fds(control, _PACKET, 1)
            if not packet:
                return
            told = json.loads(packet)
            try:
                if "own" in told:
                    owner.own(descriptors[0], lambda problem: tell(Seen(error=problem)), **told["own"])
                tell(clients.behave(clients.PLAIN, Request(**told["request"]), stage))
            except Exception as error:
                tell(Seen(error=f"{type(error).__name__}: {error}", step="client"))
    finally:
        os._exit(0)
