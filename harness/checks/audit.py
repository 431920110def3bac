"""Whether an audit record names the client that connected, and nobody else ever inherits it.

What was decided, and is shown here:

    a connect that fails       its record stays until the same source port connects again; that connect replaces or
                               removes it, so it never speaks for another
    a retried connect          the kernel runs connect4 once an attempt, so there is one record
    two threads at once        each socket has its own cookie, so each connection has its own record
    pid reuse                  uid and pid are those at the time of the connect; the proxy never looks a pid up later
    more connects than entries the LRU map drops old records; whose record is gone gets 421, and is never answered
                               as somebody else
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from harness.checks.base import Environment
from harness.checks.redirect import (
    REFUSED_STATUS,
    differences,
    expect_redirected,
    look,
    sides,
    why_not_audited,
)
from harness.checks.removal import DEAD
from harness.checks.results import Findings
from harness.kernel import bpf
from harness.lab.clients import NOBODY, Request, Seen
from harness.lab.redirection import Redirection, fill, redirect
from harness.msp.endpoints import IMDS, PROXY, WIRESERVER, Endpoint
from harness.program import maps
from harness.program.load import load_again
from harness.report import Outcome, Result

_PORTS = iter(range(20001, 29999))  # below the kernel's own range for source ports
UNREACHABLE = ("255.255.255.255", 80)  # TCP to broadcast is refused before the source port is known


def audited(environment: Environment) -> Iterator[Result]:
    """Everything but the capacity."""
    if not environment.audited:
        yield Result("audit", "Records name the right client", Outcome.SKIP, why_not_audited(environment))
        return
    with environment.redirect() as redirection:
        for name, title, function in _STALE:
            yield _stale(redirection, name, title, function)
        yield _retried(redirection)
        yield _threads(redirection)
        yield _pid_reused(redirection)


def _stale(redirection: Redirection, name: str, title: str, function: Callable[[Redirection], Result]) -> Result:
    """A check of what becomes of old records, which is the completing program's part.

    The agent's form has no such duty: there the agent removes a record once it has read it, so that what is FAIL for
    our own program is WARN for somebody else's object.
    """
    if redirection.loaded.lent:
        summary = (
            "old records are removed by the completing program, and here that is the harness's own, not the object's"
        )
        return Result(name, title, Outcome.SKIP, summary)
    result = function(redirection)
    only_old = all(_OLD_RECORD.search(problem) for problem in result.summary.split("; "))
    if not redirection.loaded.foreign or result.outcome is not Outcome.FAIL or not only_old:
        return result
    return replace(
        result,
        outcome=Outcome.WARN,
        summary=result.summary + ": the object leaves old records to its agent, which this lab's proxy is not",
        remedy="the agent has to remove a record once it has read it, or one client speaks for another",
    )


def _direct(redirection: Redirection, source_port: int) -> Seen:
    """nobody asks the proxy itself, from this source port: there must be no record for it."""
    return redirection.lab.ask(Request(*PROXY, uid=NOBODY, source_port=source_port, behaviour="reset"))


def _expect_unknown(found: Findings, seen: Seen, whose: str) -> None:
    happened = f"{seen.status}" if seen.answered else f"{seen.step}: {seen.error}"
    found.expect(seen.status == REFUSED_STATUS, f"{whose} got {happened} instead of {REFUSED_STATUS}")


def _not_inherited(redirection: Redirection) -> Result:
    """root's record is not there for nobody, who connects to the proxy from the port that root had."""
    found = Findings()
    port = next(_PORTS)
    first = redirection.lab.ask(Request.to(WIRESERVER, source_port=port, behaviour="reset"))
    found.expect(first.status == 200, f"root got {first.status or first.error} for WireServer")
    found.expect(redirection.audit(port) is not None, "root's connect left no record")
    _expect_unknown(found, _direct(redirection, port), "nobody on root's old port")
    found.expect(redirection.audit(port) is None, "root's record is still there")
    return found.result(
        "audit.not-inherited", "A record is not inherited by the next user of its port",
        f"root's record was there; nobody, directly from the same port, got {REFUSED_STATUS}",
    )  # fmt: skip


def _after_failure(redirection: Redirection) -> Result:
    """A refused connect leaves a record; the next connect from that port removes it."""
    found = Findings()
    port = next(_PORTS)
    redirection.set_policy(WIRESERVER, DEAD)
    first = redirection.lab.ask(Request.to(WIRESERVER, source_port=port))
    redirection.set_policy(WIRESERVER)
    found.expect(first.error == "ECONNREFUSED", f"the connect to a dead port ended with {first.error or first.status}")
    _expect_unknown(found, _direct(redirection, port), "nobody on the port of a refused connect")
    return found.result(
        "audit.failed-connect", "A connect that fails leaves nothing for others",
        f"refused; nobody, directly from the same port, got {REFUSED_STATUS}",
    )  # fmt: skip


def _same_socket(redirection: Redirection) -> Result:
    """A socket whose redirected connect failed before its port was known, and that then goes to the proxy directly."""
    found = Findings()
    redirection.set_policy(WIRESERVER, UNREACHABLE)
    then = {"then": list(PROXY)}
    seen = redirection.lab.ask(Request.to(WIRESERVER, behaviour="failed-then-direct", options=then))
    redirection.set_policy(WIRESERVER)
    first = seen.notes.get("first", "nothing")
    found.expect(first in ("ENETUNREACH", "EACCES"), f"the first connect ended with {first}")
    _expect_unknown(found, seen, "the socket's second, direct connect")
    return found.result(
        "audit.same-socket", "A failed connect does not speak for the socket's next one",
        f"{first}, then directly to the proxy: {REFUSED_STATUS}",
    )  # fmt: skip


_OLD_RECORD = re.compile(rf"instead of {REFUSED_STATUS}$|record is still there$")
"""A problem that is about a record which outlived its connection, and about nothing else."""

_STALE: Sequence[tuple[str, str, Callable[[Redirection], Result]]] = (
    ("audit.not-inherited", "A record is not inherited by the next user of its port", _not_inherited),
    ("audit.failed-connect", "A connect that fails leaves nothing for others", _after_failure),
    ("audit.same-socket", "A failed connect does not speak for the socket's next one", _same_socket),
)


def _retried(redirection: Redirection) -> Result:
    """A non-blocking connect, called again until it is there."""
    found = Findings()
    side = look(redirection, Request.to(IMDS, behaviour="retried"))
    expect_redirected(found, side, audited=True)
    answers = side.seen.notes.get("answers", [])
    found.expect(len(answers) > 1, f"connect() was not retried: {answers}")
    return found.result(
        "audit.retried", "A non-blocking connect that is retried has one right record",
        "redirected once, with the right record", observed={"connect() gave": list(answers)} | side.observed(),
    )  # fmt: skip


def _threads(redirection: Redirection) -> Result:
    """Two threads at once: each connection has its own record."""
    found = Findings()
    both = (IMDS, WIRESERVER)
    to = [[endpoint.address, endpoint.port, Request.to(endpoint).path] for endpoint in both]
    seen = redirection.lab.ask(Request.to(IMDS, behaviour="threads", options={"to": to}))
    each = [Seen(**one) for one in seen.notes.get("each", [])]
    found.expect(len(each) == len(both), f"{len(each)} of {len(both)} threads got an answer: {seen.error}")
    for endpoint, one in zip(both, each, strict=False):
        _expect_record(found, redirection, endpoint, replace(one, pid=seen.pid, uid=seen.uid))
    return found.result(
        "audit.threads", "Two threads that connect at once have a record each", "IMDS and WireServer, each its own",
    )  # fmt: skip


def _expect_record(found: Findings, redirection: Redirection, endpoint: Endpoint, seen: Seen) -> None:
    record = redirection.audit(seen.source_port)
    wanted = maps.AuditRecord(seen.uid, seen.pid, seen.uid == 0, endpoint.address, endpoint.port)
    if record is None:
        found.expect(False, f"no record of the connect to {endpoint.title} ({seen.error or seen.status})")
    elif record != wanted:
        found.expect(False, f"{endpoint.title}'s record is wrong: {differences(record, wanted)}")


def _pid_reused(redirection: Redirection) -> Result:
    """nobody gets the pid that root had: the records keep them apart."""
    found = Findings()
    first = redirection.lab.ask(Request.to(WIRESERVER))
    redirection.lab.kill(first.pid)  # it has ended; this waits until its pid is free
    request = Request.to(WIRESERVER, uid=NOBODY, options={"pid": first.pid})
    redirection.lab.forget()
    second = redirection.lab.ask(request)
    found.expect(first.status == 200, f"root got {first.status or first.error}")
    found.expect(second.pid == first.pid, f"the second client has pid {second.pid}, not {first.pid}")
    expect_redirected(found, sides(redirection, [(request, second)])[0], audited=True, uid=NOBODY, status=403)
    record = redirection.audit(first.source_port)
    found.expect(record is not None and record.uid == 0, "root's record changed when its pid was used again")
    return found.result(
        "audit.pid-reuse", "A pid that is used again changes no record",
        "root 200, then nobody with the same pid 403; root's record still says uid 0",
    )  # fmt: skip


def capacity(environment: Environment) -> Iterator[Result]:
    """How many connections can be open at once before a record is lost: with the agent's entries, and with ours."""
    if not environment.audited:
        yield Result("audit.capacity", "Records at once", Outcome.SKIP, why_not_audited(environment))
        return
    sizes = {"agent": (maps.LAYOUTS["audit_map"].entries, 4), "ours": (maps.AUDIT_ENTRIES, 256)}
    if environment.loaded.foreign:
        own = bpf.map_info(environment.loaded.maps["audit_map"]).max_entries
        sizes = {"object": (own, max(4, own // 50))}
    for whose, (entries, batch) in sizes.items():
        yield _capacity(environment, whose, entries, batch)
    fill(environment.loaded, environment.lab)


def _capacity(environment: Environment, whose: str, entries: int, batch: int) -> Result:
    name, title = f"audit.capacity.{whose}", f"Connects at once with {entries} entries"
    count = entries + 2 * batch
    sizes = {"audit_map": entries, "local_map": entries}
    with (
        load_again(environment.loaded, sizes) as loaded,
        redirect(environment.lab, loaded, environment.way) as redirection,
    ):
        kept, lost = _fill_up(redirection, entries, count, batch)
    evidence = {"entries": entries, "all there with": kept, "first lost within": lost or f"more than {count}"}
    summary = (
        f"every record is there with {kept} connections open; one is lost within {lost}"
        if lost
        else f"none lost with {count}"
    )
    if kept < entries // 2:
        remedy = "more entries, or an agent that reads a record as soon as it accepts; kernels from 6.16 lose fewer"
        return Result(name, title, Outcome.WARN, summary, evidence, remedy=remedy)
    return Result(name, title, Outcome.PASS, summary, evidence)


def _fill_up(redirection: Redirection, entries: int, count: int, batch: int) -> tuple[int, int]:
    """Open connections by batches; the last number with every record there, and the first with one lost (0: none)."""
    request = Request.to(IMDS, behaviour="many", options={"count": count, "batch": batch}, patience=10)
    ports: list[int] = []
    with redirection.lab.client(request) as client:
        listener = client.seen()
        redirection.set_policy(IMDS, (PROXY[0], listener.source_port))
        while True:
            client.release()
            seen = client.seen()
            if "ports" not in seen.notes:
                return len(ports), 0
            ports += seen.notes["ports"]
            if maps.unrecorded(redirection.audit_map, ports, entries):
                return len(ports) - batch, len(ports)
