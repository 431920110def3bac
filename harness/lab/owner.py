"""A process that attaches a program and is killed: what stays behind is what the kernel keeps."""

from __future__ import annotations

import os
import time
from pathlib import Path

from harness.errors import HarnessError
from harness.kernel import bpf, processes
from harness.kernel.bpf import AttachType
from harness.lab.clients import CHILDREN
from harness.program.attach import Way, attach_one


def spawn(cgroup: str, kind: int, way: str, descriptors: list[int]) -> int:
    """In the VM's worker: fork an owner that attaches the program whose descriptor came along; the owner's pid."""
    parent = os.getpid()
    output, entry = os.pipe()
    pid = os.fork()
    if pid == 0:
        _own(parent, Path(cgroup), AttachType(kind), Way(way), descriptors[0], entry)
    os.close(entry)
    os.close(descriptors[0])
    with os.fdopen(output) as answer:
        problem = answer.readline().strip()
    if problem != "attached":
        os.waitpid(pid, 0)
        raise HarnessError(f"attach by {way} in a process of its own", problem or "it ended without a word")
    CHILDREN.add(pid)
    return pid


def _own(parent: int, cgroup: Path, kind: AttachType, way: Way, program: int, entry: int) -> None:
    """The owner: never returns, and never detaches."""
    try:
        processes.die_with_parent(parent)
        with attach_one(bpf.Fd(program), cgroup, kind, way):
            os.write(entry, b"attached\n")
            os.close(entry)
            while True:
                time.sleep(3600)
    except HarnessError as error:
        os.write(entry, f"{error}\n".encode())
    finally:
        os._exit(1)
