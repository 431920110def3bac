"""Clients in the VM: each a process of its own, with its own cgroup and uid, that connects and tells what it saw.

The VM's worker forks them, so that a client costs a fork and no interpreter. A client writes what it saw as JSON
into a pipe whose other end goes to the harness.
"""

from __future__ import annotations

import errno
import gc
import http.client
import json
import os
import resource
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from harness.errors import HarnessError, errno_name
from harness.kernel import cgroups, processes
from harness.lab.patience import SLOWNESS
from harness.lab.worker import Reply, Worker, end
from harness.msp.endpoints import Endpoint

NONCE_HEADER = "x-msp-harness-nonce"
PATIENCE = 2.0 * SLOWNESS  # seconds that a client gives its connect and its answer
NOBODY = 65534
GRACE = 1.0 * SLOWNESS  # seconds beyond its own patience until a client is given up

PATHS = {
    "imds": "/metadata/instance?api-version=2021-02-01",
    "wireserver": "/?comp=versions",
    "hostgaplugin": "/versions",
}
"""A request that each service answers with 200 to any client."""


@dataclass(frozen=True)
class Request:
    """What a client is to do. cgroup is a path, empty for the covered one; source_port 0 lets the kernel choose."""

    address: str
    port: int
    path: str = "/"
    behaviour: str = "connect"
    uid: int = 0
    cgroup: str = ""
    source_port: int = 0
    patience: float = PATIENCE
    options: Mapping[str, Any] = field(default_factory=dict)  # what a behaviour needs besides

    @classmethod
    def to(cls, endpoint: Endpoint, **changes: Any) -> Request:
        """The request that asks this endpoint for what any client may have."""
        return replace(cls(endpoint.address, endpoint.port, PATHS[endpoint.name]), **changes)


@dataclass(frozen=True)
class Seen:
    """What a client saw. error is an errno's name, `timeout`, or empty; status is 0 where there was no answer."""

    error: str = ""
    step: str = ""  # what the error stopped: connect, answer, or a behaviour's own step
    peer: str = ""  # getpeername(), address:port
    source_port: int = 0
    status: int = 0
    nonce: str = ""  # what only the proxy adds
    body: str = ""  # its beginning
    pid: int = 0
    uid: int = 0
    unavailable: str = ""  # why this behaviour cannot be had here
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def answered(self) -> bool:
        return self.status != 0


Stage = Callable[[Seen], None]
"""Tells the harness what was seen so far and waits until the harness lets the client go on."""

Behaviour = Callable[[Request, Stage], Seen]


class Unavailable(Exception):
    """A behaviour that this machine cannot show, with the reason."""


def tcp_socket(request: Request, family: int = socket.AF_INET, protocol: int = 0) -> socket.socket:
    """A TCP socket with the request's patience and source port."""
    client = socket.socket(family, socket.SOCK_STREAM, protocol)
    client.settimeout(request.patience)
    if request.source_port:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind(("", request.source_port))
    return client


def connect(request: Request, stage: Stage) -> Seen:
    """The plain client: a blocking connect, then a request."""
    with tcp_socket(request) as client:
        client.connect((request.address, request.port))
        return exchange(client, request)


def wait(request: Request, stage: Stage) -> Seen:
    """The plain client, that tells its pid and waits before it connects."""
    stage(Seen())
    return connect(request, stage)


def datagram(request: Request, stage: Stage) -> Seen:
    """A UDP client that connects its socket and sends; no answer is waited for."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((request.address, request.port))
        client.send(b"msp-harness")
        peer, local = client.getpeername(), client.getsockname()
        return Seen(peer=f"{peer[0]}:{peer[1]}", source_port=local[1])


def reset(request: Request, stage: Stage) -> Seen:
    """The plain client, whose connection is reset at the end: its source port is free at once."""
    with tcp_socket(request) as client:
        client.connect((request.address, request.port))
        seen = exchange(client, request)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return seen


def failed_then_direct(request: Request, stage: Stage) -> Seen:
    """One socket: its connect to the endpoint fails; then it connects to options['then'] = [address, port]."""
    with tcp_socket(request) as client:
        try:
            client.connect((request.address, request.port))
            return Seen(error="none: it was connected", step="first connect")
        except OSError as error:
            first = error_name(error)
        client.connect(tuple(request.options["then"]))
        return replace(exchange(client, request), notes={"first": first})


def retried(request: Request, stage: Stage) -> Seen:
    """A non-blocking connect that is called again until the socket is connected."""
    with tcp_socket(request) as client:
        client.setblocking(False)
        answers = []
        deadline = time.monotonic() + request.patience
        while time.monotonic() < deadline:
            number = client.connect_ex((request.address, request.port))
            answers.append(errno_name(number) if number else "connected")
            if number in (0, errno.EISCONN):
                break
            select.select([], [client], [], 0.05)
        return replace(exchange(client, request), notes={"answers": answers})


def threads(request: Request, stage: Stage) -> Seen:
    """Two threads of one process that connect at once, one to each of options['to'] = [[address, port, path], …]."""
    start = threading.Barrier(len(request.options["to"]))
    seen: dict[int, Seen] = {}

    def one(index: int, address: str, port: int, path: str) -> None:
        wanted = replace(request, address=address, port=port, path=path)
        try:
            start.wait(request.patience)
            seen[index] = connect(wanted, stage)
        except (OSError, threading.BrokenBarrierError) as error:
            seen[index] = Seen(error=error_name(error), step="connect")

    both = [threading.Thread(target=one, args=(index, *to)) for index, to in enumerate(request.options["to"])]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(2 * request.patience)
    return Seen(notes={"each": [asdict(seen[index]) for index in sorted(seen)]})


def many(request: Request, stage: Stage) -> Seen:
    """Connections that are all open at once, in batches, to a listener of the client's own.

    First stage: the listener's port, to be put into the policy. Then a stage after each options['batch'] connects,
    with all their source ports, up to options['count'].
    """
    count, batch = request.options["count"], request.options["batch"]
    needed = 2 * count + 64
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, max(needed, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stage(Seen(source_port=listener.getsockname()[1]))
        kept: list[socket.socket] = []
        ports: list[int] = []
        while len(ports) < count:
            for _ in range(min(batch, count - len(ports))):
                client = tcp_socket(request)
                client.connect((request.address, request.port))
                accepted, (_, port) = listener.accept()
                ports.append(port)
                kept += [client, accepted]
            stage(Seen(notes={"ports": ports[-batch:]}))
        return Seen(notes={"done": len(ports)})


PLAIN: Mapping[str, Behaviour] = {
    "connect": connect,
    "wait": wait,
    "datagram": datagram,
    "reset": reset,
    "failed-then-direct": failed_then_direct,
    "retried": retried,
    "threads": threads,
    "many": many,
}
"""What the checks need; the census has many more."""


def exchange(client: socket.socket, request: Request) -> Seen:
    """Over a connected socket: ask, and tell who answered."""
    return await_answer(client, request, question(request))


def question(request: Request) -> bytes:
    """The HTTP request's bytes."""
    host = request.address if request.port == 80 else f"{request.address}:{request.port}"
    lines = [f"GET {request.path} HTTP/1.1", f"Host: {host}", "Metadata: true", "x-ms-version: 2012-11-30"]
    return "\r\n".join([*lines, "", ""]).encode()


def await_answer(client: socket.socket, request: Request, unsent: bytes = b"") -> Seen:
    """Over a connected socket: send what was not sent yet, and tell who answered."""
    local, remote = client.getsockname(), client.getpeername()
    seen = Seen(peer=f"{remote[0].removeprefix('::ffff:')}:{remote[1]}", source_port=local[1])
    client.settimeout(request.patience)
    try:
        client.sendall(unsent)
        return replace(seen, **answer(client))
    except (OSError, http.client.HTTPException) as error:
        return replace(seen, error=error_name(error), step="answer")


def answer(client: socket.socket) -> dict[str, Any]:
    """Read one HTTP response; the members of Seen that it fills."""
    response = http.client.HTTPResponse(client)
    response.begin()
    body = response.read(4096).decode("utf-8", "replace")
    return {"status": response.status, "nonce": response.getheader(NONCE_HEADER, ""), "body": body[:200]}


def error_name(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, OSError) and error.errno:
        return errno_name(error.errno)
    return type(error).__name__


def warm_up() -> None:
    """Read one answer, so that what Python imports on the way is there before clients are forked."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        answer(ours)


# --- in the VM's worker -----------------------------------------------------------------------------------------


def spawn(behaviours: Mapping[str, Behaviour], request: dict[str, Any]) -> Reply:
    """Fork a client; its pid, and two descriptors: where it writes what it saw, and its gate between stages.

    The option `pid` gives it the pid of a process that is gone.
    """
    wanted = Request(**request)
    parent = os.getpid()
    output, entry = os.pipe()
    gate, release = os.pipe()
    pid = processes.fork(wanted.options["pid"]) if "pid" in wanted.options else os.fork()
    if pid == 0:
        os.close(output)
        os.close(release)
        _be_client(parent, wanted, behaviours, entry, gate)
    os.close(entry)
    os.close(gate)
    sweep()
    CHILDREN.add(pid)
    return Reply(pid, [output, release])


CHILDREN: set[int] = set()
"""Children of the VM's worker that were not waited for: as long as they are here, no other process has their pid."""


def sweep() -> None:
    """Wait for the children that have ended by themselves."""
    for pid in list(CHILDREN):
        if os.waitpid(pid, os.WNOHANG)[0]:
            CHILDREN.discard(pid)


def reap(pid: int) -> None:
    """End a child and wait for it; one that has been waited for is left alone."""
    if pid in CHILDREN:
        end(pid)
        CHILDREN.discard(pid)


def _be_client(parent: int, request: Request, behaviours: Mapping[str, Behaviour], entry: int, gate: int) -> None:
    """The client: never returns."""

    def tell(seen: Seen) -> None:
        told = vars(replace(seen, pid=os.getpid(), uid=os.getuid()))
        os.write(entry, json.dumps(told).encode() + b"\n")

    def stage(seen: Seen) -> None:
        tell(seen)
        if not os.read(gate, 1):
            os._exit(0)

    try:
        gc.disable()  # a collection would touch, and so copy, every page that is shared with the parent
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        processes.die_with_parent(parent)
        if request.cgroup:
            cgroups.move(0, Path(request.cgroup))
        if request.uid:
            become(request.uid)
            processes.die_with_parent(parent)
        tell(behave(behaviours, request, stage))
    except BaseException as error:
        tell(Seen(error=f"{type(error).__name__}: {error}", step="client"))
    finally:
        os._exit(0)


def become(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def behave(behaviours: Mapping[str, Behaviour], request: Request, stage: Stage) -> Seen:
    """Run a behaviour; an error on the way is part of what it saw."""
    try:
        return behaviours[request.behaviour](request, stage)
    except Unavailable as reason:
        return Seen(unavailable=str(reason))
    except OSError as error:
        return Seen(error=error_name(error), step="connect")


# --- in the harness ---------------------------------------------------------------------------------------------


class Client:
    """A client that was started. seen() waits for what it saw, or for its next stage; release() lets it go on."""

    def __init__(self, vm: Worker, request: Request):
        self._vm = vm
        self._patience = request.patience + GRACE
        self._read = bytearray()
        self._done = False  # told all that it has to tell, and so ends by itself
        self.pid, descriptors = vm.call_with_descriptors("spawn", request=vars(request))
        self._output, self._gate = descriptors

    def seen(self) -> Seen:
        """What the client saw; an error `timeout` in step `client` when it did not tell in time."""
        deadline = time.monotonic() + self._patience
        while b"\n" not in self._read:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not select.select([self._output], [], [], remaining)[0]:
                return Seen(error="timeout", step="client", pid=self.pid)
            piece = os.read(self._output, 65536)
            if not piece:
                raise HarnessError("learn what a client saw", f"process {self.pid} ended without a word")
            self._read += piece
        line, _, rest = self._read.partition(b"\n")
        self._read = rest
        self._done = True
        return Seen(**json.loads(line))

    def release(self) -> None:
        self._done = False
        os.write(self._gate, b"\n")

    def close(self) -> None:
        os.close(self._output)
        os.close(self._gate)
        if not self._done:
            self._vm.call("reap", pid=self.pid)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def ask(vm: Worker, request: Request) -> Seen:
    """Start a client, and give what it saw."""
    with Client(vm, request) as client:
        return client.seen()
