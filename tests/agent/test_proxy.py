from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings

from harness.agent.headers import request_headers, response_headers
from harness.agent.proxy import Proxy
from harness.lab.http import ClientConnection, ExchangeFailed, Handler, Limits, Request, Response, Server, serve
from harness.msp.endpoints import Endpoint
from harness.program.maps import AuditRecord
from tests.loopback import Wire, closed_port, get, lines, listener, mangled, many, port_of, run, sockets, until

MEGABYTE = 1024 * 1024
NONCE = "5f3a"


async def tell(request: Request) -> Response:
    """Says what reached the endpoint."""
    body = b"".join([piece async for piece in request.body])
    told = [f"{request.method} {request.target}", *(f"{name}: {value}" for name, value in request.headers)]
    return Response(200, (("X-Peer", str(request.peer.port)),), "\n".join(told).encode() + b"\n" + body)


@dataclass
class Rig:
    """A proxy whose every client is written down as asking for one upstream."""

    port: int
    proxy: Proxy
    upstream: int
    record: AuditRecord | None
    looked_up: list[int] = field(default_factory=list)
    error: OSError | None = None

    def lookup(self, port: int) -> AuditRecord | None:
        self.looked_up.append(port)
        if self.error:
            raise self.error
        return self.record


@contextlib.asynccontextmanager
async def rig(
    handler: Handler = tell,
    *,
    root: bool = True,
    root_only: bool = True,
    limits: Limits | None = None,
    upstream: int | None = None,
    connect_seconds: float = 5,
    address: str = "127.0.0.2",
) -> AsyncIterator[Rig]:
    server: Server | None = None
    if upstream is None:
        behind = listener(address)
        upstream = port_of(behind)
        server = await serve(behind, handler)
    front = listener()
    record = AuditRecord(0 if root else 1000, 4711, root, address, upstream)
    endpoints = [Endpoint("behind", address, upstream, 6, root_only, "Behind")]
    made: list[Rig] = []
    proxy = Proxy(
        front,
        lambda port: made[0].lookup(port),
        NONCE,
        endpoints=endpoints,
        limits=limits,
        connect_seconds=connect_seconds,
        remember=1000,
    )
    made.append(Rig(port_of(front), proxy, upstream, record))
    await proxy.start()
    try:
        yield made[0]
    finally:
        await proxy.stop()
        if server:
            await server.stop()


def test_a_request_goes_to_where_the_client_meant_to_go() -> None:
    async def scenario() -> None:
        async with rig() as made, Wire(made.port) as wire:
            answer = await wire.ask("GET /a?b=c HTTP/1.1\nHost: 169.254.169.254\nMetadata: true")
            assert (answer.status, answer.headers["x-msp-harness-nonce"]) == (200, NONCE)
            assert answer.body == b"GET /a?b=c\nHost: 169.254.169.254\nMetadata: true\n"
            (connection,) = made.proxy.connections
            assert connection.client_port == wire.port
            assert connection.audit == made.record
            assert [(seen.method, seen.target, seen.status) for seen in connection.exchanges] == [
                ("GET", "/a?b=c", 200)
            ]

    run(scenario)


def test_one_connection_is_looked_up_once_and_has_one_upstream() -> None:
    async def scenario() -> None:
        async with rig() as made, Wire(made.port) as wire:
            peers = set()
            for number in range(3):
                peers.add((await wire.ask(f"GET /{number} HTTP/1.1\nHost: lab")).headers["x-peer"])
                made.record = None  # the map's entry is gone by now, as it may
            assert len(peers) == 1
            assert made.looked_up == [wire.port]

    run(scenario)


def test_two_connections_never_share_an_upstream() -> None:
    async def scenario() -> None:
        async with rig() as made, Wire(made.port) as one, Wire(made.port) as two:
            answers = [await wire.ask("GET / HTTP/1.1\nHost: lab") for wire in (one, two, one)]
            first, second, third = (answer.headers["x-peer"] for answer in answers)
            assert first == third != second

    run(scenario)


def test_an_unknown_source_port_is_misdirected() -> None:
    async def scenario() -> None:
        async with rig() as made:
            made.record = None
            answer = await get(made.port)
            assert (answer.status, answer.headers["x-msp-harness-nonce"]) == (421, NONCE)
            assert b"421 Misdirected Request" in answer.body
            assert made.proxy.connections[0].audit is None

    run(scenario)


def test_a_lookup_that_fails_is_said_and_recorded() -> None:
    async def scenario() -> None:
        async with rig() as made:
            made.error = OSError(errno.EPERM, "on purpose")
            answer = await get(made.port)
            assert answer.status == 500
            assert b"EPERM" in answer.body
            assert "EPERM" in made.proxy.connections[0].note

    run(scenario)


@pytest.mark.parametrize(
    ("root", "root_only", "status"), [(True, True, 200), (False, True, 403), (False, False, 200), (True, False, 200)]
)
def test_who_may_use_what(root: bool, root_only: bool, status: int) -> None:
    async def scenario() -> None:
        async with rig(root=root, root_only=root_only) as made, Wire(made.port) as wire:
            for _ in range(2):
                assert (await wire.ask("GET / HTTP/1.1\nHost: lab")).status == status
            assert [seen.status for seen in made.proxy.connections[0].exchanges] == [status, status]

    run(scenario)


def test_a_denied_upload_gets_its_answer() -> None:
    async def scenario() -> None:
        async with rig(root=False) as made, Wire(made.port) as wire:
            await wire.send(lines(f"PUT / HTTP/1.1\nHost: lab\nContent-Length: {4 * MEGABYTE}"))
            await wire.send(bytes(4 * MEGABYTE))
            answer = await wire.answer()
            assert answer.status == 403
            assert b"uid 1000 (pid 4711)" in answer.body

    run(scenario)


@pytest.mark.parametrize(
    ("line", "status", "reaches"),
    [
        ("GET http://evil.invalid:8080/a?b HTTP/1.1", 200, b"GET /a?b\n"),
        ("GET http://evil.invalid HTTP/1.1", 200, b"GET /\n"),
        ("OPTIONS * HTTP/1.1", 200, b"OPTIONS *\n"),
        ("GET evil.invalid:80 HTTP/1.1", 400, b""),
        ("CONNECT evil.invalid:80 HTTP/1.1", 405, b""),
    ],
)
def test_it_is_no_open_proxy(line: str, status: int, reaches: bytes) -> None:
    async def scenario() -> None:
        async with rig() as made, Wire(made.port) as wire:
            answer = await wire.ask(f"{line}\nHost: evil.invalid")
            assert answer.status == status
            assert made.proxy.connections[0].exchanges[0].status == status
            if reaches:
                assert answer.body == reaches + b"Host: evil.invalid\n"

    run(scenario)


def test_headers_of_the_hop_and_of_the_agent_are_dropped() -> None:
    sent = (
        ("Host", "lab"),
        ("Connection", "close, X-Mine, host"),
        ("X-Mine", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Upgrade", "h2c"),
        ("X-MS-Azure-Host-Claims", '{"isRoot": "true"}'),
        ("x-ms-azure-host-authorization", "forged"),
        ("Content-Length", "3"),
        ("X-Kept", "2"),
    )
    kept = (("Host", "lab"), ("Content-Length", "3"), ("X-Kept", "2"))
    assert request_headers(sent) == kept
    assert request_headers((("Transfer-Encoding", "chunked"), ("Content-Length", "3"))) == (
        ("Transfer-Encoding", "chunked"),
    )
    forged = (("x-msp-harness-nonce", "forged"), ("X-Kept", "2"), ("Transfer-Encoding", "chunked"))
    assert response_headers(forged) == (("X-Kept", "2"),)


def test_headers_are_dropped_on_the_way_too() -> None:
    async def scenario() -> None:
        async with rig() as made:
            answer = await get(made.port, "/", "x-ms-azure-host-claims: forged", "Connection: x-gone", "X-Gone: 1")
            assert answer.body == b"GET /\nHost: lab\n"

    run(scenario)


@pytest.mark.parametrize(
    ("framing", "body"), [("Content-Length: 5", b"hello"), ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n")]
)
def test_bodies_pass_in_both_framings(framing: str, body: bytes) -> None:
    async def scenario() -> None:
        async with rig() as made, Wire(made.port) as wire:
            for _ in range(2):
                await wire.send(lines(f"POST / HTTP/1.1\nHost: lab\n{framing}") + body)
                answer = await wire.answer()
                assert answer.body == f"POST /\nHost: lab\n{framing}\nhello".encode()

    run(scenario)


def test_head_http_1_0_and_100_continue_pass() -> None:
    async def scenario() -> None:
        async with rig() as made:
            async with Wire(made.port) as wire:
                head = await wire.ask("HEAD / HTTP/1.1\nHost: lab", body=False)
                assert head.headers["content-length"] == str(len("HEAD /\nHost: lab\n"))
                await wire.send(lines("PUT / HTTP/1.1\nHost: lab\nContent-Length: 2\nExpect: 100-continue"))
                assert (await wire.answer()).status == 100
                await wire.send(b"ok")
                assert (await wire.answer()).body.endswith(b"\nok")
            async with Wire(made.port) as old:
                await old.send(lines("GET / HTTP/1.0"))
                assert (await old.rest()).endswith(f"GET /\nHost: 127.0.0.2:{made.upstream}\n".encode())

    run(scenario)


def test_large_bodies_stream_both_ways_in_little_memory() -> None:
    size = 16 * MEGABYTE

    async def count(request: Request) -> Response:
        total = 0
        async for piece in request.body:
            total += len(piece)
        return Response(
            200, (("X-Total", str(total)), ("Content-Length", str(size))), many(bytes(65536), size // 65536)
        )

    async def scenario() -> None:
        async with rig(count) as made, Wire(made.port) as wire:
            tracemalloc.start()
            try:
                await wire.send(lines(f"PUT / HTTP/1.1\nHost: lab\nContent-Length: {size}"))
                for _ in range(size // 65536):
                    await wire.send(bytes(65536))
                assert f"X-Total: {size}".encode() in await wire.line(b"\r\n\r\n")
                got = wire.buffered
                while got < size:
                    got += len(await asyncio.get_running_loop().sock_recv(wire.sock, 65536))
                assert tracemalloc.get_traced_memory()[1] < 4 * MEGABYTE
            finally:
                tracemalloc.stop()

    run(scenario)


def test_an_answer_may_come_while_the_request_is_still_sent() -> None:
    async def mirror(request: Request) -> Response:
        return Response(200, body=request.body)

    async def scenario() -> None:
        async with rig(mirror) as made, Wire(made.port) as wire:
            await wire.send(lines("POST / HTTP/1.1\nHost: lab\nTransfer-Encoding: chunked"))
            await wire.send(b"3\r\none\r\n")
            await wire.line(b"\r\n\r\n")
            assert (await wire.line(), await wire.line()) == (b"3", b"one")
            await wire.send(b"3\r\ntwo\r\n0\r\n\r\n")
            assert await wire.exactly(13) == b"3\r\ntwo\r\n0\r\n\r\n"

    run(scenario)


def test_an_endpoint_that_answers_without_reading_the_body_is_heard() -> None:
    async def refuse(request: Request) -> Response:
        return Response(413, body=b"too much")

    async def scenario() -> None:
        async with rig(refuse) as made, Wire(made.port) as wire:
            await wire.send(lines(f"PUT / HTTP/1.1\nHost: lab\nContent-Length: {8 * MEGABYTE}"))
            with contextlib.suppress(ConnectionError):
                await wire.send(bytes(8 * MEGABYTE))
            assert (await wire.answer()).status == 413
            assert (await get(made.port)).status == 413

    run(scenario)


def test_after_an_answer_to_half_a_request_the_connection_ends() -> None:
    async def refuse(request: Request) -> Response:
        return Response(413, body=b"too much")

    async def scenario() -> None:
        async with rig(refuse, limits=Limits(linger=1000)) as made, Wire(made.port) as wire:
            await wire.send(lines("PUT / HTTP/1.1\nHost: lab\nContent-Length: 9") + b"half")
            answer = await wire.answer()
            assert (answer.status, answer.headers["connection"]) == (413, "close")
            assert await wire.rest() == b""

    run(scenario)


def test_the_last_words_of_an_endpoint_that_takes_no_more_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(client: ClientConnection, piece: bytes) -> None:
        raise ExchangeFailed("send", "EPIPE")

    async def scenario() -> None:
        monkeypatch.setattr(ClientConnection, "send_piece", full)
        async with scripted(OK, b"") as (upstream, _), rig(upstream=upstream) as made, Wire(made.port) as wire:
            await wire.send(lines("PUT / HTTP/1.1\nHost: lab\nContent-Length: 4") + b"body")
            assert (await wire.answer()).status == 200
            await wire.send(lines("PUT / HTTP/1.1\nHost: lab\nContent-Length: 4") + b"body")
            answer = await wire.answer()
            assert (answer.status, answer.body) == (502, b"cannot send: EPIPE\n")

    run(scenario)


def test_an_endpoint_where_nobody_listens_is_a_bad_gateway() -> None:
    async def scenario() -> None:
        async with rig(upstream=closed_port()) as made, Wire(made.port) as wire:
            for _ in range(2):
                answer = await wire.ask("GET / HTTP/1.1\nHost: lab")
                assert (answer.status, answer.headers["x-msp-harness-nonce"]) == (502, NONCE)
                assert b"ECONNREFUSED" in answer.body
            assert "ECONNREFUSED" in made.proxy.connections[0].exchanges[0].note

    run(scenario)


def test_an_endpoint_that_is_silent_is_a_gateway_timeout() -> None:
    async def scenario() -> None:
        quick = Limits(stall=0.05)
        with listener("127.0.0.2") as silent:
            async with rig(upstream=port_of(silent), limits=quick) as made:
                assert (await get(made.port)).status == 504

    run(scenario)


def test_an_endpoint_that_does_not_accept_is_a_gateway_timeout() -> None:
    async def scenario() -> None:
        with socket.socket() as full, contextlib.ExitStack() as stack:
            full.bind(("127.0.0.2", 0))
            full.listen(0)
            for _ in range(4):  # the queue of those that wait to be accepted; later SYNs are dropped
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(full.getsockname())
            async with rig(upstream=port_of(full), connect_seconds=0.05) as made:
                answer = await get(made.port)
                assert answer.status == 504
                assert b"cannot connect" in answer.body

    run(scenario)


@contextlib.asynccontextmanager
async def scripted(*answers: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """An endpoint whose connections send one answer each, to the first request, and end."""
    rest, got = list(answers), list[bytes]()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            got.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(rest.pop(0))
            await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(talk, "127.0.0.2", 0)
    try:
        yield port_of(server.sockets[0]), got
    finally:
        server.close()
        await server.wait_closed()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize("sent", [b"", b"SSH-2.0\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\n\r\n"])
def test_an_endpoint_that_speaks_no_http_is_a_bad_gateway(sent: bytes) -> None:
    async def scenario() -> None:
        async with scripted(sent, OK) as (upstream, _), rig(upstream=upstream) as made, Wire(made.port) as wire:
            assert (await wire.ask("GET / HTTP/1.1\nHost: lab")).status == 502
            assert (await wire.ask("GET / HTTP/1.1\nHost: lab")).status == 200

    run(scenario)


@pytest.mark.parametrize("framing", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
def test_an_endpoint_that_hangs_up_in_mid_body_is_seen_by_the_client(framing: bytes) -> None:
    async def scenario() -> None:
        cut = b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n4\r\nhalf"
        async with scripted(cut) as (upstream, _), rig(upstream=upstream) as made, Wire(made.port) as wire:
            await wire.send(lines("GET / HTTP/1.1\nHost: lab"))
            assert await wire.is_reset()
            await until(lambda: made.proxy.connections[0].closed)
            assert "hung up" in made.proxy.connections[0].exchanges[0].note

    run(scenario)


def test_an_idle_upstream_that_ended_is_replaced() -> None:
    async def scenario() -> None:
        async with scripted(OK, OK, OK) as (upstream, got), rig(upstream=upstream) as made, Wire(made.port) as wire:
            for _ in range(3):
                assert (await wire.ask("GET / HTTP/1.1\nHost: lab")).body == b"ok"
            assert len(got) == 3

    run(scenario)


@pytest.mark.parametrize(
    ("method", "status", "reached"), [("GET", 200, ["GET", "GET", "GET"]), ("POST", 502, ["GET", "POST"])]
)
def test_only_what_changes_nothing_is_sent_again(method: str, status: int, reached: list[str]) -> None:
    """The endpoint ends the connection just when it is used again, with the second request already read."""
    got: list[str] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while len(got) < 3:
            got.append((await reader.readuntil(b"\r\n\r\n")).split(b" ")[0].decode())
            if len(got) == 2:
                break
            writer.write(OK)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def scenario() -> None:
        server = await asyncio.start_server(talk, "127.0.0.2", 0)
        async with rig(upstream=port_of(server.sockets[0])) as made, Wire(made.port) as wire:
            assert (await wire.ask("GET / HTTP/1.1\nHost: lab")).status == 200
            assert (await wire.ask(f"{method} / HTTP/1.1\nHost: lab")).status == status
        assert got == reached
        server.close()
        await server.wait_closed()

    run(scenario)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HT",
        lines("GET / HTTP/1.1\nHost: lab"),
        lines("POST / HTTP/1.1\nHost: lab\nContent-Length: 9") + b"half",
        lines("POST / HTTP/1.1\nHost: lab\nTransfer-Encoding: chunked") + b"5\r\nha",
        lines("POST / HTTP/1.1\nHost: lab\nTransfer-Encoding: chunked") + b"zz\r\n",
    ],
)
@pytest.mark.parametrize("reset", [False, True])
def test_clients_may_hang_up_anywhere(sent: bytes, reset: bool) -> None:
    async def scenario() -> None:
        async with rig() as made:
            async with Wire(made.port) as wire:
                await wire.send(sent)
                await until(lambda: made.proxy.open_connections == 1)
                if reset:
                    wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await until(lambda: made.proxy.open_connections == 0)
            assert (await get(made.port)).status == 200

    run(scenario)


def test_a_client_that_left_its_request_unfinished_is_recorded() -> None:
    async def scenario() -> None:
        async with rig() as made:
            async with Wire(made.port) as wire:
                await wire.send(lines("POST /half HTTP/1.1\nHost: lab\nContent-Length: 9") + b"half")
                await until(lambda: made.proxy.open_connections == 1)
            await until(lambda: made.proxy.open_connections == 0)
            (exchange,) = made.proxy.connections[0].exchanges
            assert (exchange.target, exchange.status) == ("/half", None)
            assert "hung up" in exchange.note

    run(scenario)


def test_a_client_that_leaves_a_long_answer_ends_the_upstream_too() -> None:
    async def scenario() -> None:
        ended = asyncio.Event()

        async def forever() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield bytes(65536)
            finally:
                ended.set()

        async def handler(request: Request) -> Response:
            return Response(200, body=forever())

        async with rig(handler) as made:
            async with Wire(made.port) as wire:
                await wire.send(lines("GET / HTTP/1.1\nHost: lab"))
                await wire.line(b"\r\n\r\n")
            await ended.wait()
            await until(lambda: made.proxy.open_connections == 0)

    run(scenario)


def test_a_silent_client_is_let_go() -> None:
    async def scenario() -> None:
        async with rig(limits=Limits(idle=0.05, linger=0.05)) as made, Wire(made.port) as wire:
            assert await wire.rest() == b""
            await until(lambda: made.proxy.open_connections == 0)
            assert made.proxy.connections[0].closed

    run(scenario)


def test_more_than_two_hundred_clients_at_once() -> None:
    async def scenario() -> None:
        async with rig() as made, contextlib.AsyncExitStack() as stack:
            wires = [await stack.enter_async_context(Wire(made.port)) for _ in range(220)]
            await asyncio.gather(*(wire.send(lines(f"GET /{wire.port} HTTP/1.1\nHost: lab")) for wire in wires))
            for wire in wires:
                assert (await wire.answer()).body.startswith(f"GET /{wire.port}\n".encode())
            assert made.proxy.open_connections == 220
            by_port = {connection.client_port: connection for connection in made.proxy.connections}
            assert all(by_port[wire.port].exchanges[0].target == f"/{wire.port}" for wire in wires)

    run(scenario)


def test_stop_leaves_nothing_of_connections_in_any_state() -> None:
    async def scenario() -> None:
        started = asyncio.Event()

        async def forever(request: Request) -> Response:
            started.set()
            await asyncio.Event().wait()
            raise AssertionError

        async with rig(forever) as made, Wire(made.port), Wire(made.port) as uploading, Wire(made.port) as waiting:
            await uploading.send(lines("POST / HTTP/1.1\nHost: lab\nContent-Length: 9") + b"half")
            await waiting.send(lines("GET / HTTP/1.1\nHost: lab"))
            await started.wait()
            await until(lambda: made.proxy.open_connections == 3)
            await made.proxy.stop()
            assert made.proxy.open_connections == 0

    run(scenario)


def test_after_any_rubbish_the_next_request_is_answered() -> None:
    before = sockets()
    with asyncio.Runner() as runner:
        told: list[object] = []
        runner.get_loop().set_exception_handler(lambda loop, context: told.append(context))
        stack = contextlib.AsyncExitStack()
        quick = Limits(idle=0.1, head=0.1, stall=0.1, linger=0.1)
        made = runner.run(stack.enter_async_context(rig(limits=quick)))

        @settings(max_examples=100, deadline=None)
        @given(mangled())
        def check(sent: bytes) -> None:
            async def example() -> None:
                async with asyncio.timeout(10):
                    async with Wire(made.port) as wire:
                        with contextlib.suppress(OSError):
                            await wire.send(sent)
                            wire.end()
                        got = await wire.rest()
                        assert not got or got.startswith(b"HTTP/1.1 ")
                    assert (await get(made.port)).status == 200

            runner.run(example())

        try:
            check()
        finally:
            runner.run(stack.aclose())
        assert told == []
    assert sockets() <= before


RULES: Sequence[tuple[str, int]] = [("/allowed", 200), ("/denied", 403)]


@pytest.mark.parametrize(("path", "status"), RULES)
def test_a_rule_of_another_kind_can_stand_in(path: str, status: int) -> None:
    def by_path(audit: AuditRecord, endpoint: Endpoint, request: Request) -> str | None:
        return "not this path" if request.target == "/denied" else None

    async def scenario() -> None:
        async with rig(root=False) as made:
            made.proxy.rule = by_path
            assert (await get(made.port, path)).status == status

    run(scenario)
