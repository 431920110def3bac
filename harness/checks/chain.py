"""Check 8: the chain of proof, link by link, so that a reader sees where it breaks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.checks.base import Environment
from harness.checks.redirect import LISTENER
from harness.checks.results import Findings
from harness.kernel import bpf
from harness.kernel.bpf import AttachType
from harness.lab.clients import Request
from harness.lab.redirection import Redirection, destination
from harness.msp.endpoints import ENDPOINTS, Endpoint
from harness.program import attached, maps
from harness.report import Result

CONNECT4 = AttachType.CGROUP_INET4_CONNECT


@dataclass(frozen=True)
class Step:
    """One link of the chain: what it is, what was found, whether it holds."""

    name: str
    said: str
    holds: bool


def chain(environment: Environment) -> Iterator[Result]:
    """Link → effective program array → policy row → the client's socket peer → bytes at the listener."""
    with environment.redirect() as redirection:
        for endpoint in ENDPOINTS:
            yield _result(endpoint, list(_steps(redirection, endpoint)))


def _result(endpoint: Endpoint, steps: list[Step]) -> Result:
    found = Findings()
    broken = next((step for step in steps if not step.holds), None)
    if broken:
        found.expect(False, f"the chain breaks at the {broken.name}: {broken.said}")
    return found.result(
        f"chain.{endpoint.name}",
        f"Chain of proof for {endpoint.title}",
        " → ".join(step.name for step in steps),
        remedy="what comes before that step holds; look at the first that does not",
        evidence={step.name: ("" if step.holds else "BROKEN: ") + step.said for step in steps},
    )


def _steps(redirection: Redirection, endpoint: Endpoint) -> Iterator[Step]:
    lab = redirection.lab
    identity = bpf.prog_info(redirection.loaded.programs["connect4"]).id
    place = attached.at(lab.attach_cgroup, CONNECT4)
    ours = next((one for one in place.programs if one.id == identity), None)
    how = "no program of ours" if ours is None else "connect4 by " + ("link" if ours.link else "PROG_ATTACH")
    yield Step("link", f"{how} on the VM's cgroup", ours is not None)

    effective = attached.effective(lab.client_cgroup, CONNECT4)
    position = effective.index(identity) + 1 if identity in effective else 0
    yield Step("effective list", f"runs {position} of {len(effective)} for the client's cgroup", position > 0)

    rows = dict(maps.policies(redirection.policy_map))
    instead = rows.get(destination(endpoint))
    yield Step("policy row", f"{destination(endpoint)} → {instead or 'no row'}", str(instead) == LISTENER)

    lab.accepted()
    seen = lab.ask(Request.to(endpoint))
    said = f"getpeername() gives {seen.peer}" if seen.peer else f"{seen.step} ended with {seen.error}"
    yield Step("socket peer", said, seen.peer == LISTENER)

    accept = next((accept for accept in lab.accepted() if accept.port == seen.source_port), None)
    asked = accept.asked if accept else ()
    said = f"the listener read {asked[0]!r}" if asked else "the listener read nothing of this connection"
    yield Step("bytes at the listener", said, bool(asked) and asked[0] == f"GET {Request.to(endpoint).path}")
