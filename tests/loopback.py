"""What the tests of servers share: loopback sockets, a client that sends what it likes, and a check for leaks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

SAFETY = 20.0
"""Seconds after which a test that waits for something gives up; no test expects to need them."""


def listener(address: str = "127.0.0.1", kind: type[socket.socket] = socket.socket) -> socket.socket:
    sock = kind(socket.AF_INET, socket.SOCK_STREAM)
    sock.bind((address, 0))
    sock.listen(1024)
    return sock


def port_of(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


def closed_port() -> int:
    with listener() as sock:
        return port_of(sock)


def sockets() -> set[str]:
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


def run(scenario: Callable[[], Awaitable[None]], *, complaints: int = 0) -> None:
    """Run a test's coroutine; no task, no socket and no complaint to the loop's handler may be left of it."""
    before = sockets()
    told: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
        async with asyncio.timeout(SAFETY):
            await scenario()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert len(told) == complaints, told
    assert sockets() <= before


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    version: str


class Wire:
    """A connection that sends raw bytes and reads answers. `async with Wire(port) as wire`."""

    def __init__(self, port: int, address: str = "127.0.0.1", buffer: int | None = None):
        self.sock = socket.socket()
        if buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.sock.setblocking(False)
        self._to = (address, port)
        self._got = b""

    @property
    def port(self) -> int:
        return port_of(self.sock)

    async def __aenter__(self) -> Wire:
        await asyncio.get_running_loop().sock_connect(self.sock, self._to)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.sock.close()

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    def end(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    @property
    def buffered(self) -> int:
        return len(self._got)

    async def more(self) -> bool:
        data = await asyncio.get_running_loop().sock_recv(self.sock, 65536)
        self._got += data
        return bool(data)

    async def rest(self) -> bytes:
        """Everything until the other side ends; a reset is an end too."""
        try:
            while await self.more():
                pass
        except ConnectionError:
            pass
        got, self._got = self._got, b""
        return got

    async def is_reset(self) -> bool:
        """Whether the connection ends by a reset, whatever came before."""
        try:
            while await self.more():
                pass
        except ConnectionResetError:
            return True
        return False

    async def line(self, mark: bytes = b"\r\n") -> bytes:
        while mark not in self._got:
            if not await self.more():
                raise EOFError(self._got)
        line, _, self._got = self._got.partition(mark)
        return line

    async def exactly(self, size: int) -> bytes:
        while len(self._got) < size:
            if not await self.more():
                raise EOFError(self._got)
        got, self._got = self._got[:size], self._got[size:]
        return got

    async def answer(self, *, body: bool = True) -> Answer:
        """The next answer; body is False for one to HEAD."""
        first, *lines = (await self.line(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        version, status, _ = first.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        content = await self._body(headers) if body and status not in ("100", "204", "304") else b""
        return Answer(int(status), headers, content, version)

    async def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            whole = b""
            while size := int(await self.line(), 16):
                whole += await self.exactly(size)
                await self.line()
            await self.line()
            return whole
        if "content-length" in headers:
            return await self.exactly(int(headers["content-length"]))
        return await self.rest()

    async def ask(self, text: str, *, body: bool = True) -> Answer:
        """Send a request given in lines, without their ends, and read the answer."""
        await self.send(lines(text))
        return await self.answer(body=body)


def lines(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n"


async def get(port: int, path: str = "/", *headers: str) -> Answer:
    """One GET on a connection of its own."""
    async with Wire(port) as wire:
        return await wire.ask("\n".join((f"GET {path} HTTP/1.1", "Host: lab", *headers)))


async def many(piece: bytes, times: int) -> AsyncIterator[bytes]:
    for _ in range(times):
        yield piece


REQUESTS = [
    lines("GET / HTTP/1.1\nHost: lab"),
    lines("HEAD / HTTP/1.0"),
    lines("POST / HTTP/1.1\nHost: lab\nContent-Length: 5") + b"hello",
    lines("POST / HTTP/1.1\nHost: lab\nTransfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n",
    lines("POST / HTTP/1.1\nHost: lab\nExpect: 100-continue\nContent-Length: 5") + b"hello",
    lines("GET / HTTP/1.1\nHost: lab\nUpgrade: websocket\nConnection: upgrade"),
    lines("CONNECT a:1 HTTP/1.1\nHost: a"),
]


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """One to three requests, cut, or with bytes replaced or put in; or nothing but bytes."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.binary(max_size=300))
    raw = bytearray(b"".join(draw(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=3))))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(raw)))
        raw[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=4))
    return bytes(raw[: draw(st.integers(0, len(raw)))] if draw(st.booleans()) else raw)
