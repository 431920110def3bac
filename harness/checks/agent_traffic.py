"""Clients ask the three endpoints through an agent: who may, what the platform is told, and that none goes past.

Each request carries a marker in its query, by which it is found again among what the fabric saw. Source ports lie
below the kernel's ephemeral ones, so that a packet of the agent's own is never taken for a client's.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.agent.claims import Claims
from harness.agent.gate import Gate
from harness.agent.rules import Mode
from harness.agent.status import Board
from harness.checks.agent_steps import Plan, Watch
from harness.checks.results import Findings
from harness.lab import channel, topology
from harness.lab.capture import Packet
from harness.lab.clients import NOBODY, Request, Seen
from harness.lab.secure_channel import Event
from harness.msp import codes
from harness.msp.endpoints import ENDPOINTS, PROXY, Endpoint
from harness.report import Json, Outcome, Result

LISTENER = f"{PROXY[0]}:{PROXY[1]}"
USERS = (("root", 0), ("nobody", NOBODY))
REFUSED = (401, 403)
"""What an agent may answer to whom it refuses."""

_markers = itertools.count(1)
_ports = itertools.count(12000)


@dataclass(frozen=True)
class Asked:
    """A client's request and what became of it. event is how it reached the platform, None where it did not."""

    request: Request
    seen: Seen
    event: Event | None
    direct: tuple[Packet, ...]  # SYNs of the client itself over the veth


def marker() -> str:
    return f"msp-marker={next(_markers)}"


def port() -> int:
    """A source port for one client."""
    return 12000 + (next(_ports) - 12000) % 18000


def marked(request: Request) -> Request:
    """The request with a marker in its query, and a source port of its own."""
    return replace(request, path=with_marker(request.path), source_port=port())


def with_marker(path: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}{marker()}"


def ask_all(watch: Watch, requests: Sequence[Request]) -> list[Asked]:
    """Send clients, all at once."""
    lab = watch.lab
    lab.captured()
    with ExitStack() as stack:
        started = [stack.enter_context(lab.client(request)) for request in requests]
        seen = [client.seen() for client in started]
    sent = [packet for packet in lab.captured() if packet.opens and packet.source == topology.VM_ADDRESS]
    events = watch.hear()
    found = []
    for request, saw in zip(requests, seen, strict=True):
        mark = request.path.rpartition("msp-marker=")[2]
        event = next((row for row in events if row.target.endswith(f"msp-marker={mark}")), None)
        direct = tuple(packet for packet in sent if packet.source_port == request.source_port)
        found.append(Asked(request, saw, event, direct))
    return found


def allowed(plan: Plan, endpoint: Endpoint, uid: int, target: str) -> bool:
    """Whether the scenario's rules, and the agent's own for root's endpoints, let a user make this request."""
    name = "root" if uid == 0 else "nobody"
    executable = str(executable_of_clients())
    claims = Claims(
        uid, name, ("root",) if uid == 0 else ("nogroup",), 0, executable, Path(executable).name, "", uid == 0
    )
    gate = Gate(lambda: None, Board(), lambda request: None)
    gate.items = plan.rules.items if plan.rules else {}
    wanted = channel.Request("GET", target, (), "1.1", channel.Peer("127.0.0.1", 0), None)  # type: ignore[arg-type]
    return gate.denial(claims, endpoint, wanted) is None


def executable_of_clients() -> Path:
    """Clients are forked from the harness, so this is what they are."""
    return Path(sys.executable).resolve()


def traffic(watch: Watch) -> Iterator[Result]:
    """A Result for each endpoint and user."""
    rows = [(endpoint, who, uid) for endpoint in ENDPOINTS for who, uid in USERS]
    asked = ask_all(watch, [marked(Request.to(endpoint, uid=uid)) for endpoint, _, uid in rows])
    for (endpoint, who, uid), one in zip(rows, asked, strict=True):
        if watch.plan.mode(endpoint) is Mode.DISABLED:
            yield _direct(endpoint, who, one)
        else:
            yield _redirected(watch, endpoint, who, uid, one)


def _direct(endpoint: Endpoint, who: str, asked: Asked) -> Result:
    found = Findings()
    where = f"{endpoint.address}:{endpoint.port}"
    seen = asked.seen
    found.expect(seen.peer in (where, ""), f"the client's socket is connected to {seen.peer}, not to {where}")
    found.expect(bool(asked.direct), f"nothing of the client crossed the veth to {where}")
    return found.result(f"traffic.{endpoint.name}.{who}", f"{endpoint.title} for {who}",
                        "not redirected, as this scenario wants it", evidence=_evidence(asked),
                        code=codes.STATUS_WRONG.id if found.problems else None)  # fmt: skip


def _redirected(watch: Watch, endpoint: Endpoint, who: str, uid: int, asked: Asked) -> Result:
    found = Findings()
    seen, event = asked.seen, asked.event
    may = allowed(watch.plan, endpoint, uid, asked.request.path)
    code = codes.EMPTY_POLICY
    found.expect(not seen.error, f"the client's {seen.step} ended with {seen.error}")
    found.expect(seen.error != "" or seen.peer == LISTENER, f"the client's socket is connected to {seen.peer}")
    found.expect(not asked.direct, f"the client itself sent {len(asked.direct)} SYN past the agent")
    if found.problems:
        pass
    elif may:
        code = codes.REQUEST_UNPROVED
        found.expect(seen.status == 200, f"it was answered {seen.status} and not 200: {seen.body.strip()[:80]}")
        if found.expect(event is not None, "the request did not reach the platform"):
            assert event is not None
            for problem in unproved(event, seen.pid, uid):
                found.expect(False, problem)
    else:
        code = codes.LISTENER_OPEN
        found.expect(seen.status in REFUSED, f"the rules deny it, and it was answered {seen.status}, not 403")
        found.expect(event is None, "the rules deny it, and yet it reached the platform")
    good = "answered; the platform saw a valid signature and the client's claims" if may else f"refused ({seen.status})"
    return found.result(
        f"traffic.{endpoint.name}.{who}", f"{endpoint.title} for {who}", good, remedy=code.remedy,
        evidence=_evidence(asked) | {"uid": uid, "the rules": "allow it" if may else "deny it"},
        observed={"pid": seen.pid, "claims": event.claims if event else None},
        code=code.id if found.problems else None,
    )  # fmt: skip


def _evidence(asked: Asked) -> dict[str, Json]:
    seen, event = asked.seen, asked.event
    return {
        "client": f"{seen.status or seen.error}, peer {seen.peer or 'none'}",
        "platform": f"saw it, {event.verdict}" if event else "saw nothing of it",
        "capture": f"{len(asked.direct)} SYN of the client's own",
    }


def unproved(event: Event, pid: int, uid: int) -> Iterator[str]:
    """What is wrong with signature and claims of a request as the platform saw it."""
    if event.verdict != "verified":
        yield f"the platform does not find it signed with the latched key: {event.verdict}"
    claims = parse_claims(event.claims)
    if claims is None:
        yield "it has no claims" if not event.claims else "its claims are no JSON object"
        return
    wanted = {
        "userId": str(uid),
        "processId": str(pid),
        "processFullPath": str(executable_of_clients()),
        "runAsElevated": str(uid == 0).lower(),
    }
    for name, value in wanted.items():
        said = claims.get(name.lower())
        if said is None:
            yield f"its claims lack {name}"
        elif str(said).lower() != value.lower():
            yield f"its claims say {name} {str(said)[:80]}, and it is {value}"


def parse_claims(text: str) -> Mapping[str, Any] | None:
    """The claims by name in lower case."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return {str(name).lower(): value for name, value in found.items()} if isinstance(found, dict) else None


def nothing_redirected(watch: Watch, group: str, title: str) -> Result:
    """For what needs a redirected client in a scenario that redirects nobody."""
    scenario = watch.plan.scenario
    summary = f"nothing is redirected in scenario {scenario.name} ({scenario.title})"
    return Result(group, title, Outcome.SKIP, summary)
