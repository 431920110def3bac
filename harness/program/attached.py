"""What is attached to a cgroup, whose it is, and where it sends people: read from the kernel."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.kernel import bpf, cgroups
from harness.kernel.bpf import AttachFlag, AttachType
from harness.program import maps


@dataclass(frozen=True)
class AttachedProgram:
    """A program as the kernel knows it. link is the id of the link that holds it; None: held by PROG_ATTACH."""

    id: int
    name: str
    tag: str
    link: int | None
    policies: tuple[tuple[maps.Destination, maps.Destination], ...]  # its policy_map, where it has one of MSP's form


@dataclass(frozen=True)
class Place:
    """What one cgroup itself has attached."""

    cgroup: Path
    flags: AttachFlag
    programs: tuple[AttachedProgram, ...]

    @property
    def mode(self) -> str:
        """none, single (exclusive), override or multi; links count as multi."""
        if not self.programs:
            return "none"
        return {AttachFlag.NONE: "single", AttachFlag.ALLOW_OVERRIDE: "override"}.get(self.flags, "multi")


def at(cgroup: Path, kind: AttachType) -> Place:
    """What is attached to a cgroup itself."""
    directory = cgroups.open_directory(cgroup)
    try:
        answer = bpf.prog_query(directory, kind)
    finally:
        os.close(directory)
    links = _links(cgroup, kind)
    return Place(cgroup, answer.flags, tuple(describe(program, links.get(program)) for program in answer.programs))


def effective(cgroup: Path, kind: AttachType) -> tuple[int, ...]:
    """The ids of the programs that run for a process in this cgroup, in their order."""
    directory = cgroups.open_directory(cgroup)
    try:
        return bpf.prog_query(directory, kind, effective=True).programs
    finally:
        os.close(directory)


def _links(cgroup: Path, kind: AttachType) -> dict[int, int]:
    """Program id → link id, of the links on this cgroup; empty where the kernel cannot list links (before 5.8)."""
    identity = cgroup.stat().st_ino  # a cgroup's id is its directory's inode number
    try:
        return {link.program: link.id for link in bpf.cgroup_links() if link.cgroup == identity and link.attach == kind}
    except bpf.BpfError:
        return {}


def describe(program: int, link: int | None = None) -> AttachedProgram:
    """What the kernel tells of a program by its id; a program that is gone has only its id."""
    try:
        with bpf.prog_fd(program) as fd:
            info = bpf.prog_info(fd)
    except bpf.BpfError:
        return AttachedProgram(program, "", "", link, ())
    return AttachedProgram(program, info.name, info.tag, link, tuple(_policies(info.map_ids)))


def _policies(map_ids: tuple[int, ...]) -> list[tuple[maps.Destination, maps.Destination]]:
    layout = maps.LAYOUTS["policy_map"]
    rows = []
    for identity in map_ids:
        try:
            with bpf.map_fd(identity) as fd:
                info = bpf.map_info(fd)
                sizes = (info.type, info.key_size, info.value_size)
                if info.name == "policy_map" and sizes == (layout.type, layout.key_size, layout.value_size):
                    rows += list(maps.policies(fd))
        except HarnessError:
            continue  # gone since, or not ours to read
    return rows
