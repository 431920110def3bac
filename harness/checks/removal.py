"""Check 7: what is taken away stops at once, and what outlives its owner is recognised."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from harness.checks.base import Environment
from harness.checks.redirect import REFUSED_STATUS, Sides, expect_direct, expect_redirected, look
from harness.checks.results import Findings
from harness.errors import HarnessError
from harness.kernel import bpf, cgroups
from harness.kernel.bpf import AttachType
from harness.lab.clients import Request
from harness.lab.lab import Lab
from harness.lab.patience import SLOWNESS
from harness.lab.redirection import Redirection, fill, redirect
from harness.lab.worker import wait_until
from harness.msp import codes, guide
from harness.msp.endpoints import IMDS, PROXY, WIRESERVER
from harness.program import attached, maps
from harness.program.attach import Way, attach_one
from harness.report import Json, Outcome, Result

CONNECT4 = AttachType.CGROUP_INET4_CONNECT
DEAD = (PROXY[0], 3079)
"""A port of the VM's loopback on which nobody listens."""

_PATIENCE = 1.0 * SLOWNESS  # seconds for the kernel to let go of a killed process's link


def removed(environment: Environment) -> Iterator[Result]:
    """A policy row, then the program: what is taken away stops at once."""
    with environment.redirect() as redirection:
        yield _policy(environment, redirection)
    yield _detached(environment)
    yield _closed(environment)
    yield _owner_killed(environment)
    yield _left_behind(environment)


def _ask(
    environment: Environment, redirection: Redirection, found: Findings, step: str, direct: bool, **changes: Json
) -> Sides:
    """One client of IMDS; what is wrong with where it went goes to found, with the step's name."""
    endpoint = WIRESERVER if changes.pop("wireserver", False) else IMDS
    side = look(redirection, Request.to(endpoint))
    seen = Findings()
    if direct:
        expect_direct(seen, side)
    else:
        status = 200 if environment.audited else REFUSED_STATUS
        expect_redirected(seen, side, audited=environment.audited, status=status)
    for problem in seen.problems:
        found.expect(False, f"{step}: {problem}")
    return side


def _policy(environment: Environment, redirection: Redirection) -> Result:
    found = Findings()
    redirection.clear_policy(IMDS)
    side = _ask(environment, redirection, found, "without its row", direct=True)
    _ask(environment, redirection, found, "WireServer meanwhile", direct=False, wireserver=True)
    redirection.set_policy(IMDS)
    _ask(environment, redirection, found, "with its row again", direct=False)
    return found.result(
        "removal.policy", "A deleted policy row stops its redirection at once",
        "IMDS direct without its row, WireServer still redirected, IMDS redirected with it again",
        evidence={"without its row": side.evidence()},
    )  # fmt: skip


def _detached(environment: Environment) -> Result:
    """By BPF_PROG_DETACH, and no longer in the effective list."""
    found = Findings()
    lab = environment.lab
    with redirect(lab, environment.loaded, Way.MULTI) as redirection:
        _ask(environment, redirection, found, "attached", direct=False)
    redirection = _unattached(environment)
    _ask(environment, redirection, found, "detached", direct=True)
    found.expect(not _is_effective(environment), "detached, and still in the effective list")
    return found.result("removal.detach", "A detached program stops at once", "redirected before, direct after")


def _unattached(environment: Environment) -> Redirection:
    """The loaded program with its maps filled, attached to nothing."""
    fill(environment.loaded, environment.lab)
    return Redirection(environment.lab, environment.loaded, {})


def _is_effective(environment: Environment) -> bool:
    identity = bpf.prog_info(environment.loaded.programs["connect4"]).id
    return identity in attached.effective(environment.lab.client_cgroup, CONNECT4)


def _closed(environment: Environment) -> Result:
    """A link ends with its last descriptor."""
    found = Findings()
    redirection = _unattached(environment)
    program, group = environment.loaded.programs["connect4"], environment.lab.attach_cgroup
    try:
        with attach_one(program, group, CONNECT4, Way.LINK):
            found.expect(_is_effective(environment), "linked, but not in the effective list")
    except bpf.BpfError as error:
        return Result("removal.close", "A closed link is gone", Outcome.SKIP, f"no cgroup links here: {error}")
    found.expect(not _is_effective(environment), "the link is closed, and the program still runs")
    _ask(environment, redirection, found, "closed", direct=True)
    return found.result(
        "removal.close", "A closed link is gone", "in the effective list before, not after; direct again"
    )


def _owner_killed(environment: Environment) -> Result:
    """A link ends with its owner, also one that is killed."""
    title = "A link ends when its owner is killed"
    found = Findings()
    lab = environment.lab
    redirection = _unattached(environment)
    try:
        owner = lab.owner(environment.loaded.programs["connect4"], CONNECT4, Way.LINK)
    except HarnessError as error:
        return Result("removal.owner-killed", title, Outcome.SKIP, f"no cgroup links here: {error}")
    found.expect(_is_effective(environment), "linked by another process, but not in the effective list")
    lab.kill(owner)
    gone = wait_until(time.monotonic() + _PATIENCE, lambda: not _is_effective(environment))
    found.expect(gone, f"{_PATIENCE:g} s after SIGKILL the program still runs")
    _ask(environment, redirection, found, "after SIGKILL", direct=True)
    return found.result(
        "removal.owner-killed", title, "SIGKILL of the owner took the link with it; direct again",
        remedy="somebody else holds a descriptor of the link: `bpftool link` and `lsof` find it",
    )  # fmt: skip


def _left_behind(environment: Environment) -> Result:
    """PROG_ATTACH outlives its owner: every client is sent to a dead port, and we can tell."""
    title = "A program left by PROG_ATTACH is recognised as a stale redirect"
    found = Findings()
    lab = environment.lab
    redirection = _unattached(environment)
    redirection.set_policy(IMDS, DEAD)
    program = environment.loaded.programs["connect4"]
    lab.kill(lab.owner(program, CONNECT4, Way.SINGLE))
    try:
        found.expect(_is_effective(environment), "the program is gone with its owner")
        side = look(redirection, Request.to(IMDS))
        found.expect(
            side.seen.error == "ECONNREFUSED", f"a client saw {side.seen.error or side.seen.status}, not ECONNREFUSED"
        )
        stale = stale_redirects(lab)
        found.expect(len(stale) == 1, f"{len(stale)} stale redirects were recognised, not 1")
    finally:
        _detach(environment)
    redirection.set_policy(IMDS)
    found.expect(not stale_redirects(lab), "a stale redirect is reported after it was detached")
    _ask(environment, redirection, found, "after detaching", direct=True)
    return found.result(
        "removal.left-behind", title,
        f"ECONNREFUSED for the client; recognised: {stale[0] if stale else ''}; direct again once detached",
        evidence={"client": side.evidence()["client"], "code": codes.STALE_REDIRECT.id},
        guide=guide.NOT_APPLIED,
    )  # fmt: skip


def _detach(environment: Environment) -> None:
    program, group = environment.loaded.programs["connect4"], environment.lab.attach_cgroup
    directory = cgroups.open_directory(group)
    try:
        bpf.prog_detach(directory, program, CONNECT4)
    finally:
        os.close(directory)


def stale_redirects(lab: Lab) -> list[str]:
    """Programs that nobody's link holds and that send people to a port on which nobody listens, as sentences."""
    listening = set(map(tuple, lab.vm.call("listeners")))
    sentences = []
    for program in attached.at(lab.attach_cgroup, CONNECT4).programs:
        for wanted, instead in program.policies:
            if program.link is None and not _listens(listening, instead):
                sentences.append(f"{program.name} by PROG_ATTACH sends {wanted} to {instead}, where nobody listens")
    return sentences


def _listens(listening: set[tuple[str, int]], where: maps.Destination) -> bool:
    return (where.address, where.port) in listening or ("0.0.0.0", where.port) in listening
