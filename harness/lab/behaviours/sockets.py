"""Behaviours of one socket: how it is made, what is set on it, and how it is connected."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import socket
import struct

from harness.errors import errno_name
from harness.lab import clients, topology
from harness.lab.behaviours.common import noted, owned, place, reach, several, stopped, towards, wanting
from harness.lab.clients import Request, Seen, Stage, Unavailable, tcp_socket
from harness.msp.endpoints import WIRESERVER

IPPROTO_MPTCP = 262  # include/uapi/linux/in.h
TCP_FASTOPEN_CONNECT = 30  # include/uapi/linux/tcp.h
SO_MARK = 36  # include/uapi/asm-generic/socket.h
MARK = 0x4D5350

_libc = ctypes.CDLL(None, use_errno=True)


def nonblocking(request: Request, stage: Stage) -> Seen:
    """connect() gives EINPROGRESS, poll() says when it is done, SO_ERROR how it went."""
    with tcp_socket(request) as client:
        client.setblocking(False)
        first = client.connect_ex(place(request))
        if first not in (0, errno.EINPROGRESS):
            return stopped(client, OSError(first, os.strerror(first)))
        poll = select.poll()
        poll.register(client, select.POLLOUT)
        if not poll.poll(request.patience * 1000):
            return stopped(client, TimeoutError())
        second = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if second:
            return stopped(client, OSError(second, os.strerror(second)))
        return noted(clients.exchange(client, request), answers=[_name(first), "poll", _name(second)])


def retried(request: Request, stage: Stage) -> Seen:
    """A non-blocking connect() that is called again and again until it says EISCONN."""
    with tcp_socket(request) as client:
        client.setblocking(False)
        answers: list[str] = []
        while not answers or answers[-1] != "EISCONN":
            number = client.connect_ex(place(request))
            if number not in (0, errno.EINPROGRESS, errno.EALREADY, errno.EISCONN):
                return noted(stopped(client, OSError(number, os.strerror(number))), answers=answers)
            if _name(number) not in answers[-1:]:
                answers.append(_name(number))
            if (
                number in (errno.EINPROGRESS, errno.EALREADY)
                and not select.select([], [client], [], request.patience)[1]
            ):
                return noted(stopped(client, TimeoutError()), answers=answers)
        return noted(clients.exchange(client, request), answers=answers)


def _name(number: int) -> str:
    return errno_name(number) if number else "0"


def bound_address(request: Request, stage: Stage) -> Seen:
    """bind() to the VM's own address first, as a client with a source address configured does."""
    with tcp_socket(request) as client:
        client.bind((topology.VM_ADDRESS, 0))
        return reach(client, request)


def bound_device(request: Request, stage: Stage) -> Seen:
    """SO_BINDTODEVICE eth0: what VRFs, DHCP clients and `curl --interface eth0` do."""
    with tcp_socket(request) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, topology.VM_DEVICE.encode() + b"\0")
        return reach(client, request)


def marked(request: Request, stage: Stage) -> Seen:
    with tcp_socket(request) as client:
        client.setsockopt(socket.SOL_SOCKET, SO_MARK, MARK)
        return reach(client, request)


def mptcp(request: Request, stage: Stage) -> Seen:
    try:
        client = tcp_socket(request, protocol=IPPROTO_MPTCP)
    except OSError as error:
        raise Unavailable(
            f"socket(IPPROTO_MPTCP): {errno_name(error.errno or 0)}: this kernel offers no MPTCP"
        ) from error
    with client:
        return reach(client, request)


def fastopen(request: Request, stage: Stage) -> Seen:
    """sendto() with MSG_FASTOPEN, or sendmsg() where the options say so: no connect() call at all."""
    http_get = clients.question(request)
    with tcp_socket(request) as client:
        _block_in_kernel(client, request.patience)
        try:
            if request.options.get("call") == "sendmsg":
                client.sendmsg([http_get], [], socket.MSG_FASTOPEN, place(request))
            else:
                client.sendto(http_get, socket.MSG_FASTOPEN, place(request))
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EPERM):
                raise Unavailable(f"MSG_FASTOPEN: {errno_name(error.errno)}: net.ipv4.tcp_fastopen is off") from error
            return stopped(client, error)
        return clients.await_answer(client, request)


def _block_in_kernel(client: socket.socket, seconds: float) -> None:
    """A timeout kept by the kernel: Python's own makes the socket non-blocking, and then the call is another one."""
    client.settimeout(None)
    limit = struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def fastopen_connect(request: Request, stage: Stage) -> Seen:
    """TCP_FASTOPEN_CONNECT: connect() as ever, but with a known cookie the SYN leaves with the first write."""
    with tcp_socket(request) as client:
        try:
            client.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        except OSError as error:
            raise Unavailable(f"TCP_FASTOPEN_CONNECT: {errno_name(error.errno or 0)}") from error
        return reach(client, request)


def mapped(request: Request, stage: Stage) -> Seen:
    """An AF_INET6 socket to ::ffff:a.b.c.d: what a dual-stack client makes of an IPv4 address."""
    try:
        client = tcp_socket(request, socket.AF_INET6)
    except OSError as error:
        raise Unavailable(f"socket(AF_INET6): {errno_name(error.errno or 0)}: this machine has no IPv6") from error
    with client:
        try:
            client.connect((f"::ffff:{request.address}", request.port))
        except OSError as error:
            return stopped(client, error)
        return clients.exchange(client, request)


def reconnected(request: Request, stage: Stage) -> Seen:
    """Connect to an unrelated address, dissolve that by AF_UNSPEC, and connect the same socket to the endpoint."""
    with tcp_socket(request) as client:
        client.connect((topology.OTHER_ADDRESS, 80))
        _dissolve(client)
        return reach(client, request)


def reconnected_elsewhere(request: Request, stage: Stage) -> Seen:
    """Connect to one endpoint, dissolve that by AF_UNSPEC, and connect the same socket to another one."""
    other = towards(request, WIRESERVER)
    with tcp_socket(request) as client:
        first = reach(client, request)
        _dissolve(client)
        second = reach(client, other)
        return several(owned(wanting(first, request)), owned(wanting(second, other)))


def _dissolve(client: socket.socket) -> None:
    """connect() with AF_UNSPEC."""
    nowhere = struct.pack("=H14x", socket.AF_UNSPEC)
    if _libc.connect(client.fileno(), nowhere, len(nowhere)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def one_port(request: Request, stage: Stage) -> Seen:
    """SO_REUSEPORT: two sockets with the same source address and port, connected to two endpoints at once."""
    other = towards(request, WIRESERVER)
    with _shared(request, "") as first, _shared(request, "") as second:
        seen = reach(first, request)
        return several(owned(wanting(seen, request)), owned(wanting(reach(second, other), other)))


def one_port_two_addresses(request: Request, stage: Stage) -> Seen:
    """The same source port at two source addresses, connected to two endpoints before the proxy accepts either.

    A stage comes before the two connects and one after them, so that the proxy can be held still in between.
    """
    other = towards(request, WIRESERVER)
    with _shared(request, topology.VM_ADDRESS) as first, _shared(request, "") as second:
        stage(Seen(step="bound"))
        outcomes: list[Seen | None] = []
        for client, wanted in ((first, request), (second, other)):
            try:
                client.connect(place(wanted))
                outcomes.append(None)
            except OSError as error:
                outcomes.append(stopped(client, error))
        stage(Seen(step="connected"))
        return several(
            *(
                owned(wanting(failed or clients.exchange(client, wanted), wanted))
                for client, wanted, failed in zip((first, second), (request, other), outcomes, strict=True)
            )
        )


def _shared(request: Request, address: str) -> socket.socket:
    client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    client.settimeout(request.patience)
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        client.setsockopt(socket.SOL_SOCKET, option, 1)
    client.bind((address, request.source_port))
    return client
