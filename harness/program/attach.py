"""A loaded image attached: to a cgroup by link or by PROG_ATTACH, and to the kernel function of its kprobe."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path

from harness.kernel import bpf, cgroups, perf
from harness.kernel.bpf import AttachFlag, AttachType, ProgramType
from harness.program.load import Loaded

KPROBE_FUNCTION = "tcp_connect"
"""Where the agent's kprobe sits: reached by every TCP connect once the source port is chosen."""

_HELD_SECONDS = 1.0  # until a closed link is gone; who lists links holds each for microseconds


class Way(StrEnum):
    """How a program is attached to a cgroup; single, override and multi are PROG_ATTACH with those flags."""

    LINK = "link"
    SINGLE = "single"
    OVERRIDE = "override"
    MULTI = "multi"


FLAGS = {Way.SINGLE: AttachFlag.NONE, Way.OVERRIDE: AttachFlag.ALLOW_OVERRIDE, Way.MULTI: AttachFlag.ALLOW_MULTI}


@contextmanager
def attach_one(program: bpf.Fd, cgroup: Path, kind: AttachType, way: Way = Way.LINK) -> Iterator[bpf.Fd | None]:
    """Attach one program to a cgroup; gives the link where there is one. Raises BpfError, or HarnessError from open."""
    directory = cgroups.open_directory(cgroup)
    try:
        if way is Way.LINK:
            with bpf.link_create(directory, program, kind) as link:
                identity = bpf.prog_info(program).id  # who has the link may close the program
                try:
                    yield link
                finally:
                    _close(link, directory, identity, kind)
        else:
            bpf.prog_attach(directory, program, kind, FLAGS[way])
            try:
                yield None
            finally:
                if is_attached(directory, program, kind):
                    bpf.prog_detach(directory, program, kind)
    finally:
        os.close(directory)


def _close(link: bpf.Fd, directory: int, program: int, kind: AttachType) -> None:
    """Close a link, and wait until it is gone: whoever lists the links of the machine holds each for a moment."""
    before = _times(directory, program, kind)
    link.close()
    deadline = time.monotonic() + _HELD_SECONDS
    while before and _times(directory, program, kind) >= before:
        if time.monotonic() > deadline:
            return  # somebody holds it in earnest: what checks for it will tell
        time.sleep(0.001)


def _times(directory: int, program: int, kind: AttachType) -> int:
    """How often the program of this id is attached to this cgroup itself; not at all to one that is gone."""
    try:
        return bpf.prog_query(directory, kind).programs.count(program)
    except bpf.BpfError:
        return 0


def is_attached(directory: int, program: bpf.Fd, kind: AttachType) -> bool:
    """Whether the program is attached to this cgroup itself; another may have replaced or detached it."""
    return bpf.prog_info(program).id in bpf.prog_query(directory, kind).programs


@contextmanager
def attach(loaded: Loaded, cgroup: Path, way: Way = Way.LINK) -> Iterator[dict[str, bpf.Fd | None]]:
    """Attach every program of an image: links by program name (None where there is no link)."""
    links: dict[str, bpf.Fd | None] = {}
    with ExitStack() as stack:
        # What completes records comes first: a connect between the two must not leave a redirect without a record.
        for spec in sorted(loaded.image.programs, key=lambda spec: spec.type == ProgramType.CGROUP_SOCK_ADDR):
            program = loaded.programs[spec.name]
            if spec.type == ProgramType.KPROBE:
                links[spec.name] = stack.enter_context(perf.attach_kprobe(KPROBE_FUNCTION, program))
            else:
                assert spec.attach is not None
                one = attach_one(program, cgroup, AttachType(spec.attach), way)
                links[spec.name] = stack.enter_context(one)
        yield links
