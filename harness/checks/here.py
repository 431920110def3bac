"""The answers of this machine to the questions that decide why an attach failed: read, never changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.command import run, text
from harness.errors import HarnessError
from harness.kernel import cgroups, facts
from harness.kernel.bpf import AttachType
from harness.program import attached
from harness.verifier import attach

AGENT_COMMAND = "azure-proxy-age"  # /proc/PID/comm holds 15 bytes of azure-proxy-agent


def answers() -> dict[str, str]:
    """What this machine says, by the ids of attach.QUESTIONS; a question that cannot be asked here is left out."""
    table: dict[str, Callable[[], str | None]] = {
        attach.RELEASE.id: facts.release,
        attach.FILESYSTEMS.id: _filesystems,
        attach.MOUNTS.id: _mounts,
        attach.FINDMNT.id: _findmnt,
        attach.TREE.id: lambda: _tree(every=True),
        attach.COUNT.id: lambda: _tree(every=False),
        attach.CAPABILITIES.id: _capabilities,
        attach.CGROUP.id: _cgroup,
    }
    found = {}
    for name, ask in table.items():
        try:
            answer = ask()
        except (OSError, HarnessError):
            continue
        if answer is not None:
            found[name] = answer
    return found


def _filesystems() -> str:
    lines = Path("/proc/filesystems").read_text().splitlines()
    return "\n".join(line for line in lines if "cgroup" in line)


def _mounts() -> str:
    """As mount(8) prints them."""
    lines = [f"none on {mount.point} type {mount.type} ({mount.options})" for mount in cgroups.layout().cgroup2]
    return "\n".join(lines)


def _findmnt() -> str:
    if shutil.which("findmnt") is None:
        return "\n".join(str(mount.point) for mount in cgroups.layout().cgroup2)
    return text(run(["findmnt", "-t", "cgroup2"], check=False).stdout)


def _tree(*, every: bool) -> str | None:
    """Rows as bpftool prints them, of the first mount's root or of every cgroup below it; needs root."""
    mounts = cgroups.layout().cgroup2
    if not mounts or os.geteuid() != 0:
        return None
    root = mounts[0].point
    rows = [row for place in (cgroups.tree(root) if every else [root]) for row in _rows(place)]
    return "\n".join(rows) or "no program is attached"


def _rows(place: Path) -> Iterator[str]:
    here = attached.at(place, AttachType.CGROUP_INET4_CONNECT)
    flags = "" if here.mode in ("none", "single") else here.mode
    for program in here.programs:
        yield f"{place} {program.id} cgroup_inet4_connect4 {flags} {program.name}"


def _capabilities() -> str | None:
    """The running agent's; None when none runs."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "comm").read_text().strip() == AGENT_COMMAND:
                status = (process / "status").read_text()
                return next(line for line in status.splitlines() if line.startswith("CapEff:"))
        except OSError:
            continue
    return None


def _cgroup() -> str:
    mounts = cgroups.layout().cgroup2
    path = (mounts[0].point if mounts else cgroups.CONFIGURED_ROOT) / "cgroup.controllers"
    return str(path) if path.exists() else f"{path}: No such file or directory"
