"""Facts of the kernel, its cgroups and its BPF programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.diagnose.facts.base import Fact
from harness.kernel.cgroups import Mount


@dataclass(frozen=True, slots=True)
class KernelRelease(Fact):
    """uname: the release, and of `uname -a` the rest."""

    release: str
    version: tuple[int, int] | None = None  # (5, 10); what it says is for people, verdicts rest on evidence
    host: str | None = None
    machine: str | None = None  # x86_64, aarch64


@dataclass(frozen=True, slots=True)
class OsRelease(Fact):
    """/etc/os-release, by name; lsb_release and hostnamectl give PRETTY_NAME, systeminfo NAME and VERSION."""

    fields: Mapping[str, str]

    @property
    def id(self) -> str | None:
        return self.fields.get("ID")

    @property
    def version(self) -> str | None:
        return self.fields.get("VERSION_ID")

    @property
    def pretty(self) -> str | None:
        return self.fields.get("PRETTY_NAME")


@dataclass(frozen=True, slots=True)
class Filesystems(Fact):
    """/proc/filesystems. whole is False for the output of `grep cgroup`: then only cgroup names can be looked for."""

    names: frozenset[str]
    whole: bool

    @property
    def cgroup2(self) -> bool:
        return "cgroup2" in self.names


@dataclass(frozen=True, slots=True)
class Mounts(Fact):
    """mount, findmnt, /proc/mounts or mountinfo, in the text's order (findmnt and the agent take the first cgroup2).

    only is the type or word that the text was limited to (`mount | grep cgroup2`, `findmnt -t cgroup2`), "" for a
    whole table, None where that is not known: then what is missing proves nothing.
    """

    mounts: tuple[Mount, ...]
    only: str | None

    @property
    def cgroup2(self) -> tuple[Mount, ...]:
        return tuple(mount for mount in self.mounts if mount.type == "cgroup2")

    @property
    def v1(self) -> tuple[Mount, ...]:
        return tuple(mount for mount in self.mounts if mount.type == "cgroup")

    def says_about(self, kind: str) -> bool:
        """Whether a file system of this type would stand here if it were mounted."""
        return self.only is not None and self.only in kind


@dataclass(frozen=True, slots=True)
class CommandLine(Fact):
    """/proc/cmdline."""

    words: tuple[str, ...]

    def get(self, name: str) -> str | None:
        """The last value of NAME=value; "" for a bare NAME; None where it is not there."""
        for word in reversed(self.words):
            if word.partition("=")[0] == name:
                return word.partition("=")[2]
        return None


@dataclass(frozen=True, slots=True)
class BpfProgram:
    """A program, as bpftool prog lists it."""

    id: int
    type: str  # cgroup_sock_addr, kprobe …
    name: str | None = None
    tag: str | None = None
    loaded: str | None = None
    uid: int | None = None
    pids: tuple[tuple[int, str], ...] = ()  # (pid, command) of who holds it


@dataclass(frozen=True, slots=True)
class BpfPrograms(Fact):
    programs: tuple[BpfProgram, ...]


@dataclass(frozen=True, slots=True)
class AttachedProgram:
    """A line of bpftool cgroup show or tree."""

    cgroup: str | None  # None: the text does not say
    id: int
    attach_type: str  # cgroup_inet4_connect (connect4 in older bpftool), as in BPF's uapi, lower case
    flags: str  # "", multi, override
    name: str | None

    @property
    def connect4(self) -> bool:
        return self.attach_type in ("connect4", "cgroup_inet4_connect")


@dataclass(frozen=True, slots=True)
class CgroupPrograms(Fact):
    programs: tuple[AttachedProgram, ...]
    whole: bool  # a whole tree: what is missing is not attached
    effective: bool = False  # asked for with `effective`


@dataclass(frozen=True, slots=True)
class VerifierLog(Fact):
    """A verifier log that stands by itself; one in a message stays in the message."""

    text: str
