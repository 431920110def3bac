"""Clients that write bytes of their own choosing: for what a well-behaved client never sends.

Options of a Request's behaviours are JSON, so bytes travel as latin-1 text.
"""

from __future__ import annotations

import select
import socket
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harness.lab.clients import Behaviour, Request, Seen, Stage, error_name, tcp_socket

_KEPT = 16 * 1024  # bytes of an answer


def raw(request: Request, stage: Stage) -> Seen:
    """Connect, send options['send'], and tell the first line of what comes back, which may be nothing."""
    with tcp_socket(request) as client:
        client.connect((request.address, request.port))
        return _answered(client, request, _begun(client))


def held(request: Request, stage: Stage) -> Seen:
    """options['count'] connections that each send options['send'] and stay open until the stage is over."""
    kept: list[socket.socket] = []
    try:
        for _ in range(request.options["count"]):
            client = tcp_socket(request)
            kept.append(client)
            client.connect((request.address, request.port))
            client.sendall(request.options["send"].encode("latin-1"))
        stage(Seen(notes={"open": len(kept)}))
        return Seen(notes={"open": len(kept)})
    finally:
        for client in kept:
            client.close()


def crowd(request: Request, stage: Stage) -> Seen:
    """options['count'] connections, all open before the first of them asks; notes: how often each status came."""
    kept = [tcp_socket(request) for _ in range(request.options["count"])]
    found: Counter[str] = Counter()
    try:
        for client in kept:
            client.connect((request.address, request.port))
        for client in kept:
            client.sendall(request.options["send"].encode("latin-1"))
        for client in kept:
            found[_status_word(client, request.patience)] += 1
    finally:
        for client in kept:
            client.close()
    return Seen(notes={"statuses": dict(found)})


def _status_word(client: socket.socket, patience: float) -> str:
    """The status of the answer, or how the connection ended."""
    try:
        read = _read(client, time.monotonic() + patience)
    except OSError as error:
        return error_name(error)
    return str(_status(read)) if read else "closed"


def _begun(client: socket.socket) -> Seen:
    local, remote = client.getsockname(), client.getpeername()
    return Seen(peer=f"{remote[0]}:{remote[1]}", source_port=local[1])


def _answered(client: socket.socket, request: Request, seen: Seen) -> Seen:
    try:
        client.sendall(request.options["send"].encode("latin-1"))
        if request.options.get("shut"):
            client.shutdown(socket.SHUT_WR)
        read = _read(client, time.monotonic() + request.patience)
    except OSError as error:
        return replace(seen, error=error_name(error), step="answer")
    head, _, body = read.partition(b"\r\n\r\n")
    notes: Mapping[str, Any] = {"head": head[:2000].decode("latin-1")}
    if not read:
        return replace(seen, error="closed", step="answer")
    return replace(seen, status=_status(read), body=body[:200].decode("latin-1"), notes=notes)


def _read(client: socket.socket, deadline: float) -> bytes:
    """Until headers and a little of the body are there, the peer closes, or the deadline. Raises TimeoutError."""
    read = bytearray()
    while len(read) < _KEPT:
        whole = b"\r\n\r\n" in read
        remaining = 0.05 if whole else deadline - time.monotonic()
        if remaining <= 0 or not select.select([client], [], [], remaining)[0]:
            if whole:
                break
            raise TimeoutError
        piece = client.recv(_KEPT)
        if not piece:
            break
        read += piece
    return bytes(read)


def _status(read: bytes) -> int:
    words = read.split(b"\r\n", 1)[0].split(b" ")
    return int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/") and words[1].isdigit() else 0


BEHAVIOURS: Mapping[str, Behaviour] = {"raw": raw, "held": held, "crowd": crowd}
