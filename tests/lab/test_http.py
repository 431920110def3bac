from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import tracemalloc
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.lab.http import (
    ClientConnection,
    ExchangeFailed,
    Limits,
    Peer,
    Request,
    Response,
    Server,
    Session,
    origin_form,
    serve,
)
from tests.loopback import Wire, closed_port, get, lines, listener, mangled, many, port_of, run, sockets, until

MEGABYTE = 1024 * 1024
QUICK = Limits(idle=0.05, head=0.05, stall=0.05, linger=0.05)


async def echo(request: Request) -> Response:
    """Says what it got; reads the whole body first."""
    body = b"".join([piece async for piece in request.body])
    return Response(200, (("X-Target", request.target),), request.method.encode() + b" " + body)


@contextlib.asynccontextmanager
async def echo_server(limits: Limits | None = None) -> AsyncIterator[tuple[int, Server]]:
    sock = listener()
    port = port_of(sock)
    server = await serve(sock, echo, limits=limits)
    try:
        yield port, server
    finally:
        await server.stop()


def test_a_connection_carries_one_request_after_another() -> None:
    async def scenario() -> None:
        async with echo_server() as (port, server), Wire(port) as wire:
            for path in ("/a", "/b"):
                answer = await wire.ask(f"GET {path} HTTP/1.1\nHost: lab")
                assert (answer.status, answer.headers["x-target"]) == (200, path)
                assert server.connections == 1

    run(scenario)


def test_pipelined_requests_are_answered_in_their_order() -> None:
    async def scenario() -> None:
        async with echo_server() as (port, _), Wire(port) as wire:
            post = lines("POST /2 HTTP/1.1\nHost: lab\nContent-Length: 4") + b"body"
            await wire.send(lines("GET /1 HTTP/1.1\nHost: lab") + post + lines("GET /3 HTTP/1.1\nHost: lab"))
            answers = [await wire.answer() for _ in range(3)]
            assert [answer.headers["x-target"] for answer in answers] == ["/1", "/2", "/3"]
            assert answers[1].body == b"POST body"

    run(scenario)


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        ("Content-Length: 5", b"hello"),
        ("Transfer-Encoding: chunked", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", b"5;ext=1\r\nhello\r\n0\r\nTrailer: x\r\n\r\n"),
    ],
)
def test_bodies_come_by_length_and_in_chunks(framing: str, body: bytes) -> None:
    async def scenario() -> None:
        async with echo_server() as (port, _), Wire(port) as wire:
            await wire.send(lines(f"PUT / HTTP/1.1\nHost: lab\n{framing}"))
            for byte in body:
                await wire.send(bytes([byte]))
            assert (await wire.answer()).body == b"PUT hello"
            assert (await wire.ask("GET / HTTP/1.1\nHost: lab")).body == b"GET "

    run(scenario)


def test_head_gets_the_length_and_no_body() -> None:
    async def scenario() -> None:
        async with echo_server() as (port, _), Wire(port) as wire:
            answer = await wire.ask("HEAD / HTTP/1.1\nHost: lab", body=False)
            assert answer.headers["content-length"] == "5"
            assert (await wire.ask("GET / HTTP/1.1\nHost: lab")).body == b"GET "

    run(scenario)


@pytest.mark.parametrize(
    ("version", "expected"), [("1.0", b"\r\n\r\nxx"), ("1.1", b"\r\n\r\n1\r\nx\r\n1\r\nx\r\n0\r\n\r\n")]
)
def test_a_streamed_answer_is_chunked_except_for_http_1_0(version: str, expected: bytes) -> None:
    async def streamed(request: Request) -> Response:
        return Response(200, body=many(b"x", 2))

    async def scenario() -> None:
        sock = listener()
        async with Wire(port_of(sock)) as wire:
            server = await serve(sock, streamed)
            await wire.send(lines(f"GET / HTTP/{version}\nHost: lab\nConnection: close"))
            assert (await wire.rest()).endswith(expected)
            await server.stop()

    run(scenario)


def test_100_continue_is_sent_when_the_body_is_wanted() -> None:
    async def scenario() -> None:
        async with echo_server() as (port, _), Wire(port) as wire:
            await wire.send(lines("POST / HTTP/1.1\nHost: lab\nContent-Length: 2\nExpect: 100-continue"))
            assert (await wire.answer()).status == 100
            await wire.send(b"ok")
            assert (await wire.answer()).body == b"POST ok"

    run(scenario)


def test_without_100_continue_the_connection_ends_with_the_answer() -> None:
    async def refuse(request: Request) -> Response:
        return Response(403)

    async def scenario() -> None:
        sock = listener()
        async with Wire(port_of(sock)) as wire:
            server = await serve(sock, refuse)
            await wire.send(lines("POST / HTTP/1.1\nHost: lab\nContent-Length: 2\nExpect: 100-continue"))
            answer = await wire.answer()
            assert (answer.status, answer.headers["connection"]) == (403, "close")
            assert await wire.rest() == b""
            await server.stop()

    run(scenario)


def test_a_client_that_ended_its_side_gets_its_answer() -> None:
    async def scenario() -> None:
        async with echo_server() as (port, _), Wire(port) as wire:
            await wire.send(lines("GET /half HTTP/1.1\nHost: lab"))
            wire.end()
            assert (await wire.answer()).headers["x-target"] == "/half"
            assert await wire.rest() == b""

    run(scenario)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"rubbish\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # a TLS hello
        (lines("GET / HTTP/1.1"), 400),  # no Host
        (lines("GET / HTTP/1.1\nHost: a\nHost: b"), 400),
        (lines("GET / HTTP/1.1\nHost: lab\nContent-Length: 1\nContent-Length: 2"), 400),
        (lines("GET / HTTP/1.1\nHost: lab\nContent-Length: -1"), 400),
        (lines("GET / HTTP/1.1\nHost: lab\nTransfer-Encoding: gzip"), 501),
        (lines("GET / HTTP/1.1\nHost: lab\nX: " + "x" * 20000), 431),
        (lines("POST / HTTP/1.1\nHost: lab\nTransfer-Encoding: chunked") + b"zz\r\n", 400),
        (lines("CONNECT other:80 HTTP/1.1\nHost: lab"), 405),
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_closed(sent: bytes, status: int) -> None:
    async def scenario() -> None:
        async with echo_server(Limits(linger=1000)) as (port, _):
            async with Wire(port) as wire:
                await wire.send(sent)
                assert (await wire.answer()).status == status
                if status != 405:
                    assert await wire.rest() == b""
            assert (await get(port)).status == 200

    run(scenario)


def test_half_a_request_and_no_more_is_refused_too() -> None:
    async def scenario() -> None:
        async with echo_server() as (port, _), Wire(port) as wire:
            await wire.send(b"GET / HT")
            wire.end()
            assert (await wire.answer()).status == 400

    run(scenario)


def test_headers_just_short_enough_are_taken() -> None:
    async def scenario() -> None:
        async with echo_server() as (port, _):
            assert (await get(port, "/", "X: " + "x" * 16000)).status == 200
            assert (await get(port, "/", "X: " + "x" * 16400)).status == 431

    run(scenario)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"", b""),
        (b"GET / HT", b"HTTP/1.1 408 "),
        (lines("POST / HTTP/1.1\nHost: lab\nContent-Length: 9") + b"part", b""),
    ],
)
def test_a_client_that_falls_silent_is_let_go(sent: bytes, expected: bytes) -> None:
    async def scenario() -> None:
        async with echo_server(QUICK) as (port, server), Wire(port) as wire:
            await wire.send(sent)
            got = await wire.rest()
            assert got.startswith(expected)
            assert bool(got) == bool(expected)
            await until(lambda: server.connections == 0)

    run(scenario)


def test_headers_that_only_trickle_are_not_waited_for() -> None:
    async def scenario() -> None:
        async with echo_server(Limits(head=0.1)) as (port, _), Wire(port) as wire:

            async def trickle() -> None:
                with contextlib.suppress(ConnectionError):
                    await wire.send(b"GET / HTTP/1.1\r\nX: ")
                    while True:
                        await wire.send(b"x")
                        await asyncio.sleep(0.01)

            sending = asyncio.create_task(trickle())
            assert (await wire.answer()).status == 408
            sending.cancel()
            await asyncio.wait({sending})

    run(scenario)


def test_a_busy_connection_lets_the_others_run() -> None:
    """Neither reading what is there already nor writing where there is room may keep the loop."""
    turned: list[str] = []

    async def handler(request: Request) -> Response:
        pieces = 0
        async for _ in request.body:
            pieces += 1
            if pieces == 1:
                asyncio.get_running_loop().call_soon(turned.append, "read")
        assert pieces > 2
        assert turned == ["read"]
        return Response(200, body=answer())

    async def answer() -> AsyncIterator[bytes]:
        asyncio.get_running_loop().call_soon(turned.append, "write")
        for _ in range(3):
            yield b"x"
        assert turned == ["read", "write"]

    async def scenario() -> None:
        sock = listener()
        async with Wire(port_of(sock)) as wire:
            await wire.send(lines("POST / HTTP/1.1\nHost: lab\nContent-Length: 300000") + bytes(300000))
            server = await serve(sock, handler)
            assert (await wire.answer()).body == b"xxx"
            await server.stop()

    run(scenario)


def test_a_session_that_cannot_be_opened_costs_only_its_connection() -> None:
    async def scenario() -> None:
        def refuse(peer: Peer) -> Session:
            raise RuntimeError("on purpose")

        sock = listener()
        port = port_of(sock)
        server = Server(sock, refuse)
        await server.start()
        for _ in range(2):
            async with Wire(port) as wire:
                assert await wire.rest() == b""
        await server.stop()

    run(scenario, complaints=2)


def test_a_client_that_does_not_read_is_let_go() -> None:
    async def flood(request: Request) -> Response:
        return Response(200, body=many(bytes(65536), 1000))

    async def scenario() -> None:
        sock = listener()
        async with Wire(port_of(sock), buffer=4096) as wire:
            server = await serve(sock, flood, limits=QUICK)
            await wire.send(lines("GET / HTTP/1.1\nHost: lab"))
            await until(lambda: server.connections == 1)
            await until(lambda: server.connections == 0)
            assert not (await wire.rest()).endswith(b"0\r\n\r\n")
            await server.stop()

    run(scenario)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET",
        lines("POST / HTTP/1.1\nHost: lab\nContent-Length: 9") + b"part",
        lines("POST / HTTP/1.1\nHost: lab\nTransfer-Encoding: chunked") + b"5\r\nab",
        lines("GET / HTTP/1.1\nHost: lab"),
    ],
)
def test_clients_may_hang_up_anywhere(sent: bytes, reset: bool) -> None:
    async def scenario() -> None:
        async with echo_server() as (port, server):
            async with Wire(port) as wire:
                await wire.send(sent)
                await until(lambda: server.connections == 1)
                if reset:
                    wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await until(lambda: server.connections == 0)
            assert (await get(port)).status == 200

    run(scenario)


def test_an_unread_small_body_does_not_cost_the_connection_a_large_one_does() -> None:
    async def refuse(request: Request) -> Response:
        return Response(403, body=b"no")

    async def scenario() -> None:
        sock = listener()
        async with Wire(port_of(sock)) as wire:
            server = await serve(sock, refuse)
            await wire.send(lines("POST / HTTP/1.1\nHost: lab\nContent-Length: 4") + b"body")
            assert (await wire.answer()).body == b"no"
            await wire.send(lines(f"POST / HTTP/1.1\nHost: lab\nContent-Length: {32 * MEGABYTE}"))
            await wire.send(bytes(32 * MEGABYTE))  # the whole of it: a client that reads only afterwards
            assert (await wire.answer()).status == 403
            assert await wire.rest() == b""
            await server.stop()

    run(scenario)


def test_an_error_of_the_handler_is_answered_and_told() -> None:
    async def fail(request: Request) -> Response:
        raise RuntimeError("on purpose")

    async def scenario() -> None:
        sock = listener()
        port = port_of(sock)
        server = await serve(sock, fail)
        answer = await get(port)
        assert answer.status == 500
        assert b"on purpose" in answer.body
        await server.stop()

    run(scenario, complaints=1)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_answer_that_breaks_off_cannot_be_taken_for_a_whole_one(version: str) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"part"
        raise RuntimeError("on purpose")

    async def handler(request: Request) -> Response:
        return Response(200, body=broken())

    async def scenario() -> None:
        sock = listener()
        async with Wire(port_of(sock)) as wire:
            server = await serve(sock, handler)
            await wire.send(lines(f"GET / HTTP/{version}\nHost: lab"))
            assert await wire.is_reset()
            await server.stop()

    run(scenario)


def test_a_body_that_goes_bad_while_it_is_mirrored_breaks_the_answer_off() -> None:
    async def mirror(request: Request) -> Response:
        return Response(200, body=request.body)

    async def scenario() -> None:
        sock = listener()
        async with Wire(port_of(sock)) as wire:
            server = await serve(sock, mirror)
            await wire.send(lines("POST / HTTP/1.1\nHost: lab\nTransfer-Encoding: chunked") + b"2\r\nok\r\nzz\r\n")
            assert await wire.is_reset()
            await server.stop()

    run(scenario)


def test_the_generator_of_an_answer_is_closed_when_the_client_leaves() -> None:
    async def scenario() -> None:
        ended = asyncio.Event()

        async def forever() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield bytes(65536)
            finally:
                ended.set()

        kept = forever()  # a reference, so that it is not the garbage collector that ends it

        async def handler(request: Request) -> Response:
            return Response(200, body=kept)

        sock = listener()
        server = await serve(sock, handler)
        async with Wire(port_of(sock)) as wire:
            await wire.send(lines("GET / HTTP/1.1\nHost: lab"))
            await wire.line(b"\r\n\r\n")
        await ended.wait()
        await server.stop()

    run(scenario)


def test_large_bodies_stream_both_ways_in_little_memory() -> None:
    size = 24 * MEGABYTE

    async def count(request: Request) -> Response:
        total = 0
        async for piece in request.body:
            total += len(piece)
        return Response(200, (("X-Total", str(total)),), many(bytes(MEGABYTE), size // MEGABYTE))

    async def scenario() -> None:
        sock = listener()
        async with Wire(port_of(sock)) as wire:
            server = await serve(sock, count)
            await wire.send(lines(f"POST / HTTP/1.1\nHost: lab\nContent-Length: {size}"))
            tracemalloc.start()
            try:
                piece = bytes(MEGABYTE)
                for _ in range(size // MEGABYTE):
                    await wire.send(piece)
                head = await wire.line(b"\r\n\r\n")
                assert f"X-Total: {size}".encode() in head
                got = wire.buffered
                while got < size:  # more than the body, by the chunks' own bytes
                    got += len(await asyncio.get_running_loop().sock_recv(wire.sock, 65536))
                assert tracemalloc.get_traced_memory()[1] < 6 * MEGABYTE
            finally:
                tracemalloc.stop()
            await server.stop()

    run(scenario)


def test_connections_over_the_limit_wait() -> None:
    async def scenario() -> None:
        async with (
            echo_server(Limits(connections=2)) as (port, server),
            Wire(port) as first,
            Wire(port) as second,
            Wire(port) as third,
        ):
            for wire in (first, second):
                assert (await wire.ask("GET / HTTP/1.1\nHost: lab")).status == 200
            await third.send(lines("GET /third HTTP/1.1\nHost: lab"))
            assert (await first.ask("GET / HTTP/1.1\nHost: lab")).status == 200
            assert server.connections == 2
            first.sock.close()
            assert (await third.answer()).headers["x-target"] == "/third"

    run(scenario)


def test_an_accept_that_fails_is_tried_again_but_not_at_once() -> None:
    class Stingy(socket.socket):
        calls = 0
        turned = False  # the loop has run something else since the first call

        def accept(self) -> tuple[socket.socket, tuple[str, int]]:
            self.calls += 1
            if self.calls == 1:
                asyncio.get_running_loop().call_soon(setattr, self, "turned", True)
                raise OSError(errno.EMFILE, "on purpose")
            assert self.turned
            if self.calls == 2:
                raise OSError(errno.ECONNABORTED, "on purpose")
            return super().accept()

    async def scenario() -> None:
        sock = listener(kind=Stingy)
        port = port_of(sock)
        server = await serve(sock, echo)
        assert (await get(port)).status == 200
        assert isinstance(sock, Stingy)
        assert sock.calls > 2
        await server.stop()

    run(scenario)


def test_stop_ends_every_connection_in_whatever_state() -> None:
    started = asyncio.Event()

    async def forever(request: Request) -> Response:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def scenario() -> None:
        sock = listener()
        port = port_of(sock)
        server = await serve(sock, forever)
        async with Wire(port), Wire(port) as partial, Wire(port) as waiting:
            await partial.send(b"GET")
            await waiting.send(lines("GET / HTTP/1.1\nHost: lab"))
            await started.wait()
            await until(lambda: server.connections == 3)
            await server.stop()
            await server.stop()
            assert await waiting.rest() == b""
        assert server.connections == 0

    run(scenario)


def test_two_hundred_connections_at_once() -> None:
    async def scenario() -> None:
        async with echo_server() as (port, server), contextlib.AsyncExitStack() as stack:
            wires = [await stack.enter_async_context(Wire(port)) for _ in range(220)]
            await asyncio.gather(*(wire.send(lines("GET / HTTP/1.1\nHost: lab")) for wire in wires))
            assert {answer.status for answer in await asyncio.gather(*(wire.answer() for wire in wires))} == {200}
            assert server.connections == 220

    run(scenario)


def test_after_any_rubbish_the_next_request_is_answered() -> None:
    before = sockets()
    with asyncio.Runner() as runner:
        told: list[object] = []
        runner.get_loop().set_exception_handler(lambda loop, context: told.append(context))
        sock = listener()
        port = port_of(sock)

        async def start() -> Server:
            return await serve(sock, echo, limits=Limits(idle=0.1, head=0.1, stall=0.1, linger=0.1))

        server = runner.run(start())

        @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(mangled(), st.booleans(), st.booleans())
        def check(sent: bytes, ends: bool, reads: bool) -> None:
            async def example() -> None:
                async with asyncio.timeout(10):
                    async with Wire(port) as wire:
                        with contextlib.suppress(ConnectionError):
                            await wire.send(sent)
                        if ends:
                            with contextlib.suppress(OSError):
                                wire.end()
                            got = await wire.rest() if reads else b""
                            assert not got or got.startswith(b"HTTP/1.1 ")
                    assert (await get(port)).status == 200

            runner.run(example())

        try:
            check()
        finally:
            runner.run(server.stop())
        assert told == []
    assert sockets() <= before


# The client


@contextlib.asynccontextmanager
async def scripted(*answers: bytes) -> AsyncIterator[int]:
    """A server that reads once and sends, then ends, a connection for each answer."""
    rest = list(answers)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(rest.pop(0))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield port_of(server.sockets[0])
    finally:
        server.close()
        await server.wait_closed()


async def fetch(port: int, limits: Limits | None = None) -> tuple[int, bytes]:
    client = await ClientConnection.open("127.0.0.1", port, limits=limits or Limits(), seconds=5)
    try:
        await client.send("GET", "/", (("Host", "lab"),))
        await client.send_end()
        response = await client.receive()
        assert not isinstance(response.body, bytes)
        return response.status, b"".join([piece async for piece in response.body])
    finally:
        client.close()


@pytest.mark.parametrize(
    ("sent", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok"),
        (b"HTTP/1.0 200 OK\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    ],
)
def test_the_client_reads_every_framing(sent: bytes, body: bytes) -> None:
    async def scenario() -> None:
        async with scripted(sent) as port:
            assert await fetch(port) == (200, body)

    run(scenario)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"", "hung up before"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", "hung up before"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "cannot read the answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70000, "cannot read the answer"),
    ],
)
def test_the_client_says_what_a_server_did(sent: bytes, said: str) -> None:
    async def scenario() -> None:
        async with scripted(sent) as port:
            with pytest.raises(ExchangeFailed, match=said):
                await fetch(port)

    run(scenario)


def test_the_client_says_that_nobody_listens_or_answers() -> None:
    async def scenario() -> None:
        with pytest.raises(ExchangeFailed, match="ECONNREFUSED") as refused:
            await fetch(closed_port())
        assert not refused.value.timed_out
        with listener() as silent, pytest.raises(ExchangeFailed, match=r"sent nothing for 0\.05 s") as late:
            await fetch(port_of(silent), QUICK)
        assert late.value.timed_out

    run(scenario)


def test_the_client_knows_when_a_connection_can_be_used_again() -> None:
    async def scenario() -> None:
        async with echo_server() as (port, server):
            client = await ClientConnection.open("127.0.0.1", port, limits=Limits(), seconds=5)
            for _ in range(2):
                assert client.ready()
                await client.send("GET", "/", (("Host", "lab"),))
                await client.send_end()
                assert not client.ready()
                response = await client.receive()
                assert not client.ready()
                assert not isinstance(response.body, bytes)
                assert [piece async for piece in response.body] == [b"GET "]
            await server.stop()
            assert not client.ready()
            client.close()

    run(scenario)


@pytest.mark.parametrize(
    ("target", "form"),
    [
        ("/a?b", "/a?b"),
        ("*", "*"),
        ("http://other/a?b", "/a?b"),
        ("HTTP://other", "/"),
        ("http://other?b=/c", "/?b=/c"),
        ("//other/a", "//other/a"),
        ("other:80", None),
        ("ftp://other/a", None),
    ],
)
def test_origin_form(target: str, form: str | None) -> None:
    assert origin_form(target) == form
