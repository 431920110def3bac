"""Check 3: by which ways a connect4 program can be attached here, what else is on the path, and whether it runs."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

from harness.checks.base import Environment
from harness.checks.results import Findings
from harness.errors import errno_name
from harness.kernel import bpf, cgroups
from harness.kernel.bpf import AttachType
from harness.msp import codes, guide
from harness.program import attached
from harness.program.attach import Way, attach_one
from harness.report import Outcome, Result

CONNECT4 = AttachType.CGROUP_INET4_CONNECT

WAYS = {
    Way.LINK: "by bpf_link (kernels from 5.7, as the agent does it there)",
    Way.SINGLE: "by BPF_PROG_ATTACH, exclusive",
    Way.OVERRIDE: "by BPF_PROG_ATTACH, children may override",
    Way.MULTI: "by BPF_PROG_ATTACH, beside others",
}


def ways(environment: Environment) -> Iterator[Result]:
    """Each way of attaching, on a cgroup of the run's own: accepted, listed there, effective below, and gone after."""
    for way, title in WAYS.items():
        yield _way(environment, way, title)


def _way(environment: Environment, way: Way, title: str) -> Result:
    lab = environment.lab
    program = environment.loaded.programs["connect4"]
    identity = bpf.prog_info(program).id
    found = Findings()
    evidence: dict[str, str] = {}
    try:
        with attach_one(program, lab.attach_cgroup, CONNECT4, way):
            place = attached.at(lab.attach_cgroup, CONNECT4)
            effective = attached.effective(lab.client_cgroup, CONNECT4)
            here = [one for one in place.programs if one.id == identity]
            found.expect(bool(here), "accepted, but not listed for the cgroup it was attached to")
            found.expect(identity in effective, "attached, but not in the effective list of the client's cgroup")
            found.expect(not here or (here[0].link is not None) == (way is Way.LINK) or not bpf_lists_links(),
                         "a link is listed where none was made, or none where one was")  # fmt: skip
            wanted = "multi" if way is Way.LINK else str(way)
            found.expect(place.mode == wanted, f"the cgroup's mode is {place.mode}, not {wanted}")
            evidence = {"mode": place.mode, "effective for the client": f"{len(effective)} program(s), ours among them"}
    except bpf.BpfError as error:
        return _refused(way, title, error, environment)
    found.expect(identity not in attached.effective(lab.client_cgroup, CONNECT4), "still effective after detaching")
    return found.result(f"attach.{way}", f"Attach {title}", "attached, effective below, gone after", evidence=evidence)


def bpf_lists_links() -> bool:
    """Whether this kernel can list links (5.8)."""
    try:
        next(bpf.cgroup_links(), None)
    except bpf.BpfError:
        return False
    return True


def _refused(way: Way, title: str, error: bpf.BpfError, environment: Environment) -> Result:
    """The kernel's refusal, told apart by errno and by what is on the path."""
    code = explain_errno(error.errno, environment.lab.attach_cgroup, way)
    evidence = {"errno": errno_name(error.errno), "call": error.attempted}
    if way is Way.LINK and error.errno == errno.EINVAL:
        summary = "this kernel has no cgroup bpf_link (before 5.7); the agent falls back to BPF_PROG_ATTACH"
        return Result(f"attach.{way}", f"Attach {title}", Outcome.SKIP, summary, evidence, code=codes.NO_CGROUP_LINK.id)
    return Result(
        f"attach.{way}", f"Attach {title}", Outcome.FAIL, str(error), evidence,
        remedy=code.remedy, guide=code.guide, code=code.id,
    )  # fmt: skip


def explain_errno(number: int, cgroup: Path, way: Way) -> codes.Code:
    """The finding behind an attach that the kernel refused."""
    table = {
        errno.EBADF: codes.NOT_CGROUP2,
        errno.EINVAL: codes.NO_CGROUP_LINK if way is Way.LINK else codes.ATTACH_TYPE_MISMATCH,
        errno.E2BIG: codes.TOO_MANY_PROGRAMS,
        errno.ENODEV: codes.CGROUP_REMOVED,
        errno.ENOENT: codes.CGROUP_REMOVED,
    }
    if number == errno.EPERM:
        exclusive = [place for place in path(cgroup) if place.mode == "single"]
        return codes.EXCLUSIVE_PROGRAM if exclusive else codes.NO_PRIVILEGE_TO_ATTACH
    return table.get(number, codes.ATTACH_FAILED_UNKNOWN)


def path(cgroup: Path) -> list[attached.Place]:
    """What is attached on the way from the cgroup2 root down to a cgroup, less the cgroup itself."""
    mount = next(mount for mount in cgroups.layout().cgroup2 if cgroup.is_relative_to(mount.point))
    return [attached.at(place, CONNECT4) for place in cgroups.ancestors(cgroup.parent, mount.point)]


def _owner(program: attached.AttachedProgram) -> str:
    return f"{program.name or '(unnamed)'} id {program.id} by {'link' if program.link else 'PROG_ATTACH'}"


def neighbours(environment: Environment) -> Iterator[Result]:
    """What others have attached as connect4 on the path from the root, and whether it conflicts."""
    title = "Other connect4 programs on the path"
    places = [place for place in path(environment.lab.attach_cgroup) if place.programs]
    if not places:
        yield Result("attach.path", title, Outcome.PASS, "none from the cgroup2 root down")
        return
    found = [f"{place.cgroup} ({place.mode}): {', '.join(map(_owner, place.programs))}" for place in places]
    exclusive = [place for place in places if place.mode == "single"]
    summary = f"{sum(len(place.programs) for place in places)} attached by others; they run before or after ours"
    code = codes.REWRITTEN_LATER
    if exclusive:
        summary = f"{exclusive[0].cgroup} holds an exclusive program: attaching below it gives EPERM"
        code = codes.EXCLUSIVE_PROGRAM
    yield Result(
        "attach.path", title, Outcome.WARN, summary, {"modes": [place.mode for place in places]}, {"programs": found},
        remedy=f"`bpftool cgroup tree` names the owners; {code.remedy}", guide=guide.ATTACH_FAILED, code=code.id,
    )  # fmt: skip
