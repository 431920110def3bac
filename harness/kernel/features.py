"""What redirection needs of a kernel: a table. A probe decides; the first mainline version only serves the message."""

from __future__ import annotations

import errno
import resource
from collections.abc import Callable
from dataclasses import dataclass

from harness.kernel import bpf, cgroups, facts, probes
from harness.kernel.bpf import AttachFlag, AttachType, BpfError, MapType, ProgramType
from harness.kernel.probes import Answer as Answer
from harness.kernel.probes import Probed as Probed


@dataclass(frozen=True)
class Feature:
    """A thing that a kernel may have. needed: without it nothing is redirected; else something is done without it."""

    name: str
    title: str
    since: str  # first mainline version that has it
    source: str  # the mainline commit that brought it
    needed: bool
    probe: Callable[[], Probed]
    without: str = ""  # what is lost; empty where another check tells


def _path(present: Callable[[], bool], what: str) -> Callable[[], Probed]:
    return lambda: Probed(Answer.YES, what) if present() else Probed(Answer.NO, f"no {what}")


_SOCK_ADDR = (ProgramType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET4_CONNECT)
_RETURNING = (ProgramType.CGROUP_SOCK_ADDR, probes.RETURN_1)
_NOT_OPEN = 0xFFFFFF  # no descriptor
_PAGE = 4096
_SOCK_OPS = (ProgramType.SOCK_OPS, AttachType.CGROUP_SOCK_OPS)

FEATURES = (
    Feature("cgroup2", "file system cgroup2", "4.5", "67e9c74b8a87", True, lambda: _cgroup2()),
    Feature("connect4", "program type cgroup/connect4", "4.17", "d74bad4e74ee", True,
            probes.program_type(*_SOCK_ADDR)),
    Feature("hash-map", "hash maps", "3.19", "0f8e4bd8a1fc", True, probes.map_type(MapType.HASH)),
    Feature("lru-map", "LRU hash maps", "4.10", "29ba732acbee", True, probes.map_type(MapType.LRU_HASH)),
    Feature("socket-cookie", "bpf_get_socket_cookie in connect4", "4.19", "d692f1138a4b", True,
            probes.helper(46, *_SOCK_ADDR)),
    Feature("pid-tgid", "bpf_get_current_pid_tgid in connect4", "5.7", "series: improvements to cgroup helpers", True,
            probes.helper(14, *_SOCK_ADDR)),
    Feature("uid-gid", "bpf_get_current_uid_gid in connect4", "4.17", "d74bad4e74ee", True,
            probes.helper(15, *_SOCK_ADDR)),
    Feature("attach-multi", "BPF_PROG_ATTACH beside others", "4.15", "324bda9e6c5a", True, lambda: _attach_multi()),
    Feature("prog-query", "BPF_PROG_QUERY of what is effective", "4.15", "468e2f64d220", False, lambda: _prog_query(),
            "whether a program runs for a cgroup cannot be asked"),
    Feature("trace-printk", "bpf_trace_printk in connect4", "4.17", "d74bad4e74ee", False, lambda: _trace_printk(),
            "the agent's own program calls it; ours does not"),
    Feature("bpf-link", "BPF_LINK_CREATE for cgroups", "5.7", "af6eea57437a", False, lambda: _bpf_link(),
            "attached by BPF_PROG_ATTACH instead"),
    Feature("sock-ops", "sock_ops with socket cookies", "4.19", "d692f1138a4b", False, probes.helper(46, *_SOCK_OPS),
            "audit records are completed by a kprobe instead"),
    Feature("kprobe", "kprobes by perf_event_open", "4.17", "e12f03d7031a", False,
            _path(facts.has_kprobes, "kprobe PMU in /sys/bus/event_source/devices"),
            "the agent completes its audit records by a kprobe and cannot start without; ours uses sock_ops"),
    Feature("probe-read", "bpf_probe_read in kprobe programs", "4.1", "2541517c32be", False,
            probes.any_helper(4, ProgramType.KPROBE, None),
            "the agent's kprobe program, which reads sockets, does not load"),
    Feature("btf", "BTF of the kernel", "5.4", "341dfcf8d78e", False,
            _path(facts.has_btf, "/sys/kernel/btf/vmlinux"),
            "the agent's objects from July 2026 on (CO-RE) do not load"),
    Feature("connect6", "program type cgroup/connect6", "4.17", "d74bad4e74ee", False,
            probes.program_type(ProgramType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET6_CONNECT),
            "the hardened program cannot redirect IPv4-mapped connects"),
    Feature("setsockopt", "bpf_setsockopt in connect4", "5.8", "beecf11bc218", False,
            probes.any_helper(49, *_SOCK_ADDR),
            "the hardened program cannot take a socket from its device"),
    Feature("jit", "a compiler for programs", "3.16", "622582786c9e", False,
            _path(lambda: facts.sysctl("net.core.bpf_jit_enable") is not None, "net.core.bpf_jit_enable"),
            "programs are interpreted"),
    Feature("maps-not-charged", "maps that are not charged to RLIMIT_MEMLOCK", "5.11", "755e5d55367a", False,
            lambda: _not_charged()),
)  # fmt: skip


def _cgroup2() -> Probed:
    listed = "`nodev cgroup2` in /proc/filesystems"
    return Probed(Answer.YES, listed) if cgroups.supported() else Probed(Answer.NO, f"no {listed}")


def _asked_of_nothing(ask: Callable[[bpf.Fd], None]) -> Probed:
    """A command of bpf(2) with a descriptor that is not open: EBADF says that it is known, EINVAL that it is not."""
    try:
        program, _ = bpf.prog_load(*_RETURNING, attach=AttachType.CGROUP_INET4_CONNECT, name="probe")
    except BpfError as error:
        refused = probes.loads(*_SOCK_ADDR, b"")
        return refused if refused.answer is Answer.NO else Probed(Answer.UNKNOWN, str(error))
    with program:
        try:
            ask(program)
        except BpfError as error:
            if error.errno == errno.EBADF:
                return Probed(Answer.YES, "EBADF for a descriptor that is not open")
            return Probed(Answer.NO if error.errno == errno.EINVAL else Answer.UNKNOWN, error.happened)
    return Probed(Answer.UNKNOWN, "what is not open was taken")


def _bpf_link() -> Probed:
    return _asked_of_nothing(
        lambda program: bpf.link_create(_NOT_OPEN, program, AttachType.CGROUP_INET4_CONNECT).close()
    )


def _attach_multi() -> Probed:
    multi = AttachFlag.ALLOW_MULTI
    return _asked_of_nothing(
        lambda program: bpf.prog_attach(_NOT_OPEN, program, AttachType.CGROUP_INET4_CONNECT, multi)
    )


def _prog_query() -> Probed:
    def ask(program: bpf.Fd) -> None:
        bpf.prog_query(_NOT_OPEN, AttachType.CGROUP_INET4_CONNECT, effective=True)

    return _asked_of_nothing(ask)


def _not_charged() -> Probed:
    """A map that is larger than a page, under a limit of a page, which is this process's own only meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (_PAGE, hard))
    try:
        bpf.map_create(MapType.HASH, 8, 64, 1024, name="probe").close()
    except BpfError as error:
        return Probed(Answer.NO if error.errno == errno.EPERM else Answer.UNKNOWN, error.happened)
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (soft, hard))
    return Probed(Answer.YES, f"created under a limit of {_PAGE} B")


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
