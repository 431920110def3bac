"""HTTP/1.1 on asyncio: a server, and the names that its users need (the client lies in http_client).

The protocol itself is h11's; this moves bytes between it and sockets, in one thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from typing import Protocol

import h11

from harness.lab.channel import (
    PIECE,
    BadMessage,
    Body,
    Channel,
    Headers,
    Limits,
    Peer,
    PeerGone,
    PeerSlow,
    Request,
    Response,
    has_body,
    header,
    origin_form,
    phrase,
    plain,
)
from harness.lab.http_client import ClientConnection, ExchangeFailed

__all__ = [
    "BadMessage",
    "Body",
    "ClientConnection",
    "ExchangeFailed",
    "Handler",
    "Headers",
    "Limits",
    "Peer",
    "PeerGone",
    "PeerSlow",
    "Request",
    "Response",
    "Server",
    "Session",
    "has_body",
    "header",
    "origin_form",
    "plain",
    "serve",
]

ACCEPT_AGAIN = 0.05
"""Seconds until accept(2) is tried again after it failed for want of descriptors or memory."""

ALLOWED = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"

Handler = Callable[[Request], Awaitable[Response]]


class Session(Protocol):
    """What a server's owner keeps for one connection."""

    async def answer(self, request: Request) -> Response:
        """The answer to one request; PeerGone, PeerSlow and BadMessage of its body may pass through."""

    def refused(self, status: int, why: str) -> None:
        """The server itself answered status to what was not a request."""

    async def close(self) -> None:
        """The connection has ended."""


class Server:
    """Serves every connection of a listening socket; one task a connection, no threads.

    open_session is called in the moment of the accept, before anything is read. extra headers go with every
    answer, the server's own refusals included. The server owns the listening socket from start() on.
    """

    def __init__(
        self,
        listener: socket.socket,
        open_session: Callable[[Peer], Session],
        *,
        limits: Limits | None = None,
        extra: Callable[[], Headers] = tuple,
    ):
        self._listener = listener
        self._open_session = open_session
        self._limits = limits or Limits()
        self._extra = extra
        self._tasks: set[asyncio.Task[None]] = set()
        self._again: asyncio.TimerHandle | None = None
        self._listening = False
        self._running = False

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._tasks)

    async def start(self) -> None:
        """Accept from now on. Needs a running loop; returns at once."""
        self._listener.setblocking(False)
        self._running = True
        self._listen()

    async def stop(self) -> None:
        """Close the listening socket and every connection; when it returns no task and no socket is left."""
        self._running = False
        self._deafen()
        if self._again:
            self._again.cancel()
        self._listener.close()
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)

    def _listen(self) -> None:
        if self._running and not self._listening and len(self._tasks) < self._limits.connections:
            asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)
            self._listening = True

    def _deafen(self) -> None:
        if self._listening:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listening = False

    def _accept(self) -> None:
        while len(self._tasks) < self._limits.connections:
            try:
                sock, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                # A connection that died in the queue is no trouble; the rest is: wait, or the loop would spin.
                if error.errno not in (errno.ECONNABORTED, errno.EPROTO, errno.EINTR):
                    self._deafen()
                    self._again = asyncio.get_running_loop().call_later(ACCEPT_AGAIN, self._listen)
                    return
                continue
            self._welcome(sock, Peer(*address[:2]))
        self._deafen()

    def _welcome(self, sock: socket.socket, peer: Peer) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            session = self._open_session(peer)
        except Exception as error:  # one connection's trouble is not the server's
            sock.close()
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"cannot open a session for {peer}", "exception": error}
            )
            return
        channel = Channel(sock, h11.SERVER, self._limits)
        task = asyncio.get_running_loop().create_task(self._converse(channel, session, peer))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._listen()
        if not task.cancelled() and (error := task.exception()):
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a connection ended in an error of ours", "exception": error}
            )

    async def _converse(self, channel: Channel, session: Session, peer: Peer) -> None:
        try:
            while await _Exchange(channel, session, peer, self._extra).run():
                channel.http.start_next_cycle()
            await channel.finish()
        except (PeerGone, PeerSlow):
            channel.abort()
        finally:
            try:
                await session.close()
            finally:
                channel.close()


class _Exchange:
    """One request and its answer, on the server's side."""

    def __init__(self, channel: Channel, session: Session, peer: Peer, extra: Callable[[], Headers]):
        self._channel = channel
        self._session = session
        self._peer = peer
        self._extra = extra

    async def run(self) -> bool:
        """Whether another may follow on the same connection; when not, the caller closes it."""
        request: Request | None = None
        try:
            request = await self._request()
            if request is None:
                return False
            await self._respond(request, await self._answer(request))
        except BadMessage as error:
            self._session.refused(error.status, str(error))
            await self._respond(None, plain(error.status, f"{error.status} {phrase(error.status)}: {error}"))
            return False
        return await self._settled(request)

    async def _request(self) -> Request | None:
        channel, limits = self._channel, self._channel.limits
        if not channel.waiting:
            try:
                await channel.feed(limits.idle)
            except PeerSlow:
                return None
        try:
            event = channel.next_event()
            if event is None:
                async with asyncio.timeout(limits.head):
                    event = await channel.event()
        except TimeoutError as error:
            raise BadMessage(408, f"the headers were not whole within {limits.head:g} s") from error
        except PeerGone as error:
            raise BadMessage(400, "the request ends before its headers do") from error
        if not isinstance(event, h11.Request):
            return None
        headers = tuple((key.decode("latin-1"), value.decode("latin-1")) for key, value in event.headers.raw_items())
        if sum(len(key) + len(value) + 4 for key, value in headers) + len(event.target) > limits.header_bytes:
            raise BadMessage(431, f"the headers are longer than {limits.header_bytes} bytes")
        return Request(
            event.method.decode("ascii"),
            event.target.decode("ascii"),
            headers,
            event.http_version.decode("ascii"),
            self._peer,
            Body(channel),
        )

    async def _answer(self, request: Request) -> Response:
        if request.method == "CONNECT":  # nothing here tunnels
            self._session.refused(405, f"CONNECT {request.target}")
            return plain(405, "405 Method Not Allowed: CONNECT is not offered here", (("Allow", ALLOWED),))
        try:
            return await self._session.answer(request)
        except (PeerGone, PeerSlow, BadMessage):
            raise
        except Exception as error:  # told to the client and to the loop's handler; the server goes on
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"cannot answer {request.method} {request.target}", "exception": error}
            )
            return plain(500, f"500 Internal Server Error: {type(error).__name__}: {error}")

    async def _respond(self, request: Request | None, response: Response) -> None:
        method = request.method if request else "GET"
        wanted = has_body(method, response.status)
        headers = [*self._extra(), *response.headers]
        whole = isinstance(response.body, bytes) and header(response.headers, "content-length") is None
        if whole and (wanted or method == "HEAD"):
            headers.append(("Content-Length", str(len(response.body))))  # type: ignore[arg-type]
        if request is None or request.body.broken or self._channel.http.they_are_waiting_for_100_continue:
            # Whether the client will send the body that it announced cannot be known: no next request after this.
            headers.append(("Connection", "close"))
        head = h11.Response(
            status_code=response.status,
            headers=[(key.encode("latin-1"), value.encode("latin-1")) for key, value in headers],
            reason=(response.reason or phrase(response.status)).encode("latin-1"),
        )
        try:
            if isinstance(response.body, bytes) and len(response.body) <= PIECE:
                body = [h11.Data(data=response.body)] if wanted else []
                await self._channel.send_all(head, *body, h11.EndOfMessage())
                return
            # Of an empty body nothing follows: the head would wait for it.
            await self._channel.send(head, more=wanted and header(response.headers, "content-length") != "0")
            if wanted:
                await self._send_body(response.body)
            await self._channel.send(h11.EndOfMessage())
        except (PeerGone, PeerSlow):
            raise
        except Exception as error:  # the body broke off: nothing can be said any more, but the cut must be seen
            raise PeerGone(f"the body of the answer broke off: {error}") from error

    async def _send_body(self, body: bytes | AsyncIterable[bytes]) -> None:
        if isinstance(body, bytes):
            await self._channel.send(h11.Data(data=body))
            return
        try:
            async for piece in body:
                await self._channel.send(h11.Data(data=piece))
        finally:
            if isinstance(body, AsyncGenerator):
                await body.aclose()

    async def _settled(self, request: Request) -> bool:
        http, body, limits = self._channel.http, request.body, self._channel.limits
        if http.our_state is h11.DONE and not body.broken and not body.finished:
            with contextlib.suppress(TimeoutError, PeerGone, BadMessage):
                async with asyncio.timeout(limits.linger):
                    await body.drain(limits.drain_bytes)
        return http.our_state is h11.DONE and http.their_state is h11.DONE


class _Plain:
    """A session that keeps nothing: every request goes to one handler."""

    def __init__(self, handler: Handler):
        self._handler = handler

    async def answer(self, request: Request) -> Response:
        return await self._handler(request)

    def refused(self, status: int, why: str) -> None:
        pass

    async def close(self) -> None:
        pass


async def serve(listener: socket.socket, handler: Handler, *, limits: Limits | None = None) -> Server:
    """A server, started, that answers each request of a listening socket by one handler."""
    server = Server(listener, lambda peer: _Plain(handler), limits=limits)
    await server.start()
    return server
