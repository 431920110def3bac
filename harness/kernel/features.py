"""What redirection needs of a kernel: a table. A probe decides; the first mainline version only serves the message."""

from __future__ import annotations

import errno
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from harness.kernel import bpf, facts
from harness.kernel.bpf import AttachType, BpfError, MapType, ProgramType


class Answer(StrEnum):
    """A probe's answer. UNKNOWN: the kernel could not be asked (privilege, memory …)."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Probed:
    """A probe's answer with what the kernel said: an errno's name, a log's line, or a path that is (not) there."""

    answer: Answer
    said: str = ""


@dataclass(frozen=True)
class Feature:
    """A thing that a kernel may have. needed: without it nothing is redirected; else something is done without it."""

    name: str
    title: str
    since: str  # first mainline version that has it
    needed: bool
    probe: Callable[[], Probed]
    without: str = ""  # what is lost


# Instructions, 8 bytes each: opcode, registers (destination in the low 4 bits), offset, immediate.
def _instruction(opcode: int, destination: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("=BBhi", opcode, destination | source << 4, offset, immediate)


def _call(helper: int) -> bytes:
    return _instruction(0x85, immediate=helper)


_RETURN_1 = _instruction(0xB7, 0, immediate=1) + _instruction(0x95)  # r0 = 1; exit
_REFUSED_HELPER = re.compile(r"unknown func|invalid func|cannot use helper")


def _loads(kind: ProgramType, attach: AttachType | None, code: bytes) -> Probed:
    try:
        fd, _ = bpf.prog_load(kind, code + _RETURN_1, attach=attach, name="probe")
    except BpfError as error:
        return _refusal(error)
    fd.close()
    return Probed(Answer.YES, "loads")


def _refusal(error: BpfError) -> Probed:
    said = error.log.strip().splitlines()
    line = next((line for line in said if _REFUSED_HELPER.search(line)), "")
    if line:
        return Probed(Answer.NO, line)
    if error.errno == errno.EINVAL and not said:  # the type itself, or its attach type, is not there
        return Probed(Answer.NO, f"{error.happened}, empty log")
    if error.errno == errno.ENOSYS:
        return Probed(Answer.NO, error.happened)
    return Probed(Answer.UNKNOWN, error.happened + (f": {said[-1]}" if said else ""))


def _program_type(kind: ProgramType, attach: AttachType | None) -> Callable[[], Probed]:
    return lambda: _loads(kind, attach, b"")


def _helper(number: int, kind: ProgramType, attach: AttachType | None) -> Callable[[], Probed]:
    """A helper that takes nothing, or the context, which is in r1 from the start."""
    return lambda: _loads(kind, attach, _call(number))


def _map_type(kind: MapType) -> Callable[[], Probed]:
    def probe() -> Probed:
        try:
            bpf.map_create(kind, 8, 8, 1, name="probe").close()
        except BpfError as error:
            answer = Answer.NO if error.errno in (errno.EINVAL, errno.ENOSYS) else Answer.UNKNOWN
            return Probed(answer, error.happened)
        return Probed(Answer.YES, "can be created")

    return probe


def _bpf_link() -> Probed:
    """BPF_LINK_CREATE with descriptors that cannot be: EBADF says that the command is known, EINVAL that it is not."""
    try:
        with bpf.prog_load(ProgramType.CGROUP_SOCK_ADDR, _RETURN_1, attach=AttachType.CGROUP_INET4_CONNECT)[0] as fd:
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
    Feature("connect4", "program type cgroup/connect4", "4.17", True, _program_type(*_SOCK_ADDR)),
    Feature("hash-map", "hash maps", "3.19", True, _map_type(MapType.HASH)),
    Feature("lru-map", "LRU hash maps", "4.10", True, _map_type(MapType.LRU_HASH)),
    Feature("socket-cookie", "bpf_get_socket_cookie in connect4", "4.19", True, _helper(46, *_SOCK_ADDR)),
    Feature("pid-tgid", "bpf_get_current_pid_tgid in connect4", "5.7", True, _helper(14, *_SOCK_ADDR)),
    Feature("uid-gid", "bpf_get_current_uid_gid in connect4", "4.17", True, _helper(15, *_SOCK_ADDR)),
    Feature("trace-printk", "bpf_trace_printk in connect4", "4.17", False, lambda: _trace_printk(),
            "the agent's own program calls it; ours does not"),
    Feature("bpf-link", "BPF_LINK_CREATE for cgroups", "5.7", False, _bpf_link, "attached by BPF_PROG_ATTACH instead"),
    Feature("sock-ops", "sock_ops with socket cookies", "4.12", False, _helper(46, *_SOCK_OPS),
            "audit records are completed by a kprobe instead"),
    Feature("kprobe", "kprobes by perf_event_open", "4.17", False,
            _path(facts.has_kprobes, "kprobe PMU in /sys/bus/event_source/devices"),
            "the agent completes its audit records by a kprobe and cannot start without; ours uses sock_ops"),
    Feature("btf", "BTF of the kernel", "5.2", False, _path(facts.has_btf, "/sys/kernel/btf/vmlinux"),
            "the agent's objects from July 2026 on (CO-RE) do not load"),
    Feature("connect6", "program type cgroup/connect6", "4.17", False,
            _program_type(ProgramType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET6_CONNECT),
            "the hardened program cannot redirect IPv4-mapped connects"),
)  # fmt: skip


def _trace_printk() -> Probed:
    """trace_printk(fmt, size): "a" on the stack, 2 bytes with its zero."""
    code = (
        _instruction(0x6A, 10, offset=-8, immediate=0x61)  # *(u16 *)(r10 - 8) = 'a'
        + _instruction(0xBF, 1, 10)
        + _instruction(0x07, 1, immediate=-8)
        + _instruction(0xB7, 2, immediate=2)
        + _call(6)
    )
    return _loads(*_SOCK_ADDR, code)


def probe_all() -> dict[str, Probed]:
    """Ask every question of the table."""
    return {feature.name: feature.probe() for feature in FEATURES}
