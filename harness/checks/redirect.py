"""Whether traffic goes where it should: redirected, left alone, authorized. Each proved from four sides.

    client    its answer carries a nonce that only the proxy adds, and its socket's peer is the listener
    proxy     its accept saw the client's source port
    audit     the map's record under that port names the endpoint, the uid and the pid
    capture   no SYN (or datagram) of the client itself crossed the veth to the endpoint

Sides that disagree are a FAIL that says which: each is taken independently of the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from harness.checks.base import Environment
from harness.checks.results import Findings
from harness.lab import topology
from harness.lab.capture import Packet
from harness.lab.clients import NOBODY, Request, Seen
from harness.lab.lab import OTHER_PORT, Accepted, Lab
from harness.lab.redirection import Redirection
from harness.msp.endpoints import ENDPOINTS, IMDS, PROXY, Endpoint
from harness.program import maps
from harness.report import Json, Result

LISTENER = f"{PROXY[0]}:{PROXY[1]}"


@dataclass(frozen=True)
class Sides:
    """What the four sides say of one client's connection."""

    request: Request
    seen: Seen
    nonce: str  # what the proxy adds in this lab
    accepted: Accepted | None
    record: maps.AuditRecord | None
    sent: tuple[Packet, ...]  # what the client itself began over the veth
    forwarded: bool  # whether the proxy's own connection for this client crossed it

    @property
    def through_proxy(self) -> bool:
        return bool(self.seen.nonce) and self.seen.nonce == self.nonce

    def evidence(self) -> dict[str, Json]:
        """What is the same in every run."""
        answered = f"{self.seen.status}" if self.seen.answered else f"{self.seen.step}: {self.seen.error}"
        record = self.record
        return {
            "client": f"{answered}, peer {self.seen.peer or 'none'}, nonce {'right' if self.through_proxy else 'none'}",
            "proxy": "accepted that source port" if self.accepted else "saw nothing of that source port",
            "audit": f"uid {record.uid}, for {record.address}:{record.port}" if record else "no record under that port",
            "capture": f"{len(self.sent)} from the client, the proxy's own {'seen' if self.forwarded else 'not seen'}",
        }

    def observed(self) -> dict[str, Json]:
        return {
            "pid": self.seen.pid,
            "source port": self.seen.source_port,
            "nonce": self.seen.nonce,
            "record's pid": self.record.pid if self.record else None,
        }


def look(redirection: Redirection, request: Request) -> Sides:
    """Send one client and take the four sides."""
    return look_all(redirection, [request])[0]


def look_all(redirection: Redirection, requests: Sequence[Request]) -> list[Sides]:
    """Send clients, all at once, and take the four sides of each."""
    lab = redirection.lab
    lab.forget()
    return sides(redirection, list(zip(requests, ask_all(lab, requests), strict=True)))


def ask_all(lab: Lab, requests: Sequence[Request]) -> list[Seen]:
    """Send clients, all at once: what each saw."""
    with ExitStack() as stack:
        clients = [stack.enter_context(lab.client(request)) for request in requests]
        return [client.seen() for client in clients]


def sides(redirection: Redirection, done: Sequence[tuple[Request, Seen]]) -> list[Sides]:
    """The four sides of what clients have just done."""
    accepts, packets = redirection.lab.since()
    accepted = {accept.port: accept for accept in accepts}
    sent = [packet for packet in packets if packet.opens and packet.source == topology.VM_ADDRESS]
    # The kernel may give the proxy, whose destination is another, the port that a client has.
    proxys = {port for accept in accepted.values() for port in accept.endpoint_ports}
    return [_sides(redirection, request, seen, accepted.get(seen.source_port), sent, proxys) for request, seen in done]


def _sides(
    redirection: Redirection,
    request: Request,
    seen: Seen,
    accept: Accepted | None,
    sent: list[Packet],
    proxys: set[int],
) -> Sides:
    there = [packet for packet in sent if (packet.destination, packet.port) == (request.address, request.port)]
    return Sides(
        request,
        seen,
        redirection.lab.nonce,
        accept,
        redirection.audit(seen.source_port) if seen.source_port else None,
        tuple(
            packet for packet in there if packet.source_port == seen.source_port and packet.source_port not in proxys
        ),
        accept is not None and any(packet.source_port in accept.endpoint_ports for packet in there),
    )


def expect_redirected(found: Findings, side: Sides, *, audited: bool, uid: int = 0, status: int = 200) -> None:
    """The four sides of a connection that has to be redirected and answered with this status."""
    seen, request = side.seen, side.request
    where = f"{request.address}:{request.port}"
    if seen.error:
        found.expect(False, f"the client's {seen.step} to {where} ended with {seen.error}")
        return
    found.expect(side.through_proxy, f"the client's answer has no nonce of the proxy (status {seen.status})")
    found.expect(seen.peer == LISTENER, f"the client's socket is connected to {seen.peer}, not to {LISTENER}")
    found.expect(seen.status == status, f"the answer was {seen.status} and not {status}: {seen.body.strip()[:80]}")
    found.expect(side.accepted is not None, "the proxy's accept did not see the client's source port")
    found.expect(not side.sent, f"the client itself sent {len(side.sent)} SYN over the veth to {where}")
    found.expect(side.forwarded or status != 200, "the capture did not see the proxy's own connection either")
    if not audited:
        return
    wanted = maps.AuditRecord(uid, seen.pid, uid == 0, request.address, request.port)
    if found.expect(side.record is not None, "the audit map has no record under the client's source port"):
        assert side.record is not None
        found.expect(side.record == wanted, f"the audit record is wrong: {differences(side.record, wanted)}")


def differences(got: maps.AuditRecord, wanted: maps.AuditRecord) -> str:
    """Which members differ: `pid 1 instead of 2, port 20480 instead of 80`."""
    names = ("uid", "pid", "is_root", "address", "port")
    pairs = [(name, getattr(got, name), getattr(wanted, name)) for name in names]
    return ", ".join(f"{name} {has} instead of {should}" for name, has, should in pairs if has != should)


def expect_direct(found: Findings, side: Sides, *, datagram: bool = False) -> None:
    """The four sides of something that has to go where it was sent, past the proxy."""
    seen, request = side.seen, side.request
    where = f"{request.address}:{request.port}"
    found.expect(not seen.error, f"the client's {seen.step} to {where} ended with {seen.error}")
    found.expect(not side.through_proxy, "the answer came from the proxy")
    found.expect(seen.peer == where, f"the client's socket is connected to {seen.peer or 'nothing'}, not to {where}")
    found.expect(side.accepted is None, "the proxy accepted it")
    found.expect(bool(side.sent), f"nothing of the client crossed the veth to {where}")
    found.expect(datagram or seen.answered or bool(seen.error), "the client got no answer")


def without_audit(environment: Environment) -> dict[str, Json]:
    return {} if environment.audited else {"audit": f"not looked at: {why_not_audited(environment)}"}


def why_not_audited(environment: Environment) -> str:
    if environment.loaded.foreign:
        return "nothing completes the object's records here: load.audit says why"
    return "this kernel cannot complete audit records: neither sock_ops with cookies nor kprobes"


REFUSED_STATUS = 421
"""What the proxy answers when it cannot say who asks: all that can be had without audit records."""


def redirected(environment: Environment) -> Iterator[Result]:
    """Check 4: each endpoint, asked by root."""
    with environment.redirect() as redirection:
        all_sides = look_all(redirection, [Request.to(endpoint) for endpoint in ENDPOINTS])
    for endpoint, side in zip(ENDPOINTS, all_sides, strict=True):
        found = Findings()
        status = 200 if environment.audited else REFUSED_STATUS
        expect_redirected(found, side, audited=environment.audited, status=status)
        yield found.result(
            f"redirect.{endpoint.name}",
            f"{endpoint.title} is redirected",
            f"{endpoint.address}:{endpoint.port} goes to {LISTENER}, client, proxy, audit and capture agree",
            evidence=side.evidence() | without_audit(environment),
            observed=side.observed(),
        )


def untouched(environment: Environment) -> Iterator[Result]:
    """Check 5: what has to go its own way."""
    rows = _elsewhere(environment.lab)
    with environment.redirect() as redirection:
        all_sides = look_all(redirection, [request for _, _, request in rows])
        for (name, title, request), side in zip(rows, all_sides, strict=True):
            found = Findings()
            expect_direct(found, side, datagram=request.behaviour == "datagram")
            yield found.result(
                f"untouched.{name}",
                title,
                f"{request.address}:{request.port} was reached directly",
                remedy="the program changes connects that are none of MSP's: do not attach it",
                evidence=side.evidence(),
                observed=side.observed(),
            )
        yield _skipped(redirection)


def _elsewhere(lab: Lab) -> list[tuple[str, str, Request]]:
    rows = [("other-address", "Another address is left alone", Request(topology.OTHER_ADDRESS, 80))]
    for endpoint in ENDPOINTS[:2]:
        title = f"Another port of {endpoint.title}'s address is left alone"
        rows.append((f"other-port.{endpoint.name}", title, Request(endpoint.address, OTHER_PORT)))
    rows.append(("udp", "UDP to IMDS is left alone", Request.to(IMDS, behaviour="datagram")))
    outside = Request.to(IMDS, cgroup=str(lab.outside_cgroup))
    rows.append(("outside", "A process outside the cgroup is left alone", outside))
    return rows


def _skipped(redirection: Redirection) -> Result:
    """A process of skip_process_map: it must be there before it connects, so the client waits for it."""
    found = Findings()
    lab, request = redirection.lab, Request.to(IMDS, behaviour="wait")
    lab.forget()
    with lab.client(request) as client:
        client.seen()
        maps.skip(redirection.skip_map, client.pid)
        client.release()
        (side,) = sides(redirection, [(request, client.seen())])
        maps.unskip(redirection.skip_map, client.pid)
    expect_direct(found, side)
    return found.result(
        "untouched.skipped",
        "A process of skip_process_map is left alone",
        f"{request.address}:{request.port} was reached directly",
        remedy="without it the agent's own connections come back to the agent for ever",
        evidence=side.evidence(),
        observed=side.observed(),
    )


def authorized(environment: Environment) -> Iterator[Result]:
    """Check 6: who may ask what, seen end to end."""
    rows = [(endpoint, who, uid) for endpoint in ENDPOINTS for who, uid in (("root", 0), ("nobody", NOBODY))]
    with environment.redirect() as redirection:
        all_sides = look_all(redirection, [Request.to(endpoint, uid=uid) for endpoint, _, uid in rows])
    for (endpoint, who, uid), side in zip(rows, all_sides, strict=True):
        yield _authorized(environment, side, endpoint, who, uid)


def _authorized(environment: Environment, side: Sides, endpoint: Endpoint, who: str, uid: int) -> Result:
    found = Findings()
    denied = endpoint.root_only and uid != 0
    status = (403 if denied else 200) if environment.audited else REFUSED_STATUS
    expect_redirected(found, side, audited=environment.audited, uid=uid, status=status)
    found.expect(not denied or not side.forwarded, f"the proxy let the request of uid {uid} reach the service")
    verb = "is denied" if denied else "is answered"
    return found.result(
        f"authorization.{endpoint.name}.{who}",
        f"{endpoint.title} for {who}",
        f"{who} {verb} ({status}) by the record's uid {uid}",
        remedy="the record decides who may ask: compare it with the client's uid",
        evidence=side.evidence() | {"uid": uid, "expected": status},
        observed=side.observed(),
    )
