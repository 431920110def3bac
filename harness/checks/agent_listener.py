"""An agent's listener from a client's side: what a penetration test tries, each a check of its own.

What counts is what reaches the platform or another host, not the status of an answer: an agent may refuse in its own
way. After each attack a well-behaved client must still be answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.checks.agent_steps import Watch
from harness.checks.agent_traffic import (
    REFUSED,
    allowed,
    ask_all,
    marked,
    marker,
    nothing_redirected,
    parse_claims,
    port,
)
from harness.checks.results import Findings
from harness.lab import topology
from harness.lab.clients import NOBODY, PATHS, Request, Seen
from harness.msp import codes, signature
from harness.msp.endpoints import IMDS, PROXY, WIRESERVER, Endpoint
from harness.report import Json, Outcome, Result

PATIENCE = 5.0  # seconds that a raw client waits for an answer
CROWD = 200  # connections at once
HELD = 50  # connections that never end their headers
FORGED_ID = "4242"

ATTACKS: Sequence[tuple[str, str]] = (
    ("no HTTP at all", "\x00\x01\x02\xff\r\n\r\n"),
    ("an unknown version", "GET / HTTP/9.9\r\nHost: x\r\n\r\n"),
    ("no target", "GET\r\n\r\n"),
    ("a header without a name", "GET / HTTP/1.1\r\nHost: x\r\n: value\r\n\r\n"),
    ("a NUL in a header", "GET / HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n"),
    ("a bare line feed before a header", "GET / HTTP/1.1\nHost: x\n evil: y\n\n"),
    ("headers of 256 KiB", "GET / HTTP/1.1\r\nHost: x\r\nA: " + "a" * (256 << 10) + "\r\n\r\n"),
    ("10,000 headers", "GET / HTTP/1.1\r\nHost: x\r\n" + "A: b\r\n" * 10_000 + "\r\n"),
    ("a target of 64 KiB", "GET /" + "a" * (64 << 10) + " HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("two lengths", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
    ("a length that is none", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"),
    ("a length beyond 64 bits", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n"),
    ("a chunk size that is none",
     "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nhello\r\n0\r\n\r\n"),
    ("a chunk size that overflows",
     "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n"),
    ("an unfinished request", "GET / HTTP/1.1\r\nHost: x\r\nA: "),
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    name: str
    title: str
    function: Callable[[Watch, Row], Iterator[Result]]
    redirected: bool = True  # whether it needs an endpoint that is redirected

    @property
    def id(self) -> str:
        return f"listener.{self.name}"

    def result(self, found: Findings, good: str, evidence: dict[str, Json] | None = None) -> Result:
        code = codes.LISTENER_OPEN
        more: dict[str, Any] = {"code": code.id, "guide": code.guide} if found.problems else {}
        return found.result(self.id, self.title, good, remedy=code.remedy, evidence=evidence, **more)


def listener(watch: Watch) -> Iterator[Result]:
    """Every check of the table."""
    for row in TABLE:
        if row.redirected and not _open_endpoint(watch):
            yield nothing_redirected(watch, row.id, row.title)
        else:
            yield from row.function(watch, row)


def _open_endpoint(watch: Watch) -> Endpoint | None:
    """A redirected endpoint that root may ask."""
    rows = (row for row in watch.plan.redirected if allowed(watch.plan, row, 0, PATHS[row.name]))
    return next(rows, None)


def _raw(to: tuple[str, int], text: str, uid: int = 0, *, shut: bool = False) -> Request:
    options: dict[str, Any] = {"send": text, "shut": shut}
    return Request(*to, behaviour="raw", uid=uid, source_port=port(), patience=PATIENCE, options=options)


def _at(endpoint: Endpoint) -> tuple[str, int]:
    return endpoint.address, endpoint.port


def _get(target: str, host: str, *headers: str) -> str:
    common = ("Metadata: true", "x-ms-version: 2012-11-30", "Connection: close")
    return "\r\n".join([f"GET {target} HTTP/1.1", f"Host: {host}", *common, *headers, "", ""])


def _still_serves(watch: Watch, found: Findings, after: str) -> bool:
    """Whether a well-behaved client is answered."""
    endpoint = _open_endpoint(watch)
    if not watch.agent.alive:
        return found.expect(False, f"the agent has ended after {after}")
    if endpoint is None:
        seen = watch.lab.ask(_raw(PROXY, _get("/", f"{PROXY[0]}:{PROXY[1]}")))
        return found.expect(bool(seen.status), f"a client of the listener gets no answer after {after}: {seen.error}")
    (asked,) = ask_all(watch, [marked(Request.to(endpoint))])
    said = asked.seen.status or asked.seen.error
    return found.expect(asked.seen.status == 200, f"a client of {endpoint.title} is answered {said} after {after}")


def _reached(watch: Watch, mark: str) -> list[str]:
    """The endpoints that a marked request reached."""
    return sorted({row.endpoint for row in watch.lab.requests(mark)})


def _loopback(watch: Watch, row: Row) -> Iterator[Result]:
    found = Findings()
    here = [address for address, number in watch.lab.vm.call("listeners") if number == PROXY[1]]
    found.expect(bool(here), f"nobody listens on port {PROXY[1]}")
    for address in here:
        found.expect(address == PROXY[0], f"it listens on {address}, not on {PROXY[0]}")
    seen = watch.lab.ask(_raw((topology.VM_ADDRESS, PROXY[1]), _get("/", "x")))
    found.expect(seen.error == "ECONNREFUSED",
                 f"a connection to the VM's own address {topology.VM_ADDRESS}:{PROXY[1]} ends with "
                 f"{seen.error or seen.status}, not ECONNREFUSED")  # fmt: skip
    yield row.result(found, f"it listens on {PROXY[0]} alone; the VM's own address is refused")


def _connect(watch: Watch, row: Row) -> Iterator[Result]:
    found = Findings()
    target = f"{topology.OTHER_ADDRESS}:80"
    ways = [("the listener itself", PROXY)]
    ways += [(row.title, _at(row)) for row in watch.plan.redirected[:1]]
    answers: dict[str, Json] = {}
    for name, to in ways:
        watch.lab.captured()
        seen = watch.lab.ask(_raw(to, f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"))
        answers[name] = str(seen.status or seen.error)
        found.expect(not 200 <= seen.status < 300, f"CONNECT to {name} is answered {seen.status}")
        _nothing_to_other(watch, found, f"CONNECT to {name}")
    _still_serves(watch, found, "CONNECT")
    yield row.result(found, "refused, and nothing was tunnelled", {"answers": answers})


def _nothing_to_other(watch: Watch, found: Findings, what: str) -> None:
    there = [packet for packet in watch.lab.captured() if packet.opens and packet.destination == topology.OTHER_ADDRESS]
    found.expect(not there, f"{what} made the agent connect to {topology.OTHER_ADDRESS}")


def _open_proxy(watch: Watch, row: Row) -> Iterator[Result]:
    """Who names another host, by target or by Host, must not get there."""
    found = Findings()
    watch.lab.captured()
    for name, text in (
        ("an absolute target", _get(f"http://{topology.OTHER_ADDRESS}/", topology.OTHER_ADDRESS)),
        ("a Host header", _get("/", topology.OTHER_ADDRESS)),
    ):
        watch.lab.ask(_raw(PROXY, text))
        _nothing_to_other(watch, found, f"{name} to the listener itself")
    for endpoint in (WIRESERVER, IMDS):
        mark = marker()
        for target in (f"http://{endpoint.address}{PATHS[endpoint.name]}&{mark}", f"{PATHS[endpoint.name]}&{mark}"):
            watch.lab.ask(_raw(PROXY, _get(target, endpoint.address)))
        found.expect(not _reached(watch, mark), f"a request to the listener itself reaches {endpoint.title}")
    first = _open_endpoint(watch)
    if first:
        other = WIRESERVER if first is not WIRESERVER else IMDS
        mark = marker()
        for target in (f"http://{other.address}{PATHS[other.name]}&{mark}", f"{PATHS[other.name]}&{mark}"):
            for uid in (0, NOBODY):
                watch.lab.ask(_raw(_at(first), _get(target, other.address), uid))
        reached = _reached(watch, mark)
        found.expect(
            set(reached) <= {first.name}, f"who was redirected for {first.title} reaches {', '.join(reached)} by name"
        )
    _still_serves(watch, found, "them")
    yield row.result(found, "absolute targets and Host headers lead nowhere but to the destination of the connect")


def _forged(watch: Watch, row: Row) -> Iterator[Result]:
    endpoint = _open_endpoint(watch)
    assert endpoint
    found = Findings()
    mark = marker()
    path = PATHS[endpoint.name]
    forged = {
        signature.CLAIMS: f'{{"userId": {FORGED_ID}, "processId": {FORGED_ID}, "isRoot": "true"}}',
        signature.DATE: "Mon, 01 Jan 2001 00:00:00 GMT",
        signature.AUTHORIZATION: f"{signature.SCHEME} forged {'0' * 64}",
        "x-ms-azure-host-forged": FORGED_ID,
    }
    headers = [f"{name}: {value}" for name, value in forged.items()]
    headers += [f"{name.title()}: {value}" for name, value in forged.items()]
    target = f"{path}{'&' if '?' in path else '?'}{mark}"
    seen = watch.lab.ask(_raw(_at(endpoint), _get(target, endpoint.address, *headers)))
    arrived = watch.lab.requests(mark)
    found.expect(bool(arrived) or seen.status in (400, *REFUSED), "the request is neither answered nor refused")
    for request in arrived:
        for name in forged:
            values = request.values(name)
            found.expect(
                not any(forged[name] == value.strip() for value in values), f"the client's {name} reaches the platform"
            )
            found.expect(len(values) <= 1, f"{name} reaches the platform {len(values)} times")
        claims = [parse_claims(value) or {} for value in request.values(signature.CLAIMS)]
        said = any(str(one.get("userid")) == FORGED_ID or str(one.get("processid")) == FORGED_ID for one in claims)
        found.expect(not said, "the platform is told the forged user or process")
    yield row.result(found, "what a client sends under x-ms-azure-host-* does not reach the platform",
                     {"answer": seen.status or seen.error})  # fmt: skip


def _malformed(watch: Watch, row: Row) -> Iterator[Result]:
    found = Findings()
    endpoint = _open_endpoint(watch)
    answers: dict[str, Json] = {}
    ways = [PROXY] + ([_at(endpoint)] if endpoint else [])
    for name, text in ATTACKS:
        for to in ways:
            seen = watch.lab.ask(_raw(to, text, shut=True))
            answers[name] = str(seen.status or seen.error)
            if not watch.agent.alive:
                break
        if not _still_serves(watch, found, name):
            break
    yield row.result(found, f"{len(ATTACKS)} kinds of malformed requests, and it serves on", {"answers": answers})


def _slow(watch: Watch, row: Row) -> Iterator[Result]:
    """Headers that never end, on many connections at once, do not keep others from being served."""
    found = Findings()
    endpoint = _open_endpoint(watch)
    to = _at(endpoint) if endpoint else PROXY
    options = {"send": "GET / HTTP/1.1\r\nHost: x\r\nA: ", "count": HELD}
    with watch.lab.client(Request(*to, behaviour="held", patience=PATIENCE, options=options)) as client:
        seen = client.seen()
        found.expect(not seen.error, f"{HELD} connections could not be opened: {seen.error}")
        _still_serves(watch, found, f"{HELD} unfinished requests that stay open")
    yield row.result(found, f"a client is answered while {HELD} connections hold back the end of their headers")


def _crowd(watch: Watch, row: Row) -> Iterator[Result]:
    found = Findings()
    endpoint = _open_endpoint(watch)
    assert endpoint
    options = {"send": _get(PATHS[endpoint.name], endpoint.address), "count": CROWD}
    seen = watch.lab.ask(Request(*_at(endpoint), behaviour="crowd", patience=4 * PATIENCE, options=options))
    statuses = dict(seen.notes.get("statuses", {}))
    found.expect(not seen.error, f"the connections could not be opened: {seen.error}")
    found.expect(statuses == {"200": CROWD}, f"of {CROWD} requests: {statuses}")
    _still_serves(watch, found, f"{CROWD} connections at once")
    yield row.result(found, f"{CROWD} connections, open at once, are all answered", {"answers": statuses})


def _root_only(watch: Watch, row: Row) -> Iterator[Result]:
    """Nobody tries root's endpoints in every spelling."""
    found = Findings()
    tried: dict[str, Json] = {}
    for endpoint in watch.plan.redirected:
        path = PATHS[endpoint.name]
        if not endpoint.root_only or allowed(watch.plan, endpoint, NOBODY, path):
            continue
        for name, text in _spellings(endpoint):
            mark = marker()
            seen = watch.lab.ask(_raw(_at(endpoint), text.replace("MARK", mark), NOBODY))
            tried[f"{endpoint.title}, {name}"] = str(seen.status or seen.error)
            found.expect(not 200 <= seen.status < 300, f"{endpoint.title}, {name}: answered {seen.status}")
            found.expect(not _reached(watch, mark), f"{endpoint.title}, {name}: reaches the service")
    if not tried:
        yield Result(
            row.id,
            row.title,
            Outcome.SKIP,
            f"none of root's endpoints is denied to others in scenario {watch.plan.scenario.name}",
        )
        return
    yield row.result(
        found, f"{len(tried)} ways of asking, none answered and none seen by the service", {"answers": tried}
    )


def _spellings(endpoint: Endpoint) -> Iterator[tuple[str, str]]:
    path, _, query = PATHS[endpoint.name].partition("?")
    search = f"{query}&MARK" if query else "MARK"
    host = endpoint.address
    yield "plainly", _get(f"{path}?{search}", host)
    yield "with two slashes", _get(f"/{path}?{search}", host)
    yield "with an escaped slash", _get(f"/%2e{path}?{search}", host)
    yield "in upper case", _get(f"{path.upper()}?{search}", host)
    yield "by an absolute target", _get(f"http://{host}:{endpoint.port}{path}?{search}", host)
    yield "with the Host of IMDS", _get(f"{path}?{search}", IMDS.address)
    yield "by HTTP/1.0", _get(f"{path}?{search}", host).replace("HTTP/1.1", "HTTP/1.0")
    yield "with forged claims", _get(f"{path}?{search}", host, f'{signature.CLAIMS}: {{"isRoot": "true", "userId": 0}}')
    yield (
        "behind a second request",
        (
            f"GET {path}?{search} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
            f"0\r\n\r\nGET {path}?{search} HTTP/1.1\r\nHost: {host}\r\n\r\n"
        ),
    )


def _addresses(watch: Watch, row: Row) -> Iterator[Result]:
    """Whatever form of its address a client writes into Host, it gets the same answer."""
    found = Findings()
    tried: dict[str, Json] = {}
    for endpoint in watch.plan.redirected:
        for who, uid in (("root", 0), ("nobody", NOBODY)):
            answers = {}
            for form in _forms(endpoint):
                seen: Seen = watch.lab.ask(_raw(_at(endpoint), _get(PATHS[endpoint.name], form), uid))
                answers[form] = str(seen.status or seen.error)
            tried[f"{endpoint.title} for {who}"] = sorted(set(answers.values()))
            if len(set(answers.values())) > 1:
                told = ", ".join(f"{form}: {answer}" for form, answer in answers.items())
                found.expect(False, f"{endpoint.title} for {who} depends on the form of the address: {told}")
    yield row.result(found, "decimal, hexadecimal, octal and short forms are answered alike", {"answers": tried})


def _forms(endpoint: Endpoint) -> Sequence[str]:
    numbers = [int(part) for part in endpoint.address.split(".")]
    whole = int.from_bytes(bytes(numbers), "big")
    return (
        endpoint.address,
        f"{endpoint.address}:{endpoint.port}",
        str(whole),
        hex(whole),
        ".".join(f"0{number:o}" for number in numbers),
        f"{numbers[0]}.{numbers[1]}.{numbers[2] * 256 + numbers[3]}",
        f"[::ffff:{endpoint.address}]",
    )


TABLE = (
    Row("loopback", "The listener is bound to loopback only", _loopback, redirected=False),
    Row("connect", "CONNECT is refused", _connect, redirected=False),
    Row("open-proxy", "The listener is no open proxy", _open_proxy, redirected=False),
    Row("forged-headers", "Forged x-ms-azure headers are overwritten", _forged),
    Row("malformed", "Malformed requests are survived", _malformed, redirected=False),
    Row("slow", "Slow requests are survived", _slow, redirected=False),
    Row("crowd", f"{CROWD} connections at once", _crowd),
    Row("root-only", "Nobody but root gets to root's endpoints", _root_only),
    Row("addresses", "All forms of an address are treated alike", _addresses),
)
