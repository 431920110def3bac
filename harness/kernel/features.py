"""What redirection needs of a kernel: a table. A probe decides; the first mainline version only serves the message."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass

from harness.kernel import bpf, facts, probes
from harness.kernel.bpf import AttachType, BpfError, MapType, ProgramType
from harness.kernel.probes import Answer as Answer
from harness.kernel.probes import Probed as Probed


@dataclass(frozen=True)
class Feature:
    """A thing that a kernel may have. needed: without it nothing is redirected; else something is done without it."""

    name: str
    title: str
    since: str  # first mainline version that has it
    needed: bool
    probe: Callable[[], Probed]
    without: str = ""  # what is lost


def _bpf_link() -> Probed:
    """BPF_LINK_CREATE with descriptors that cannot be: EBADF says that the command is known, EINVAL that it is not."""
    try:
        with bpf.prog_load(ProgramType.CGROUP_SOCK_ADDR, probes.RETURN_1, attach=AttachType.CGROUP_INET4_CONNECT)[
            0
        ] as fd:
            bpf.link_create(0xFFFFFF, fd, AttachType.CGROUP_INET4_CONNECT).close()
    except BpfError as error:
        if "LINK_CREATE" not in error.attempted:
            return Probed(Answer.UNKNOWN, str(error))
        if error.errno == errno.EBADF:
            return Probed(Answer.YES, "EBADF for a descriptor that is not open")
        return Probed(Answer.NO if error.errno == errno.EINVAL else Answer.UNKNOWN, error.happened)
    return Probed(Answer.UNKNOWN, "a link was made to nothing")


def _path(present: Callable[[], bool], what: str) -> Callable[[], Probed]:
    return lambda: Probed(Answer.YES, what) if present() else Probed(Answer.NO, f"no {what}")


_SOCK_ADDR = (ProgramType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET4_CONNECT)
_SOCK_OPS = (ProgramType.SOCK_OPS, AttachType.CGROUP_SOCK_OPS)

FEATURES = (
    Feature("connect4", "program type cgroup/connect4", "4.17", True, probes.program_type(*_SOCK_ADDR)),
    Feature("hash-map", "hash maps", "3.19", True, probes.map_type(MapType.HASH)),
    Feature("lru-map", "LRU hash maps", "4.10", True, probes.map_type(MapType.LRU_HASH)),
    Feature("socket-cookie", "bpf_get_socket_cookie in connect4", "4.19", True, probes.helper(46, *_SOCK_ADDR)),
    Feature("pid-tgid", "bpf_get_current_pid_tgid in connect4", "5.7", True, probes.helper(14, *_SOCK_ADDR)),
    Feature("uid-gid", "bpf_get_current_uid_gid in connect4", "4.17", True, probes.helper(15, *_SOCK_ADDR)),
    Feature("trace-printk", "bpf_trace_printk in connect4", "4.17", False, lambda: _trace_printk(),
            "the agent's own program calls it; ours does not"),
    Feature("bpf-link", "BPF_LINK_CREATE for cgroups", "5.7", False, _bpf_link, "attached by BPF_PROG_ATTACH instead"),
    Feature("sock-ops", "sock_ops with socket cookies", "4.19", False, probes.helper(46, *_SOCK_OPS),
            "audit records are completed by a kprobe instead"),
    Feature("kprobe", "kprobes by perf_event_open", "4.17", False,
            _path(facts.has_kprobes, "kprobe PMU in /sys/bus/event_source/devices"),
            "the agent completes its audit records by a kprobe and cannot start without; ours uses sock_ops"),
    Feature("btf", "BTF of the kernel", "5.2", False, _path(facts.has_btf, "/sys/kernel/btf/vmlinux"),
            "the agent's objects from July 2026 on (CO-RE) do not load"),
    Feature("connect6", "program type cgroup/connect6", "4.17", False,
            probes.program_type(ProgramType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET6_CONNECT),
            "the hardened program cannot redirect IPv4-mapped connects"),
)  # fmt: skip


def _trace_printk() -> Probed:
    """trace_printk(fmt, size): "a" on the stack, 2 bytes with its zero."""
    code = (
        probes.instruction(0x6A, 10, offset=-8, immediate=0x61)  # *(u16 *)(r10 - 8) = 'a'
        + probes.instruction(0xBF, 1, 10)
        + probes.instruction(0x07, 1, immediate=-8)
        + probes.instruction(0xB7, 2, immediate=2)
        + probes.call(6)
    )
    return probes.loads(*_SOCK_ADDR, code)


def probe_all() -> dict[str, Probed]:
    """Ask every question of the table."""
    return {feature.name: feature.probe() for feature in FEATURES}
