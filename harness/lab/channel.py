"""HTTP/1.1 messages, and a socket with h11's state of the conversation on it: what server and client share.

Everything a stranger can do has a limit: sizes, silence, slowness. Bodies come and go one piece at a time: the next
piece is read when the last one has been taken, so that no body is ever whole in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import socket
import struct
from collections.abc import AsyncIterable
from dataclasses import dataclass
from typing import NamedTuple

import h11

from harness.errors import errno_text

Headers = tuple[tuple[str, str], ...]
"""Names and values in the order and case of the wire, decoded as latin-1."""

PIECE = 64 * 1024
"""Bytes asked of a socket, or given to one, at a time."""

_AT_ONCE = 3
"""What a channel sends and receives without having to wait, until it lets others run."""


@dataclass(frozen=True)
class Limits:
    """What one peer may cost. Times are in seconds, sizes in bytes."""

    header_bytes: int = 16 * 1024  # request line and headers together
    idle: float = 60  # without the first byte of a next request; the agent has the same
    head: float = 15  # from the first byte of a request to the end of its headers
    stall: float = 30  # for one piece of a body to come, or to be taken
    linger: float = 2  # for a peer to end what it is sending after it got its answer
    drain_bytes: int = 1024 * 1024  # of a body nobody wanted, read to keep the connection
    connections: int = 448  # at once; more wait in the backlog. Twice that many sockets fit in RLIMIT_NOFILE's 1024


class Peer(NamedTuple):
    address: str  # dotted IPv4
    port: int  # host order


class PeerGone(ConnectionError):
    """The other side hung up, or the connection broke, before the message was whole."""


class PeerSlow(TimeoutError):
    """The other side neither sent nor took anything for as long as Limits allow."""


class BadMessage(ValueError):
    """The other side does not speak HTTP; status is what a server answers to that."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status


class Body:
    """The body of a message that is being received, in pieces, once: `async for piece in body`.

    Reading raises PeerGone, PeerSlow or BadMessage. finished says that the end was read; broken, that some of it may
    have been lost (a read was cancelled or failed), so that the connection is of no further use.
    """

    def __init__(self, channel: Channel, *, empty: bool = False):
        self._channel = channel
        self.finished = empty
        self.broken = False

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        if self.finished:
            raise StopAsyncIteration
        self.broken = True
        event = await self._channel.event()
        self.broken = False
        if isinstance(event, h11.Data):
            return bytes(event.data)
        self.finished = True
        raise StopAsyncIteration

    async def drain(self, limit: int) -> bool:
        """Read and forget at most about limit bytes; True when that was all of it."""
        async for piece in self:
            limit -= len(piece)
            if limit < 0:
                return False
        return True


@dataclass(frozen=True)
class Request:
    method: str
    target: str  # as on the wire: origin, absolute, authority or asterisk form
    headers: Headers
    version: str  # "1.1", "1.0"
    peer: Peer
    body: Body

    def header(self, name: str) -> str | None:
        return header(self.headers, name)


@dataclass(frozen=True)
class Response:
    """An answer. Without a Content-Length header, a body of bytes gets one; a streamed body is chunked."""

    status: int
    headers: Headers = ()
    body: bytes | AsyncIterable[bytes] = b""
    reason: str = ""


def header(headers: Headers, name: str) -> str | None:
    """The first value of a header, whatever its case."""
    return next((value for key, value in headers if key.lower() == name.lower()), None)


def plain(status: int, text: str, headers: Headers = ()) -> Response:
    """An answer of one line of text."""
    return Response(status, (("Content-Type", "text/plain; charset=utf-8"), *headers), (text + "\n").encode())


def phrase(status: int) -> str:
    """`Misdirected Request` for 421."""
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def has_body(method: str, status: int) -> bool:
    """Whether an answer of that status to that method carries a body (RFC 9112, 6.3)."""
    return method != "HEAD" and status not in (204, 304) and status >= 200


def origin_form(target: str) -> str | None:
    """The path and query of a request target, whatever host an absolute one names; None for what has no path."""
    if target.startswith("/") or target == "*":
        return target
    scheme, colon, rest = target.partition("://")
    if not colon or scheme.lower() not in ("http", "https"):
        return None
    authority_end = min((rest.find(mark) for mark in "/?" if mark in rest), default=len(rest))
    path = rest[authority_end:]
    return path if path.startswith("/") else "/" + path


class Channel:
    """A connected socket with h11's state of the conversation on it. It owns the socket."""

    def __init__(self, sock: socket.socket, role: type[h11.CLIENT] | type[h11.SERVER], limits: Limits):
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._sending = asyncio.Lock()  # an upload's 100 Continue and an answer may be sent by two tasks
        self._ended = False  # the peer will send no more
        self._at_once = 0
        self.limits = limits
        self.http = h11.Connection(role, max_incomplete_event_size=limits.header_bytes)

    async def event(self) -> h11.Event | type[h11.PAUSED]:
        """The next event from the peer; sends 100 Continue first when the peer waits for it."""
        while True:
            event = self.next_event()
            if event is not None:
                return event
            if self.http.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
            await self.feed(self.limits.stall)

    def next_event(self) -> h11.Event | type[h11.PAUSED] | None:
        """The next event, as far as it has come; None when there is more to come."""
        try:
            event = self.http.next_event()
        except h11.RemoteProtocolError as error:
            if self._ended:
                raise PeerGone("hung up before its message was whole") from error
            raise BadMessage(error.error_status_hint, str(error)[:200]) from error
        return None if event is h11.NEED_DATA else event  # type: ignore[return-value]

    async def feed(self, seconds: float) -> None:
        """Give h11 what the socket has, waiting at most that long."""
        try:
            try:
                data = self._sock.recv(PIECE)  # what is there already needs no timer, and no turn of the loop
                await self._let_others_run()
            except BlockingIOError:
                async with asyncio.timeout(seconds):
                    data = await self._loop.sock_recv(self._sock, PIECE)
        except TimeoutError as error:
            raise PeerSlow(f"sent nothing for {seconds:g} s") from error
        except OSError as error:
            raise PeerGone(f"cannot receive: {errno_text(error.errno or 0)}") from error
        self._ended = not data
        self.http.receive_data(data)

    async def _let_others_run(self, *, now: bool = False) -> None:
        """Every few times: a peer that always has something to read, or room, must not keep the others waiting."""
        self._at_once += 1
        if now or self._at_once >= _AT_ONCE:
            self._at_once = 0
            await asyncio.sleep(0)

    @property
    def waiting(self) -> bool:
        """Whether bytes of a next message are here already."""
        return bool(self.http.trailing_data[0])

    @property
    def ended(self) -> bool:
        return self._ended

    async def send(self, event: h11.Event, *, more: bool = False) -> None:
        """Send one event, a body in pieces; raises PeerGone and PeerSlow.

        more: what follows at once may go with it in one segment; the kernel waits for it for 200 ms at most.
        """
        if isinstance(event, h11.Data) and len(event.data) > PIECE:
            view = memoryview(event.data)
            for start in range(0, len(view), PIECE):
                await self._send(h11.Data(data=bytes(view[start : start + PIECE])))
                await self._let_others_run(now=True)
        else:
            await self._send(event, socket.MSG_MORE if more else 0)
            await self._let_others_run()

    async def send_all(self, *events: h11.Event) -> None:
        """Send events that belong together, and are short, as one."""
        async with self._sending:
            await self._put(b"".join(self.http.send(event) or b"" for event in events))
        await self._let_others_run()

    async def _send(self, event: h11.Event, flags: int = 0) -> None:
        async with self._sending:
            if isinstance(event, h11.InformationalResponse) and self.http.our_state is not h11.SEND_RESPONSE:
                return  # the answer was faster
            await self._put(self.http.send(event) or b"", flags)

    async def _put(self, data: bytes, flags: int = 0) -> None:
        rest = memoryview(data)
        try:
            with contextlib.suppress(BlockingIOError):
                rest = rest[self._sock.send(rest, flags) if rest else 0 :]
            if rest:
                async with asyncio.timeout(self.limits.stall):
                    await self._loop.sock_sendall(self._sock, rest)
        except TimeoutError as error:
            raise PeerSlow(f"took less than {len(data)} bytes in {self.limits.stall:g} s") from error
        except OSError as error:
            raise PeerGone(f"cannot send: {errno_text(error.errno or 0)}") from error

    async def finish(self) -> None:
        """Say that no more comes, then let the peer end: closing over unread bytes would destroy the answer (RST)."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        if self._ended:
            return
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(self.limits.linger):
                while await self._loop.sock_recv(self._sock, PIECE):
                    await asyncio.sleep(0)  # sock_recv does not let others run while there is something to read

    def stale(self) -> bool:
        """Whether the peer ended, or said something unasked, while the connection was idle."""
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def abort(self) -> None:
        """Make close() reset the connection, so that a cut body cannot be taken for a whole one."""
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self) -> None:
        self._sock.close()
