"""HTTP/1.1 on asyncio: a client connection that streams in both directions."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

import h11

from harness.errors import errno_text
from harness.lab.channel import BadMessage, Body, Channel, Headers, Limits, PeerGone, PeerSlow, Response, has_body

Received = TypeVar("Received")


class ExchangeFailed(Exception):
    """The other side of a client's connection could not be reached, or did not answer as it should.

    str() says what was attempted and what happened; timed_out, whether it was for want of time.
    """

    def __init__(self, attempted: str, happened: str, *, timed_out: bool = False):
        super().__init__(f"cannot {attempted}: {happened}")
        self.timed_out = timed_out


class ClientConnection:
    """One connection to a server, for one exchange after another: send(), a body if any, then receive().

    Every method but close() raises ExchangeFailed for what the server or the network did.
    """

    def __init__(self, channel: Channel, name: str, source_port: int = 0):
        self._channel = channel
        self.name = name
        self.source_port = source_port
        self._method = "GET"
        self._body = Body(channel, empty=True)

    @classmethod
    async def open(cls, address: str, port: int, *, limits: Limits, seconds: float) -> ClientConnection:
        """Connect to a dotted IPv4 address and a host-order port within that many seconds."""
        name = f"{address}:{port}"
        try:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        except OSError as error:
            raise ExchangeFailed(f"open a socket for {name}", errno_text(error.errno or 0)) from error
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(seconds):
                await asyncio.get_running_loop().sock_connect(sock, (address, port))
            return cls(Channel(sock, h11.CLIENT, limits), name, sock.getsockname()[1])
        except TimeoutError as error:
            sock.close()
            raise ExchangeFailed(f"connect to {name}", f"no answer within {seconds:g} s", timed_out=True) from error
        except OSError as error:
            sock.close()
            raise ExchangeFailed(f"connect to {name}", errno_text(error.errno or 0)) from error
        except BaseException:
            sock.close()
            raise

    async def send(self, method: str, target: str, headers: Headers) -> None:
        """Send the head of a request. Without Content-Length or Transfer-Encoding among headers it has no body."""
        self._method = method
        encoded = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in headers]
        await self._send(h11.Request(method=method, target=target, headers=encoded))

    async def send_piece(self, piece: bytes) -> None:
        await self._send(h11.Data(data=piece))

    async def send_end(self) -> None:
        await self._send(h11.EndOfMessage())

    async def receive(self) -> Response:
        """The answer, its body still to be read; interim answers (100, 103) are passed over."""
        event = await self._receive(self._channel.event)
        while isinstance(event, h11.InformationalResponse):
            event = await self._receive(self._channel.event)
        if not isinstance(event, h11.Response):
            raise ExchangeFailed(f"get an answer from {self.name}", "it hung up without one")
        self._body = Body(self._channel)
        headers = tuple((key.decode("latin-1"), value.decode("latin-1")) for key, value in event.headers.raw_items())
        if not has_body(self._method, event.status_code):
            await self._receive(self._body.__anext__)
        return Response(event.status_code, headers, _AnswerBody(self._next_piece), event.reason.decode("latin-1"))

    async def _next_piece(self) -> bytes | None:
        return await self._receive(self._body.__anext__)

    def ready(self) -> bool:
        """Whether another exchange can follow on this connection; asks the socket too."""
        http = self._channel.http
        if not self._body.finished or self._channel.waiting:
            return False
        if http.our_state is h11.DONE and http.their_state is h11.DONE:
            http.start_next_cycle()
        return http.our_state is h11.IDLE and not self._channel.stale()

    def close(self) -> None:
        self._channel.close()

    async def _send(self, event: h11.Event) -> None:
        try:
            await self._channel.send(event)
        except PeerSlow as error:
            raise ExchangeFailed(f"send to {self.name}", str(error), timed_out=True) from error
        except (PeerGone, h11.LocalProtocolError) as error:
            raise ExchangeFailed(f"send to {self.name}", str(error)) from error

    async def _receive(self, step: Callable[[], Awaitable[Received]]) -> Received | None:
        try:
            return await step()
        except StopAsyncIteration:
            return None
        except PeerSlow as error:
            raise ExchangeFailed(f"get an answer from {self.name}", f"it {error}", timed_out=True) from error
        except PeerGone as error:
            raise ExchangeFailed(f"get an answer from {self.name}", f"it {error}") from error
        except BadMessage as error:
            raise ExchangeFailed(f"read the answer of {self.name}", str(error)) from error


class _AnswerBody:
    """Not a generator: one that is left half-way would need closing."""

    def __init__(self, next_piece: Callable[[], Awaitable[bytes | None]]):
        self._next_piece = next_piece

    def __aiter__(self) -> _AnswerBody:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._next_piece()
        if piece is None:
            raise StopAsyncIteration
        return piece
