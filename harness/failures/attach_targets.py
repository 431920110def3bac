"""Attach failures whose cause is the directory: not cgroup2, not there, not there any more.

Each recipe opens what an agent would open and makes a link there with a program that allows every connect. The
states that a host may not have are made in mount and cgroup namespaces of a child, and end with it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.failures import children
from harness.failures.assembler import ALLOW
from harness.failures.model import ACCEPTED, Answer, Failure, Family, NotHere, Recipe, Setting, Shown, asked
from harness.kernel import bpf, cgroups, mounts
from harness.kernel.bpf import AttachType, ProgramType
from harness.kernel.cgroups import CONFIGURED_ROOT
from harness.lab import state
from harness.msp import codes
from harness.msp.messages import Form
from harness.program.attach import Way, attach_one
from harness.report.model import Json

CONNECT4 = AttachType.CGROUP_INET4_CONNECT


@contextmanager
def allowing(attach: AttachType = CONNECT4) -> Iterator[bpf.Fd]:
    """A loaded program that lets every connect pass."""
    with bpf.prog_load(ProgramType.CGROUP_SOCK_ADDR, ALLOW, attach=attach, name="connect4")[0] as program:
        yield program


def kind_of(path: Path) -> str:
    """The type of the file system that path is on, as mountinfo says."""
    covering = [mount for mount in cgroups.mounts() if path.is_relative_to(mount.point)]
    deepest = max((len(mount.point.parts) for mount in covering), default=0)
    return next((mount.type for mount in reversed(covering) if len(mount.point.parts) == deepest), "unknown")


def link_at(path: Path, did: str = "", shown: str = "") -> Answer:
    """Open a path as the agent does (whatever it is) and make a link there; shown replaces a path of the run's own."""
    what = did or f"BPF_LINK_CREATE on {shown or path} ({kind_of(path)})"

    def step() -> bpf.Fd:
        directory = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with allowing() as program:
                return bpf.link_create(directory, program, CONNECT4)
        finally:
            os.close(directory)

    return asked(what, step)


def agents_root() -> Path:
    """Where the agent attaches: the first cgroup2 mount, else the configured root."""
    found = cgroups.layout().cgroup2
    return found[0].point if found else CONFIGURED_ROOT


def _in_namespaces(
    build: Callable[[Path], list[Answer]], name: str, first: Callable[[Path], None] | None = None
) -> Recipe:
    """A recipe whose states are made in a child's own namespaces; build gets a directory to work in.

    first is done before the child takes a cgroup namespace: only outside of one can a v1 hierarchy be made.
    """

    def recipe(setting: Setting) -> Shown:
        work = setting.run.directory / name
        work.mkdir()
        with setting.cgroup(name) as cgroup:

            def step() -> list[Answer]:
                mounts.take_own()
                mounts.mount("tmpfs", work, "tmpfs")
                if first is not None:
                    first(work)
                children.take_as_root(cgroup)
                return build(work)

            failing, repaired = children.in_child(step)
        return Shown(failing, repaired)

    return recipe


def _mounted(work: Path, name: str, kind: str, data: str = "") -> Path:
    point = work / name
    point.mkdir(exist_ok=True)
    mounts.mount(kind, point, kind, data=data)
    return point


def _tmpfs(work: Path) -> list[Answer]:
    refused = _mounted(work, "cgroup", "tmpfs")
    return [link_at(refused, shown="a tmpfs"), link_at(_mounted(work, "unified", "cgroup2"), shown="a cgroup2 mount")]


def _make_v1(work: Path) -> None:
    """A v1 hierarchy without controllers where the host has none: it is gone with the child."""
    if not cgroups.layout().v1:
        _mounted(work, "v1", "cgroup", f"none,name={state.PREFIX}{work.parent.name}")


def _v1(work: Path) -> list[Answer]:
    return [
        link_at(cgroups.layout().v1[0].point, "BPF_LINK_CREATE on a cgroup v1 hierarchy"),
        link_at(_mounted(work, "unified", "cgroup2"), shown="a cgroup2 mount"),
    ]


def _v1_recipe(setting: Setting) -> Shown:
    if not cgroups.layout().v1 and "cgroup" not in Path("/proc/filesystems").read_text().split():
        raise NotHere("this kernel has no cgroup v1", "boot one with CONFIG_CGROUPS and a v1 controller, as most are")
    return _in_namespaces(_v1, "v1", _make_v1)(setting)


def _file(work: Path) -> list[Answer]:
    unified = _mounted(work, "unified", "cgroup2")
    file = unified / "cgroup.procs"
    return [link_at(file, "BPF_LINK_CREATE on a file (cgroup.procs)"), link_at(unified, shown="the directory it is in")]


def _directory(work: Path) -> list[Answer]:
    return [
        link_at(Path("/proc/self"), "BPF_LINK_CREATE on a plain directory"),
        link_at(_mounted(work, "unified", "cgroup2"), shown="a cgroup2 mount"),
    ]


def _hybrid(work: Path) -> list[Answer]:
    """A tmpfs at /sys/fs/cgroup, cgroup2 below it at unified: without findmnt the agent takes the configured root."""
    mounts.mount("tmpfs", CONFIGURED_ROOT, "tmpfs")
    _mounted(CONFIGURED_ROOT, "unified", "cgroup2")
    refused = link_at(CONFIGURED_ROOT)
    facts: dict[str, Json] = {"findmnt would give": str(agents_root())}
    return [dataclasses.replace(refused, facts=facts), link_at(CONFIGURED_ROOT / "unified")]


def _nothing_mounted(work: Path) -> list[Answer]:
    for mount in reversed(cgroups.layout().cgroup2):
        mounts.unmount(mount.point)
    refused = link_at(agents_root())
    mounts.mount("tmpfs", CONFIGURED_ROOT, "tmpfs")
    _mounted(CONFIGURED_ROOT, "unified", "cgroup2")
    return [refused, link_at(agents_root())]


def _no_cgroup2(setting: Setting) -> Shown:
    """Where the machine has cgroup2 mounted, in mounts of a child without it; else the machine as it is."""
    if cgroups.layout().cgroup2:
        return _in_namespaces(_nothing_mounted, "nothing")(setting)
    failing = link_at(agents_root())
    work = setting.run.directory / "nothing"
    work.mkdir()

    def mounted() -> list[Answer]:
        mounts.take_own()
        own = cgroups.make(_mounted(work, "unified", "cgroup2") / work.parent.name)
        try:
            return [link_at(own, shown="a cgroup of a cgroup2 mount")]
        finally:
            own.rmdir()

    (repaired,) = children.in_child(mounted)
    return Shown(failing, repaired)


def _removed(setting: Setting) -> Shown:
    path = cgroups.make(setting.run.cgroup / "removed")
    with allowing() as program:
        directory = cgroups.open_directory(path)
        try:
            path.rmdir()
            failing = asked(
                "open a cgroup, remove it, BPF_LINK_CREATE on its descriptor",
                lambda: bpf.link_create(directory, program, CONNECT4),
            )
        finally:
            os.close(directory)
    with setting.cgroup("removed"):
        return Shown(failing, link_at(path, "BPF_LINK_CREATE on the cgroup, made again and opened again"))


def _not_there(setting: Setting) -> Shown:
    path = setting.run.cgroup / "nowhere"
    failing = link_at(path, "open a cgroupRoot that does not exist")
    with setting.cgroup("nowhere"):
        return Shown(failing, link_at(path, "open the directory, now made, and BPF_LINK_CREATE on it"))


def _no_cgroup2_in_kernel(setting: Setting) -> Shown:
    """The guide's two questions, `grep cgroup /proc/filesystems` and mounting it, and what attaching answers then."""
    work = setting.run.directory / "no-cgroup2-kernel"
    work.mkdir()

    def mounted() -> None:
        mounts.take_own()
        mounts.mount("cgroup2", work, "cgroup2")

    (mount,) = children.in_child(lambda: [asked("mount -t cgroup2", mounted)])
    listed = [line for line in Path("/proc/filesystems").read_text().splitlines() if "cgroup" in line]
    facts: dict[str, Json] = {"grep cgroup /proc/filesystems": [" ".join(line.split()) for line in listed]}
    if mount.word == ACCEPTED:
        raise NotHere(
            "this kernel has cgroup2: /proc/filesystems lists `nodev cgroup2`",
            "boot a kernel before 4.5 or the lab kernel no-cgroup2: there mount -t cgroup2 gives ENODEV",
            mount,
            facts,
        )
    attach = link_at(CONFIGURED_ROOT)
    return Shown(mount, None, facts={**facts, attach.did: attach.word})


def _no_link(setting: Setting) -> Shown:
    with setting.cgroup("nolink") as path:
        answer = link_at(path, "BPF_LINK_CREATE on a cgroup of the run")
        if answer.word == ACCEPTED:
            raise NotHere(
                "this kernel has BPF_LINK_CREATE for cgroups",
                "boot a kernel before 5.7 or the lab kernel no-cgroup-link: every LINK_CREATE gives EINVAL there",
                answer,
            )

        def attach() -> None:
            with allowing() as program, attach_one(program, path, CONNECT4, Way.SINGLE):
                pass

        return Shown(answer, asked("BPF_PROG_ATTACH on the same cgroup", attach))


TARGETS = (
    Failure("attach-tmpfs", "The attach target is a tmpfs", Family.ATTACH, codes.NOT_CGROUP2, ("EBADF",),
            _in_namespaces(_tmpfs, "tmpfs"), "a cgroup2 mount was taken instead"),
    Failure("attach-v1", "The attach target is a cgroup v1 hierarchy", Family.ATTACH, codes.NOT_CGROUP2, ("EBADF",),
            _v1_recipe, "a cgroup2 mount was taken instead", needs="cgroup v1 in the kernel"),
    Failure("attach-file", "The attach target is a plain file", Family.ATTACH, codes.NOT_CGROUP2, ("EBADF",),
            _in_namespaces(_file, "file"), "the directory was taken instead"),
    Failure("attach-directory", "The attach target is a directory of another file system", Family.ATTACH,
            codes.NOT_CGROUP2, ("EBADF",), _in_namespaces(_directory, "directory"),
            "a cgroup2 mount was taken instead"),
    Failure("attach-hybrid", "Hybrid layout: the configured /sys/fs/cgroup is a tmpfs, cgroup2 is at unified",
            Family.ATTACH, codes.CGROUP2_ELSEWHERE, ("EBADF",), _in_namespaces(_hybrid, "hybrid"),
            "the mount point of cgroup2 was taken, as cgroupRoot can say"),
    Failure("attach-no-cgroup2", "cgroup2 is mounted nowhere", Family.ATTACH, codes.NO_CGROUP2_MOUNTED, ("EBADF",),
            _no_cgroup2, "cgroup2 was mounted", features=("connect4", "bpf-link")),
    Failure("attach-no-cgroup2-kernel", "The kernel has no cgroup2", Family.ATTACH, codes.NO_CGROUP2_IN_KERNEL,
            ("ENODEV",), _no_cgroup2_in_kernel, "a kernel with cgroup2", needs="a kernel without cgroup2",
            features=()),
    Failure("attach-removed", "The cgroup is removed between open and attach", Family.ATTACH, codes.CGROUP_REMOVED,
            ("ENODEV", "ENOENT"), _removed, "the cgroup was made and opened again"),
    Failure("attach-not-there", "The configured cgroup does not exist", Family.ATTACH, codes.CGROUP_NOT_OPENED,
            ("ENOENT",), _not_there, "the directory was made",
            form=Form.OPEN_CGROUP),
    Failure("attach-no-link", "The kernel has no bpf_link for cgroups", Family.ATTACH, codes.NO_CGROUP_LINK,
            ("EINVAL",), _no_link, "BPF_PROG_ATTACH, or a kernel from 5.7", needs="a kernel before 5.7",
            features=("cgroup2", "connect4")),
)  # fmt: skip
