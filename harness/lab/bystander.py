"""Programs that are attached as long as a run lasts, where nobody is: as on a machine on which others attach some, too.

A kernel that has no program of a kind attached anywhere has the places from which they are called patched out of its
code (cgroup_bpf_enabled, a static key). The first attach patches them in, the last detach out again, each by some
hundred switches of address spaces. Checks that attach and detach dozens of times would do little else where that is
emulated; and a program that is taken away must stop also where the kernel goes on calling others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from harness.errors import HarnessError
from harness.kernel import bpf, cgroups, probes
from harness.kernel.bpf import AttachType, ProgramType
from harness.lab.state import Run
from harness.program.attach import Way, attach_one

_KINDS = (
    (ProgramType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET4_CONNECT),
    (ProgramType.SOCK_OPS, AttachType.CGROUP_SOCK_OPS),
)


@contextmanager
def bystanders(run: Run, way: Way) -> Iterator[None]:
    """Programs that allow everything, on an empty cgroup of the run's. What is refused is left to the checks."""
    with ExitStack() as stack:
        for kind, attach in _KINDS:
            try:
                group = run.cgroup / "bystander"
                if not group.is_dir():
                    cgroups.make(group)
                program = stack.enter_context(bpf.prog_load(kind, probes.RETURN_1, attach=attach, name="bystander")[0])
                stack.enter_context(attach_one(program, group, attach, way))
            except (HarnessError, OSError):
                continue
        yield
