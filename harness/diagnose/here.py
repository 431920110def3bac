"""The evidence of the machine that this runs on: read, never changed, in well under two seconds.

Commands are short ones with a limit of their own; what is not there is left out. Without root some of it is missing,
which the page then asks for.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from harness.command import run, text
from harness.diagnose import facts as f
from harness.diagnose import intake
from harness.diagnose.facts import Evidence, Source
from harness.errors import HarnessError
from harness.kernel import cgroups, facts
from harness.kernel.bpf import AttachType
from harness.program import attached

_LOGS = Path("/var/log/azure-proxy-agent")
FILES = (
    _LOGS / "status.json",
    Path("/etc/azure/proxy-agent.json"),
    Path("/var/lib/azure-proxy-agent/keys/status.tag"),
    Path("/usr/lib/systemd/system/azure-proxy-agent.service"),
    Path("/etc/os-release"),
    Path("/proc/cmdline"),
)
COMMANDS = (
    ("systemctl", "status", "azure-proxy-agent.service", "--no-pager", "--lines=20"),
    ("dpkg-query", "-W", "azure-proxy-agent"),
    ("azure-proxy-agent", "--version"),
    ("cloud-init", "--version"),  # the slowest: 0.3 s of Python
)
_PATIENCE = 1.2  # seconds for all commands together
_LOG_TAIL = 256 << 10  # bytes of the newest log
_MOST_CGROUPS = 2000


def evidence() -> Evidence:
    """What this machine shows. Raises nothing for what is missing on it."""
    found: list[f.Fact] = []
    documents: list[f.Document] = []
    notes: list[f.Note] = []
    for read in (_files, _commands):
        for one in read():
            found += one.facts
            documents += one.documents
            notes += [note for note in one.notes if note.kind is not f.NoteKind.NOT_UNDERSTOOD]
    for name, ask in _ASKED:
        try:
            facts_of = list(ask())
        except (OSError, HarnessError) as error:
            notes.append(f.Note(f.NoteKind.UNREADABLE, name, str(error)))
            continue
        found += facts_of
        documents.append(f.Document(name, 0, tuple({type(fact).__name__ for fact in facts_of})))
    return Evidence(found, documents, notes)


def _files() -> Iterator[Evidence]:
    logs = sorted(_LOGS.glob("ProxyAgent*.log"), key=lambda path: path.stat().st_mtime)[-1:]
    for path in (*FILES, *logs):
        try:
            with path.open("rb") as file:
                if path in logs:
                    file.seek(max(0, path.stat().st_size - _LOG_TAIL))
                data = file.read(4 << 20)
        except OSError:
            continue
        yield intake.read_bytes(data, str(path))


def _commands() -> Iterator[Evidence]:
    """What the commands print; one that is not there, or not done when the time is over, is left out."""
    ends = time.monotonic() + _PATIENCE
    for command in COMMANDS:
        left = ends - time.monotonic()
        if left <= 0 or shutil.which(command[0]) is None:
            continue
        try:
            done = run(command, timeout=left, check=False)
        except HarnessError:
            continue
        output = text(done.stdout) + text(done.stderr)
        yield intake.read_bytes(f"$ {' '.join(command)}\n{output}".encode(), " ".join(command[:2]))


def _kernel() -> Iterator[f.Fact]:
    release = facts.release()
    numbers = [int(part) for part in release.split("-")[0].split(".")[:2] if part.isdecimal()]
    version = (numbers[0], numbers[1]) if len(numbers) == 2 else None
    yield f.KernelRelease(Source("uname -r", 1, release), release, version, None, os.uname().machine)


def _filesystems() -> Iterator[f.Fact]:
    lines = Path("/proc/filesystems").read_text().splitlines()
    names = frozenset(line.split()[-1] for line in lines if line.strip())
    shown = ", ".join(name for name in sorted(names) if "cgroup" in name) or "no cgroup"
    yield f.Filesystems(Source("/proc/filesystems", 0, shown), names, whole=True)


def _mounts() -> Iterator[f.Fact]:
    table = cgroups.mounts()
    shown = ", ".join(str(mount.point) for mount in table if mount.type == "cgroup2") or "no cgroup2"
    yield f.Mounts(Source("/proc/self/mountinfo", 0, f"cgroup2: {shown}"), tuple(table), only="")


def _programs() -> Iterator[f.Fact]:
    """connect4 programs of every cgroup below the first cgroup2 mount; asking the kernel needs root."""
    mounts = cgroups.layout().cgroup2
    if not mounts or os.geteuid() != 0:
        return
    rows: list[f.AttachedProgram] = []
    places = list(cgroups.tree(mounts[0].point))[-_MOST_CGROUPS:]
    for path in places:
        try:
            place = attached.at(path, AttachType.CGROUP_INET4_CONNECT)
        except HarnessError:
            continue
        flags = "" if place.mode in ("none", "single") else place.mode
        rows += [
            f.AttachedProgram(str(path), row.id, "cgroup_inet4_connect", flags, row.name) for row in place.programs
        ]
    shown = ", ".join(f"{row.name or row.id} at {row.cgroup}" for row in rows[:3]) or "no connect4 program is attached"
    yield f.CgroupPrograms(Source("BPF_PROG_QUERY of every cgroup", 0, shown), tuple(rows), whole=True)


def _paths() -> Iterator[f.Fact]:
    for path in (Path("/usr/sbin/azure-proxy-agent"), _LOGS / "status.json"):
        there = path.exists()
        yield f.PathSeen(Source(str(path), 0, "is there" if there else "is not there"), str(path), there)
    for folder in Path("/var/lib/waagent").glob("Microsoft.CPlat.ProxyAgent.ProxyAgentLinux-*"):
        name, _, version = folder.name.rpartition("-")
        yield f.ExtensionInstalled(Source(str(folder), 0, folder.name), name, version)


_ASKED: Sequence[tuple[str, Callable[[], Iterator[f.Fact]]]] = (
    ("uname -r", _kernel),
    ("/proc/filesystems", _filesystems),
    ("/proc/self/mountinfo", _mounts),
    ("cgroup programs", _programs),
    ("paths", _paths),
)
