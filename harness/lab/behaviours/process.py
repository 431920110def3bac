"""Behaviours of processes: who makes a socket, who connects it, and where they are meanwhile."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from harness.errors import HarnessError, errno_name
from harness.kernel import cgroups, processes
from harness.kernel.processes import Namespace
from harness.lab import clients, topology
from harness.lab.behaviours.common import (
    http_request,
    in_child,
    noted,
    owned,
    parse_answer,
    reach,
    several,
    towards,
    wanting,
)
from harness.lab.clients import NOBODY, Request, Seen, Stage, Unavailable, tcp_socket
from harness.msp.endpoints import IMDS, WIRESERVER


def threads(request: Request, stage: Stage) -> Seen:
    """Two threads that connect to two endpoints in the same moment."""
    wishes = [towards(request, IMDS), towards(request, WIRESERVER)]
    barrier = threading.Barrier(len(wishes))
    seen: dict[int, Seen] = {}

    def run(index: int, wish: Request) -> None:
        with tcp_socket(wish) as client:
            barrier.wait(request.patience)
            seen[index] = owned(wanting(reach(client, wish), wish))

    workers = [threading.Thread(target=run, args=(index, wish)) for index, wish in enumerate(wishes)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return several(*(seen[index] for index in range(len(wishes))))


def forked(request: Request, stage: Stage) -> Seen:
    """The parent makes the socket, the child connects it."""
    with tcp_socket(request) as client:
        return several(in_child(lambda: reach(client, request)))


_SCRIPT = """
import json, socket, sys
address, port, get = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3])
with socket.create_connection((address, port), float(sys.argv[4])) as client:
    peer, here = client.getpeername(), client.getsockname()
    client.sendall(get)
    answer = b"".join(iter(lambda: client.recv(65536), b""))
print(json.dumps([f"{peer[0]}:{peer[1]}", here[1], answer.decode("latin-1")]))
"""


def executed(request: Request, stage: Stage) -> Seen:
    """A child that is another program: vfork() and exec()."""
    arguments = [
        request.address,
        str(request.port),
        http_request(request, request.address).hex(),
        str(request.patience),
    ]
    command = [sys.executable, "-I", "-S", "-c", _SCRIPT, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        output, errors = child.communicate(timeout=request.patience)
    if child.returncode:
        last = errors.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return several(Seen(error=_errno_in(last), step="connect", pid=child.pid, uid=os.getuid()))
    peer, port, answer = json.loads(output)
    members = parse_answer(answer.encode("latin-1"))
    return several(Seen(peer=peer, source_port=port, pid=child.pid, uid=os.getuid(), **members))


def _errno_in(line: str) -> str:
    """`ECONNREFUSED` from Python's `ConnectionRefusedError: [Errno 111] …`; else the line."""
    number = line.partition("[Errno ")[2].partition("]")[0]
    return errno_name(int(number)) if number.isdigit() else line


def setuid_after_socket(request: Request, stage: Stage) -> Seen:
    """root makes the socket, then becomes nobody, then connects: the connect's uid is what counts."""
    with tcp_socket(request) as client:
        clients.become(NOBODY)
        return reach(client, request)


def moved(request: Request, stage: Stage) -> Seen:
    """The process moves to another cgroup (option `to`) between socket() and connect()."""
    with tcp_socket(request) as client:
        cgroups.move(0, Path(request.options["to"]))
        return reach(client, request)


def passed(request: Request, stage: Stage) -> Seen:
    """A socket that goes to another process by SCM_RIGHTS and is connected there.

    The receiver is of the uid in option `uid`, and first moves to the cgroup in option `to` where there is one.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)

    def receive() -> Seen:
        ours.close()
        if "to" in request.options:
            cgroups.move(0, Path(request.options["to"]))
        if "uid" in request.options:
            clients.become(request.options["uid"])
        theirs.settimeout(request.patience)
        _, descriptors, _, _ = socket.recv_fds(theirs, 1, 1)
        with socket.socket(fileno=descriptors[0]) as client:
            client.settimeout(request.patience)
            return reach(client, request)

    def fork_then_send() -> int:
        pid = os.fork()
        if pid:
            with tcp_socket(request) as client:  # made after the fork: the child has it by SCM_RIGHTS only
                socket.send_fds(ours, [b"x"], [client.fileno()])
        return pid

    with ours, theirs:
        return several(in_child(receive, fork_then_send))


def cgroup_namespace(request: Request, stage: Stage) -> Seen:
    _unshare(Namespace.CGROUP)
    with tcp_socket(request) as client:
        return reach(client, request)


def host_network(request: Request, stage: Stage) -> Seen:
    """A container with host networking: every namespace its own but the network's."""
    _unshare(Namespace.MOUNT | Namespace.CGROUP | Namespace.PID)

    def run() -> Seen:
        with tcp_socket(request) as client:
            return reach(client, request)

    return several(in_child(run, parent=0))


def contained_agent(request: Request, stage: Stage) -> Seen:
    """An agent in a pid namespace of its own: one process that connects twice.

    The stages come before its connects; notes of the first say which pid it sees itself, and which one the host sees.
    """
    _unshare(Namespace.PID)
    go, gate = os.pipe()
    output, entry = os.pipe()
    pid = os.fork()
    if pid == 0:
        processes.die_with_parent(0)  # the parent has no pid in this namespace
        os.write(entry, f"{os.getpid()}\n".encode())
        while os.read(go, 1):
            with tcp_socket(request) as client:
                os.write(entry, f"{json.dumps(asdict(_tried(client, request)))}\n".encode())
        os._exit(0)
    with os.fdopen(output) as told:
        stage(Seen(step="forked", notes={"own": int(told.readline()), "host": pid}))
        os.write(gate, b"1")
        stage(Seen(**json.loads(told.readline())))
        os.write(gate, b"1")
        seen = Seen(**json.loads(told.readline()))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return seen


def _tried(client: socket.socket, request: Request) -> Seen:
    try:
        return reach(client, request)
    except OSError as error:
        return Seen(error=errno_name(error.errno or 0), step="connect")


def network_namespace(request: Request, stage: Stage) -> Seen:
    """A container with a network namespace and a way out, as Docker's bridge gives it.

    The stage is for the VM to make that way. The first connection, to an address that no policy names, shows it.
    """
    _unshare(Namespace.NETWORK)
    stage(Seen(step="unshared"))
    topology.build_container()
    other = Request(topology.OTHER_ADDRESS, 80, patience=request.patience)
    with tcp_socket(other) as client:
        control = noted(wanting(reach(client, other), other), control="bypasses")
    with tcp_socket(request) as client:
        return several(owned(wanting(reach(client, request), request)), owned(control))


def _unshare(kinds: Namespace) -> None:
    try:
        processes.unshare(kinds)
    except HarnessError as error:
        raise Unavailable(str(error)) from error


def opened_before_attach(request: Request, stage: Stage) -> Seen:
    """Connect, wait for the attach, then use the old connection; and a new one, which shows that the attach works."""
    with tcp_socket(request) as client:
        client.connect((request.address, request.port))
        stage(Seen(step="connected"))
        old = clients.exchange(client, request)
    with tcp_socket(request) as client:
        return several(owned(old), owned(noted(reach(client, request), control="redirected")))


def reused_pid(request: Request, stage: Stage) -> Seen:
    """A child that is skipped ends, and another process gets its pid.

    The first stage is for the harness to skip the child, the second to take that back: a third process with the same
    pid is the control.
    """
    pid = os.fork()
    if pid == 0:
        processes.die_with_parent(os.getppid())
        signal.pause()
    stage(Seen(step="forked", notes={"child": pid}))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

    def run() -> Seen:
        with tcp_socket(request) as client:
            return reach(client, request)

    bypass = in_child(run, _fork_as(pid))
    stage(Seen(step="reused"))
    return several(bypass, noted(in_child(run, _fork_as(pid)), control="redirected"))


def _fork_as(pid: int) -> Callable[[], int]:
    """fork() with a chosen pid, where the kernel lets us choose one."""

    def fork() -> int:
        try:
            return processes.fork(pid)
        except HarnessError as error:
            raise Unavailable(str(error)) from error

    return fork
