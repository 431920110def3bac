"""What several behaviours need: a connect that keeps what is known when it fails, children, other programs' answers."""

from __future__ import annotations

import http.client
import io
import json
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from harness.kernel import processes
from harness.lab import clients
from harness.lab.clients import Request, Seen, Unavailable, error_name
from harness.msp.endpoints import Endpoint


def place(request: Request) -> tuple[str, int]:
    return request.address, request.port


def reach(client: socket.socket, request: Request) -> Seen:
    """A blocking connect, then a request."""
    try:
        client.connect(place(request))
    except OSError as error:
        return stopped(client, error)
    return clients.exchange(client, request)


def stopped(client: socket.socket, error: OSError, step: str = "connect") -> Seen:
    """What is to be said of a connect that failed; the source port is known where the socket still has one."""
    try:
        port = client.getsockname()[1]
    except OSError:
        port = 0
    return Seen(error=error_name(error), step=step, source_port=port)


def noted(seen: Seen, **notes: Any) -> Seen:
    return replace(seen, notes={**seen.notes, **notes})


def owned(seen: Seen, pid: int | None = None) -> Seen:
    """Say whose connection it is: the caller's, or that of process pid."""
    return replace(seen, pid=pid or os.getpid(), uid=os.getuid())


def several(*connections: Seen) -> Seen:
    """A behaviour that made more than one connection, or not by the client's own process: each with its pid and uid."""
    return Seen(notes={"connections": [asdict(seen) for seen in connections]})


def connections(seen: Seen) -> list[Seen]:
    """The connections of a behaviour: those that it lists, or the one that it is."""
    return [Seen(**row) for row in seen.notes["connections"]] if "connections" in seen.notes else [seen]


def towards(request: Request, endpoint: Endpoint) -> Request:
    """The same request for another endpoint."""
    return Request.to(endpoint, patience=request.patience, options=request.options)


def wanting(seen: Seen, request: Request) -> Seen:
    """Say where a connection wanted to go, in a behaviour that has several destinations."""
    return noted(seen, wanted=[request.address, request.port])


def in_child(work: Callable[[], Seen], fork: Callable[[], int] = os.fork, *, parent: int | None = None) -> Seen:
    """Run work in a child; what it saw, with the child's pid as the caller sees it. parent: as the child sees it."""
    output, entry = os.pipe()
    above = os.getpid() if parent is None else parent
    pid = fork()
    if pid == 0:
        try:
            processes.die_with_parent(above)
            os.write(entry, json.dumps(asdict(owned(_carefully(work)))).encode())
        finally:
            os._exit(0)
    os.close(entry)
    with os.fdopen(output, "rb") as pipe:
        told = pipe.read()
    os.waitpid(pid, 0)
    if not told:
        return Seen(error="ended without a word", step="child", pid=pid)
    return replace(Seen(**json.loads(told)), pid=pid)


def _carefully(work: Callable[[], Seen]) -> Seen:
    try:
        return work()
    except Unavailable as reason:
        return Seen(unavailable=str(reason))
    except OSError as error:
        return Seen(error=error_name(error), step="connect")
    except Exception as error:
        return Seen(error=f"{type(error).__name__}: {error}", step="child")


def http_request(request: Request, host: str) -> bytes:
    """The request's bytes for a client that reads until the other side closes."""
    lines = [f"GET {request.path} HTTP/1.1", f"Host: {host}", "Metadata: true", "x-ms-version: 2012-11-30"]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode()


class _Bytes:
    """An answer that is there already, in the form that http.client reads."""

    def __init__(self, raw: bytes):
        self._raw = raw

    def makefile(self, *_: Any, **__: Any) -> io.BytesIO:
        return io.BytesIO(self._raw)


def parse_answer(raw: bytes) -> Mapping[str, Any]:
    """The members of Seen that an HTTP answer fills. Raises http.client.HTTPException."""
    if not raw:
        raise http.client.RemoteDisconnected("no answer")
    return clients.answer(_Bytes(raw))  # type: ignore[arg-type]
