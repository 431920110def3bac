"""The fabric's side of the lab: IMDS, WireServer and HostGAPlugin, each on a listening socket."""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.lab import hostgaplugin, imds, wireserver
from harness.lab.http import Headers, Limits, Peer, Request, Response, Server
from harness.lab.service import KEPT_BYTES, Service, call_of

if TYPE_CHECKING:
    from harness.lab.secure_channel import SecureChannel

SERVICES = {service.endpoint.name: service for service in (imds.SERVICE, wireserver.SERVICE, hostgaplugin.SERVICE)}


@dataclass(frozen=True)
class Seen:
    """One request as it arrived at an endpoint, and how it ended.

    status is None when the client hung up before the answer; for what was not a request at all, method and target
    are empty and note says why.
    """

    endpoint: str  # imds, wireserver, hostgaplugin
    peer: Peer  # where the connection came from
    method: str
    target: str
    headers: Headers
    body_bytes: int
    status: int | None
    at: float  # seconds since the epoch
    note: str = ""
    body: bytes = b""  # of a health report alone


Scenario = Callable[[Request, Callable[[], Awaitable[Response]]], Awaitable[Response]]
"""Stands before a service: gets the request and what gives the service's own answer; may wait, alter or raise."""


class Fabric:
    """The three services on already bound, listening sockets, by endpoint name; it owns them from start() on.

    requests holds what was asked, oldest first, the last `remember` of it. scenarios, by endpoint name, may be set
    and deleted at any time. channel is the platform's secure channel; without one its paths do not exist, and nothing
    is asked to be signed.
    """

    def __init__(
        self,
        sockets: Mapping[str, socket.socket],
        *,
        services: Mapping[str, Service] | None = None,
        limits: Limits | None = None,
        remember: int = 4096,
        channel: SecureChannel | None = None,
    ):
        services = services or SERVICES
        unknown = sorted(set(sockets) - set(services))
        if unknown:
            raise HarnessError(
                f"serve {unknown[0]!r}", "there is no such service", f"the services are {', '.join(services)}"
            )
        self.requests: deque[Seen] = deque(maxlen=remember)
        self.scenarios: dict[str, Scenario] = {}
        self.channel = channel
        self._servers = [self._server(services[name], listener, limits) for name, listener in sockets.items()]

    async def start(self) -> None:
        for server in self._servers:
            await server.start()

    async def stop(self) -> None:
        """When it returns, no task and no socket of the fabric is left."""
        for server in self._servers:
            await server.stop()

    @property
    def open_connections(self) -> int:
        return sum(server.connections for server in self._servers)

    def _server(self, service: Service, listener: socket.socket, limits: Limits | None) -> Server:
        return Server(listener, lambda peer: _Session(self, service, peer), limits=limits, extra=service.headers)


class _Session:
    def __init__(self, fabric: Fabric, service: Service, peer: Peer):
        self._fabric = fabric
        self._service = service
        self._peer = peer

    async def answer(self, request: Request) -> Response:
        body, size, status, note = bytearray(), 0, None, ""

        async def serve() -> Response:
            nonlocal size
            channel, endpoint = self._fabric.channel, self._service.endpoint.name
            if channel:
                await channel.arrive(endpoint, request)
            check = channel and channel.check(request)
            async for piece in request.body:
                size += len(piece)
                body.extend(piece[: KEPT_BYTES - len(body)])
                if check:
                    check.update(piece)
            call = call_of(request, bytes(body), size)
            answer = channel.answer(endpoint, call, check) if channel and check else None
            return answer or self._service.answer(call)

        try:
            scenario = self._fabric.scenarios.get(self._service.endpoint.name)
            response = await (scenario(request, serve) if scenario else serve())
            status = response.status
            return response
        except Exception as error:
            note = f"{type(error).__name__}: {error}"
            raise
        finally:
            kept = bytes(body) if wireserver.is_health(request.target) else b""
            self._note(request.method, request.target, request.headers, size, status, note, kept)

    def refused(self, status: int, why: str) -> None:
        self._note("", "", (), 0, status, why)

    async def close(self) -> None:
        pass

    def _note(
        self, method: str, target: str, headers: Headers, size: int, status: int | None, note: str, body: bytes = b""
    ) -> None:
        name, now = self._service.endpoint.name, time.time()
        self._fabric.requests.append(Seen(name, self._peer, method, target, headers, size, status, now, note, body))
