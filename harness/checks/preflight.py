"""Check 1: what this machine and this kernel have, before anything is loaded; each with what to do.

A blocking FAIL here means that nothing further can be found out on this machine: exit code 3.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.checks.machine import Machine
from harness.checks.results import timed
from harness.errors import HarnessError
from harness.kernel import cgroups, facts, packages, processes
from harness.kernel.features import FEATURES, Answer
from harness.msp import codes, guide, verifier_codes
from harness.program import bundle, headers, maps
from harness.program.compile import Join
from harness.report import Json, Outcome, Result

DOCUMENTED_FLOOR = "5.15"  # the guide's prerequisites
MEASURED_FLOOR = "5.7"  # shared/facts/kernels.md: the helpers that the agent's connect4 calls

NEEDED = ("CAP_BPF", "CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_NET_RAW", "CAP_SETUID", "CAP_SETGID", "CAP_KILL")
"""CAP_SYS_ADMIN: namespaces and reading other programs; CAP_NET_ADMIN: attaching and the lab's network; CAP_NET_RAW:
the capture; the others: clients of another uid."""

_FIRST_CAP_BPF = 39


def look(machine: Machine) -> Iterator[Result]:
    """All of preflight's Results."""
    for name, title, function, place in (
        ("privileges", "Privileges", privileges, None),
        ("pid-namespace", "Initial pid namespace", pid_namespace, None),
        ("kernel", "What the kernel offers", lambda: kernel(machine), guide.SERVICE_LINUX),
        ("cgroup2", "cgroup2 is mounted and usable", cgroup2, guide.ATTACH_FAILED),
        ("lockdown", "Kernel lockdown", lockdown, None),
        ("memlock", "Locked memory limit", lambda: memlock(machine), None),
        ("bcc", "BCC", bcc, None),
        ("headers", "Kernel headers", kernel_headers, None),
        ("tools", "Tools that the census drives", tools, None),
    ):
        yield from timed(f"preflight.{name}", title, _once(function), place)


RESULTS = 9
"""How many Results look() gives."""


def _once(function: Callable[[], Result]) -> Callable[[], Iterator[Result]]:
    return lambda: iter([function()])


def _fail(name: str, title: str, summary: str, remedy: str, **more: object) -> Result:
    return Result(f"preflight.{name}", title, Outcome.FAIL, summary, remedy=remedy, blocking=True, **more)  # type: ignore[arg-type]


def privileges() -> Result:
    title = "Privileges"
    if os.geteuid() != 0:
        return _fail("privileges", title, f"run as uid {os.geteuid()}, not as root", "run it with sudo, or as root")
    needed = [name for name in NEEDED if name != "CAP_BPF" or facts.last_capability() >= _FIRST_CAP_BPF]
    held = facts.capabilities()
    missing = [name for name in needed if name not in held and not (name == "CAP_BPF" and "CAP_SYS_ADMIN" in held)]
    if missing:
        remedy = "in a container: docker run --privileged --pid=host --cgroupns=host; on a host: run as full root"
        return _fail(
            "privileges", title, f"root, but without {', '.join(missing)}", remedy, evidence={"missing": missing}
        )
    if facts.in_user_namespace():
        remedy = "run it outside the user namespace (no rootless container, no userns-remap)"
        return _fail("privileges", title, "root of a user namespace only: bpf(2) asks for the machine's root", remedy)
    return Result("preflight.privileges", title, Outcome.PASS, f"root with {', '.join(needed)}")


def pid_namespace() -> Result:
    title = "Initial pid namespace"
    if processes.in_initial_pid_namespace():
        return Result("preflight.pid-namespace", title, Outcome.PASS, "pids here are those that programs see")
    summary = "a pid namespace of its own: skip_process_map would name other processes than it is meant to"
    return _fail("pid-namespace", title, summary, "in a container: run it with --pid=host; the agent needs the same")


def kernel(machine: Machine) -> Result:
    """Every feature of the table, judged by its probe; versions are shown beside the answers and decide nothing."""
    title = "What the kernel offers"
    release = facts.release()
    said = {
        feature.name: f"{machine.features[feature.name].answer}: {machine.features[feature.name].said} "
        f"(mainline from {feature.since})"
        for feature in FEATURES
    }
    evidence: dict[str, Json] = {
        "release": release,
        "documented floor": DOCUMENTED_FLOOR,
        "measured floor": MEASURED_FLOOR,
        "probes": said,
    }
    asked = [feature for feature in FEATURES if feature.needed or feature.without]
    lacking = [feature for feature in asked if not machine.has(feature.name)]
    needed = [feature for feature in lacking if feature.needed]
    unknown = [feature for feature in needed if machine.features[feature.name].answer is Answer.UNKNOWN]
    if unknown:
        said_there = "; ".join(f"{feature.title}: {machine.features[feature.name].said}" for feature in unknown)
        summary = f"could not ask for {said_there}"
        remedy = "see preflight.privileges; seccomp or an LSM may refuse bpf(2): try outside the container"
        return Result("preflight.kernel", title, Outcome.ERROR, summary, evidence, remedy=remedy, blocking=True)
    if needed:
        names = ", ".join(f"{feature.title} (mainline from {feature.since})" for feature in needed)
        remedy = "use a kernel that has it, or opt out of MSP: redirection cannot work on this one"
        return _fail(
            "kernel", title, f"{release} lacks {names}", remedy, evidence=evidence, code=_load_code(needed[0].name)
        )
    if lacking:
        lost = "; ".join(f"no {feature.title}: {feature.without}" for feature in lacking)
        return Result(
            "preflight.kernel", title, Outcome.WARN, f"{release} has what redirection needs, but {lost}", evidence
        )
    return Result("preflight.kernel", title, Outcome.PASS, f"{release} has all {len(asked)} things asked for", evidence)


JOINS = {Join.SOCK_OPS: "sock-ops", Join.KPROBE: "kprobe"}
"""Which feature each way of completing audit records needs."""


def cannot_join(machine: Machine, join: Join) -> Result | None:
    """A FAIL when audit records cannot be completed in this way here, else nothing.

    The best way is always one that there is, so that this is about the one that was asked for.
    """
    if join is Join.NONE or machine.has(JOINS[join]):
        return None
    said = machine.features[JOINS[join]].said
    others = [other for other, feature in JOINS.items() if machine.has(feature)]
    remedy = f"use `--audit {others[0]}`, or leave --audit out" if others else "leave --audit out"
    return _fail("audit", "The way of completing audit records that was asked for", f"no {join} here: {said}", remedy)


def _load_code(feature: str) -> str | None:
    return codes.NO_PROGRAM_TYPE.id if feature == "connect4" else None


def cgroup2() -> Result:
    title = "cgroup2 is mounted and usable"
    layout = cgroups.layout()
    evidence = {
        "layout": layout.name,
        "mounts": [str(mount.point) for mount in layout.cgroup2],
        "/sys/fs/cgroup": layout.configured_root_type,
    }
    if not cgroups.supported():
        code = codes.NO_CGROUP2_IN_KERNEL
        return _fail("cgroup2", title, "the kernel has no cgroup2", code.remedy, evidence=evidence, code=code.id)
    if not layout.cgroup2:
        code = codes.NO_CGROUP2_MOUNTED
        return _fail(
            "cgroup2", title, "the kernel has cgroup2, nothing mounts it", code.remedy, evidence=evidence, code=code.id
        )
    point = layout.cgroup2[0].point
    if not os.access(point / "cgroup.procs", os.W_OK) or "ro" in layout.cgroup2[0].options.split(","):
        remedy = "in a container: docker run --privileged --cgroupns=host; on a host: mount -o remount,rw " + str(point)
        return _fail("cgroup2", title, f"{point} cannot be written", remedy, evidence=evidence)
    if layout.name == "hybrid":
        code = codes.CGROUP2_ELSEWHERE
        at_root = layout.configured_root_type
        summary = f"at {point}; /sys/fs/cgroup is {at_root}: an agent without findmnt attaches there, EBADF"
        return Result("preflight.cgroup2", title, Outcome.WARN, summary, evidence, remedy=code.remedy, code=code.id)
    if len(layout.cgroup2) > 1:
        code = codes.WRONG_CGROUP2_MOUNT
        summary = f"{len(layout.cgroup2)} mounts; the agent takes the first: {point}"
        return Result("preflight.cgroup2", title, Outcome.WARN, summary, evidence, remedy=code.remedy, code=code.id)
    return Result("preflight.cgroup2", title, Outcome.PASS, f"at {point}", evidence)


def lockdown() -> Result:
    title = "Kernel lockdown"
    mode = facts.lockdown()
    if mode == "confidentiality":
        remedy = "boot without lockdown=confidentiality: it takes the helpers that read kernel memory"
        summary = "confidentiality: kprobe programs that read kernel memory, as the agent's does, are refused"
        return Result("preflight.lockdown", title, Outcome.WARN, summary, {"lockdown": mode}, remedy=remedy)
    summary = "the kernel shows no lockdown" if mode is None else f"{mode}: does not keep redirection from working"
    return Result("preflight.lockdown", title, Outcome.PASS, summary, {"lockdown": mode or "not shown"})


def memlock(machine: Machine) -> Result:
    """Kernels before 5.11 charge maps to RLIMIT_MEMLOCK; whether this one refuses was asked by making maps."""
    title = "Locked memory limit"
    found, code = machine.locked_memory, verifier_codes.MEMLOCK
    limit = "unlimited" if found.limit is None else f"{found.limit} B"
    if found.still_refused:
        summary = f"{limit}; making maps of {maps.AUDIT_ENTRIES} entries: {found.still_refused}"
        return _fail("memlock", title, summary, code.remedy, evidence={"limit": limit}, code=code.id)
    if found.refused:
        summary = (
            f"{limit}: maps of {maps.AUDIT_ENTRIES} entries were refused, {found.refused}, until this process lifted "
            "its own limit; a service under such a limit cannot load"
        )
        return Result(
            "preflight.memlock", title, Outcome.WARN, summary, {"limit": limit}, remedy=code.remedy, code=code.id
        )
    return Result("preflight.memlock", title, Outcome.PASS, f"{limit}; maps can be made", {"limit": limit})


def bcc() -> Result:
    """BCC is found, and is the BPF Compiler Collection; it is imported only when it compiles."""
    title = "BCC"
    given = _given("bcc", title)
    if given is not None:
        return given
    found = importlib.util.find_spec("bcc")
    distribution = Path("/usr/lib/python3/dist-packages/bcc")
    if found is None or not found.submodule_search_locations:
        if distribution.is_dir() and not sys.path.count(str(distribution.parent)):
            remedy = "use `make verify`, or a virtual environment of /usr/bin/python3 with --system-site-packages"
            return _fail("bcc", title, f"{sys.executable} does not see the distribution's Python modules", remedy)
        return _fail("bcc", title, f"{sys.executable} has no module bcc", packages.install_hint([packages.BCC]))
    place = Path(next(iter(found.submodule_search_locations)))
    if not (place / "libbcc.py").exists():
        remedy = f"remove it (pip uninstall bcc); {packages.install_hint([packages.BCC])}"
        return _fail("bcc", title, f"{place} is not the BPF Compiler Collection: PyPI's bcc is another project", remedy)
    evidence = {"place": str(place), "python": platform.python_version()}
    return Result("preflight.bcc", title, Outcome.PASS, f"{place}", evidence)


def _given(name: str, title: str) -> Result | None:
    """The Result where programs come compiled, so that this is not needed; None where it is."""
    try:
        found = bundle.given()
    except HarnessError as error:
        return _fail(name, title, f"{error.attempted}: {error.happened}", error.remedy or "make the bundle again")
    if found is None:
        return None
    said = f"not needed: {len(found.rows)} programs came compiled"
    return Result(f"preflight.{name}", title, Outcome.PASS, said, {bundle.VARIABLE: "given"})


def kernel_headers() -> Result:
    title = "Kernel headers"
    given = _given("headers", title)
    if given is not None:
        return given
    try:
        tree = headers.headers_tree()
    except HarnessError as error:
        return _fail("headers", title, f"{error.attempted}: {error.happened}", error.remedy or "install kernel headers")
    whose = "of this kernel" if tree.is_running_kernel else "of another kernel; only user interface types are used"
    evidence = {"release": tree.release, "origin": tree.origin}
    return Result("preflight.headers", title, Outcome.PASS, f"{tree.release}, {whose}", evidence)


def tools() -> Result:
    """Commands that some rows of the census drive; without them those rows are SKIP."""
    title = "Tools that the census drives"
    missing = [name for name in ("curl",) if shutil.which(name) is None]
    if missing:
        remedy = packages.install_hint([packages.CURL])
        return Result(
            "preflight.tools", title, Outcome.WARN, f"no {', '.join(missing)}: its rows are left out", remedy=remedy
        )
    return Result("preflight.tools", title, Outcome.PASS, "curl")
