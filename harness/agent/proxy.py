"""The reference agent's proxy: what the redirected connections of a VM's clients arrive at.

A connection's identity and its real destination are what the redirector wrote down under the client's source port.
They are looked up once, in the moment of the accept, and hold for the connection's life; a client's Host header or
absolute target changes nothing. For each client connection there is at most one to the endpoint, made by this
process, whose pid the redirector skips.

By itself this is the lab's proxy: no keys, and no claims. A whole agent adds those with a Gate.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from harness.agent.headers import NONCE, chunked, request_headers, response_headers, with_length
from harness.errors import errno_text
from harness.lab.http import (
    BadMessage,
    ClientConnection,
    ExchangeFailed,
    Headers,
    Limits,
    Peer,
    Request,
    Response,
    Server,
    has_body,
    header,
    origin_form,
    plain,
)
from harness.msp.endpoints import ENDPOINTS, Endpoint
from harness.program.maps import AuditRecord

if TYPE_CHECKING:
    from harness.agent.claims import Claims

CONNECT_SECONDS = 5.0
"""How long an endpoint may take to accept a connection; after that the client gets 504."""

LAST_WORDS = 1.0
"""Seconds in which an answer may still come from an endpoint that stopped taking the request's body."""

SIGNED_BODY = 4 << 20
"""Bytes of a body that is to be signed, and so must be whole before it is sent on; a longer one gets 413."""

Lookup = Callable[[int], AuditRecord | None]
"""From a client's source port (host order) to what the redirector wrote down; may raise OSError."""

Rule = Callable[[AuditRecord, Endpoint, Request], str | None]
"""Why somebody may not make this request of this endpoint; None when they may. Called for every request."""


def default_rule(audit: AuditRecord, endpoint: Endpoint, request: Request) -> str | None:
    """The agent's rule where the platform sets none: WireServer and HostGAPlugin are root's."""
    if endpoint.root_only and not audit.is_root:
        return f"{endpoint.title} is for root only, and uid {audit.uid} (pid {audit.pid}) is not root"
    return None


@dataclass
class Exchange:
    """One request of a connection. status is None until it is answered; note says what went wrong, if anything."""

    method: str
    target: str
    status: int | None = None
    note: str = ""


@dataclass
class Connection:
    """One accept: who it was, by the redirector, and what they asked."""

    client_port: int  # host order
    client_address: str
    audit: AuditRecord | None
    accepted: float  # seconds since the epoch
    exchanges: deque[Exchange] = field(default_factory=lambda: deque(maxlen=64))
    claims: Claims | None = None  # who that is, where a gate wants to know
    endpoint_ports: list[int] = field(default_factory=list)  # from which the proxy itself connected for it
    note: str = ""
    closed: bool = False


class Gate(Protocol):
    """What an agent with keys and rules adds. Its rule replaces the proxy's; see harness.agent.gate."""

    def identify(self, audit: AuditRecord, /) -> Claims:
        """Called in the moment of the accept."""

    def own(self, request: Request, /) -> Response | None:
        """The answer to a request that was made to the agent itself; None for what it does not offer."""

    def denial(self, claims: Claims, endpoint: Endpoint, request: Request) -> str | None:
        """Why they may not make this request; None when they may."""

    def signs(self, method: str, target: str) -> bool:
        """Whether headers() will sign such a request."""

    def headers(self, claims: Claims, method: str, target: str, headers: Headers, body: bytes) -> Headers:
        """What goes to the endpoint besides these headers."""

    def answered(self, connection: Connection, exchange: Exchange, *, denied: bool) -> None:
        """A request has got its answer."""


class Proxy:
    """The proxy on a listening socket, which it owns from start() on.

    connections holds the last accepts, oldest first. Whoever opened a connection that the redirector did not write
    down gets 421; whom the rule denies, 403; for an endpoint that cannot be reached 502, one too slow 504. A connection
    of the proxy's own process that comes back gets 508.
    """

    def __init__(
        self,
        listener: socket.socket,
        lookup: Lookup,
        nonce: str,
        *,
        rule: Rule = default_rule,
        endpoints: Sequence[Endpoint] = ENDPOINTS,
        limits: Limits | None = None,
        connect_seconds: float = CONNECT_SECONDS,
        remember: int = 4096,
        gate: Gate | None = None,
    ):
        self.gate = gate
        self.connections: deque[Connection] = deque(maxlen=remember)
        self.limits = limits or Limits()
        self.rule = rule
        self.connect_seconds = connect_seconds
        self._lookup = lookup
        self._endpoints = {(endpoint.address, endpoint.port): endpoint for endpoint in endpoints}
        self.nonce = nonce
        self._server = Server(listener, self._open, limits=self.limits, extra=lambda: ((NONCE, self.nonce),))

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        """When it returns, no task and no socket of the proxy is left."""
        await self._server.stop()

    @property
    def open_connections(self) -> int:
        return self._server.connections

    def endpoint(self, audit: AuditRecord) -> Endpoint | None:
        return self._endpoints.get((audit.address, audit.port))

    def _open(self, peer: Peer) -> _Session:
        connection = Connection(peer.port, peer.address, None, time.time())
        try:
            connection.audit = self._lookup(peer.port)
            if self.gate and connection.audit:
                connection.claims = self.gate.identify(connection.audit)
        except OSError as error:
            connection.note = f"cannot look up source port {peer.port}: {errno_text(error.errno or 0)}"
        self.connections.append(connection)
        return _Session(self, connection)


class _Session:
    """One client connection and the one to its endpoint."""

    def __init__(self, proxy: Proxy, connection: Connection):
        self._proxy = proxy
        self._connection = connection
        self._upstream: ClientConnection | None = None
        self._upload: asyncio.Task[None] | None = None

    async def answer(self, request: Request) -> Response:
        exchange = Exchange(request.method, request.target)
        self._connection.exchanges.append(exchange)
        refusal: Response | None = None
        try:
            refusal = self._judge(request)
            response = refusal or await self._forward(request, exchange)
        except ExchangeFailed as error:
            await self._hang_up()
            exchange.note = str(error)
            response = plain(504 if error.timed_out else 502, str(error))
        except Exception as error:
            exchange.note = f"{type(error).__name__}: {error}"
            raise
        exchange.status = response.status
        if self._proxy.gate:
            self._proxy.gate.answered(self._connection, exchange, denied=refusal is not None)
        return response

    def refused(self, status: int, why: str) -> None:
        self._connection.exchanges.append(Exchange("", "", status, why))

    async def close(self) -> None:
        self._connection.closed = True
        await self._hang_up()

    def _judge(self, request: Request) -> Response | None:
        """The answer to what is not forwarded."""
        audit = self._connection.audit
        if audit is None:
            if self._connection.note:
                return plain(500, f"500 Internal Server Error: {self._connection.note}")
            own = self._proxy.gate.own(request) if self._proxy.gate else None
            return own or plain(
                421,
                f"421 Misdirected Request: nothing is written down for source port {self._connection.client_port}; "
                "only connections that the redirector sent here are forwarded",
            )
        if origin_form(request.target) is None:
            return plain(400, f"400 Bad Request: {request.target!r} is not a path")
        if audit.pid == os.getpid():
            # The redirector did not skip this process: to go on would be to ask oneself for ever.
            return plain(508, "508 Loop Detected: the proxy's own connection came back; skip_process_map does not work")
        endpoint = self._proxy.endpoint(audit)
        denial = endpoint and self._denial(audit, endpoint, request)
        return plain(403, f"403 Forbidden: {denial}") if denial else None

    def _denial(self, audit: AuditRecord, endpoint: Endpoint, request: Request) -> str | None:
        gate, claims = self._proxy.gate, self._connection.claims
        if gate and claims:
            return gate.denial(claims, endpoint, request)
        return self._proxy.rule(audit, endpoint, request)

    async def _forward(self, request: Request, exchange: Exchange) -> Response:
        used = self._upstream is not None
        try:
            response = await self._exchange(request)
        except ExchangeFailed as error:
            # An endpoint may end an idle connection just when it is used again; what changes nothing can be repeated.
            if not used or error.timed_out or request.method not in ("GET", "HEAD") or announces_body(request):
                raise
            await self._hang_up()
            response = await self._exchange(request)
        body: bytes | AsyncIterable[bytes] = b""
        if has_body(request.method, response.status):
            body = self._relay(response, exchange)
        else:
            await self._end_upload()
        return Response(response.status, response_headers(response.headers), body, response.reason)

    async def _exchange(self, request: Request) -> Response:
        target = origin_form(request.target) or "/"
        headers = request_headers(request.headers)
        if request.header("host") is None:  # HTTP/1.0 may leave it out, and we speak 1.1
            audit = self._connection.audit
            assert audit is not None
            headers = (("Host", f"{audit.address}:{audit.port}"), *headers)
        whole: bytes | None = None
        gate, claims = self._proxy.gate, self._connection.claims
        if gate and claims:
            if gate.signs(request.method, target) and announces_body(request):
                whole = await _whole_body(request)
                headers = with_length(headers, len(whole))
            headers = (*headers, *gate.headers(claims, request.method, target, headers, whole or b""))
        upstream = await self._connect()
        await upstream.send(request.method, target, headers)
        if announces_body(request) and whole is None:
            return await self._answer_during_upload(upstream, request)
        if whole:
            await upstream.send_piece(whole)
        await upstream.send_end()
        return await upstream.receive()

    async def _connect(self) -> ClientConnection:
        audit = self._connection.audit
        assert audit is not None
        await self._end_upload()
        if self._upstream and self._upstream.ready():
            return self._upstream
        await self._hang_up()
        proxy = self._proxy
        self._upstream = await ClientConnection.open(
            audit.address, audit.port, limits=proxy.limits, seconds=proxy.connect_seconds
        )
        self._connection.endpoint_ports.append(self._upstream.source_port)
        return self._upstream

    async def _answer_during_upload(self, upstream: ClientConnection, request: Request) -> Response:
        """An endpoint may answer before it has read the whole body, and go on reading or not."""
        upload = self._upload = asyncio.create_task(_send_body(request, upstream))
        receive = asyncio.create_task(upstream.receive())
        try:
            await asyncio.wait({upload, receive}, return_when=asyncio.FIRST_COMPLETED)
            if upload.done() and (trouble := upload.exception()):
                await self._last_words(receive, trouble)
            return await receive
        finally:
            receive.cancel()
            await asyncio.wait({receive})
            seen(receive)

    async def _last_words(self, receive: asyncio.Task[Response], trouble: BaseException) -> None:
        if isinstance(trouble, ExchangeFailed):
            await asyncio.wait({receive}, timeout=LAST_WORDS)
        if not receive.done() or receive.exception():
            raise trouble

    async def _relay(self, response: Response, exchange: Exchange) -> AsyncGenerator[bytes, None]:
        assert not isinstance(response.body, bytes)
        try:
            async for piece in response.body:
                yield piece
        except ExchangeFailed as error:
            exchange.note = str(error)
            raise
        finally:
            await self._end_upload()

    async def _end_upload(self) -> None:
        if self._upload is None:
            return
        upload, self._upload = self._upload, None
        upload.cancel()
        await asyncio.wait({upload})
        seen(upload)

    async def _hang_up(self) -> None:
        try:
            await self._end_upload()  # before the socket is closed under it
        finally:
            if self._upstream:
                self._upstream.close()
                self._upstream = None


async def _whole_body(request: Request) -> bytes:
    whole = bytearray()
    async for piece in request.body:
        whole += piece
        if len(whole) > SIGNED_BODY:
            raise BadMessage(413, f"a body that is to be signed may have {SIGNED_BODY} bytes, and this has more")
    return bytes(whole)


async def _send_body(request: Request, upstream: ClientConnection) -> None:
    async for piece in request.body:
        await upstream.send_piece(piece)
    await upstream.send_end()


def seen(task: asyncio.Task[Any]) -> None:
    """Take an ended task's exception, which somebody else reports or nobody needs."""
    if not task.cancelled():
        task.exception()


def announces_body(request: Request) -> bool:
    return chunked(request.headers) or (header(request.headers, "content-length") or "0").strip("0 ") != ""
