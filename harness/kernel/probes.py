"""Questions to the kernel, each answered by trying: a program type, a helper in one, an instruction, a map type.

A probe loads the least program that has the thing, or creates the least map, and closes it at once.
"""

from __future__ import annotations

import errno
import re
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from harness.kernel import bpf
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


Probe = Callable[[], Probed]


def instruction(opcode: int, destination: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    """Eight bytes in this machine's byte order: opcode, registers, offset, immediate."""
    low, high = (destination, source) if sys.byteorder == "little" else (source, destination)
    return struct.pack("=BBhi", opcode, low | high << 4, offset, immediate)


def call(helper: int) -> bytes:
    return instruction(0x85, immediate=helper)


RETURN_1 = instruction(0xB7, 0, immediate=1) + instruction(0x95)  # r0 = 1; exit
_REFUSED_CALL = re.compile(
    r"unknown func|invalid func|cannot use helper|cannot call GPL|is not allowed|is not supported|from non-GPL"
)

NEED_A_TARGET = frozenset({ProgramType.TRACING, ProgramType.EXT, ProgramType.LSM, ProgramType.STRUCT_OPS})
"""Loaded only with the BTF id of what they attach to, which a probe does not have."""


def loads(
    kind: ProgramType, attach: AttachType | None, code: bytes, *, licence: str = "GPL", whole: bool = False
) -> Probed:
    """Whether the verifier takes this code; unless it is whole, `return 1` is put behind it."""
    if kind in NEED_A_TARGET:
        return Probed(Answer.UNKNOWN, f"{kind.name.lower()} programs cannot be tried without what they attach to")
    try:
        program = code if whole else code + RETURN_1
        bpf.prog_load(kind, program, attach=attach, name="probe", licence=licence)[0].close()
    except BpfError as error:
        return _refusal(error)
    return Probed(Answer.YES, "loads")


def _refusal(error: BpfError) -> Probed:
    said = [line for line in error.log.strip().splitlines() if not line.startswith("processed ")] or error.log.split()
    line = next((line for line in said if _REFUSED_CALL.search(line)), "")
    if line:
        return Probed(Answer.NO, line)
    if error.errno == errno.EINVAL and not said:  # the type itself, or its attach type, is not there
        return Probed(Answer.NO, f"{error.happened}, empty log")
    if error.errno == errno.ENOSYS:
        return Probed(Answer.NO, error.happened)
    return Probed(Answer.UNKNOWN, error.happened + (f": {said[-1]}" if said else ""))


def program_type(kind: ProgramType, attach: AttachType | None) -> Probe:
    return lambda: loads(kind, attach, b"")


def helper(number: int, kind: ProgramType, attach: AttachType | None) -> Probe:
    """A helper that takes nothing, or the context, which is in r1 from the start: the program has to load."""
    return lambda: loads(kind, attach, call(number))


def any_helper(number: int, kind: ProgramType, attach: AttachType | None, licence: str = "GPL") -> Probe:
    """Any helper in a type of program: called without arguments, which the verifier looks at after whether it may be
    called at all. So every complaint of its log but `unknown func` and its kin is a yes."""

    def probe() -> Probed:
        found = loads(kind, attach, call(number), licence=licence)
        if found.answer is Answer.UNKNOWN and _ARGUMENTS.search(found.said):
            return Probed(Answer.YES, "known; only its arguments are refused")
        return found

    return probe


def kfunc(number: int, kind: ProgramType, attach: AttachType | None, licence: str = "GPL") -> Probe:
    """A kernel function, by its id in the kernel's own BTF, called as any_helper() calls a helper."""

    def probe() -> Probed:
        found = loads(kind, attach, instruction(0x85, source=2, immediate=number), licence=licence)
        if found.answer is Answer.UNKNOWN and _ARGUMENTS.search(found.said):
            return Probed(Answer.YES, "may be called; only how it was called is refused")
        return found

    return probe


# How a refusal of prog_load is told that has a log, whatever the log says: `EINVAL (Invalid argument): R2 !read_ok`.
_ARGUMENTS = re.compile(r"^(EINVAL|EACCES|EPERM|EFAULT|ENOTSUPP|EOPNOTSUPP|errno 524) \([^)]*\): .")


def code(program: bytes) -> Probe:
    """A whole program of the least demanding type: only an instruction that the kernel does not know is refused."""

    def probe() -> Probed:
        found = loads(ProgramType.SOCKET_FILTER, None, program, whole=True)
        refused = (
            found.answer is Answer.UNKNOWN and _ARGUMENTS.search(found.said) and not found.said.startswith("EPERM")
        )
        # Before 5.2 the count of instructions alone is refused, by E2BIG.
        too_many = found.answer is Answer.UNKNOWN and found.said.startswith("E2BIG")
        return Probed(Answer.NO, found.said) if refused or too_many else found

    return probe


_NO_PREALLOC = 1  # BPF_F_NO_PREALLOC

# Key size, value size, entries and flags of the least map of a type; (8, 8, 1, 0) where there is no row.
_LEAST: dict[MapType, tuple[int, int, int, int]] = {
    **dict.fromkeys(
        (MapType.ARRAY, MapType.PERCPU_ARRAY, MapType.CGROUP_ARRAY, MapType.PROG_ARRAY, MapType.PERF_EVENT_ARRAY,
         MapType.DEVMAP, MapType.DEVMAP_HASH, MapType.SOCKMAP, MapType.SOCKHASH, MapType.XSKMAP, MapType.CPUMAP),
        (4, 4, 1, 0),
    ),
    MapType.STACK_TRACE: (4, 8, 1, 0),
    MapType.LPM_TRIE: (8, 8, 1, _NO_PREALLOC),
    MapType.REUSEPORT_SOCKARRAY: (4, 8, 1, 0),
    MapType.CGROUP_STORAGE: (8, 8, 0, 0),
    MapType.PERCPU_CGROUP_STORAGE: (8, 8, 0, 0),
    MapType.QUEUE: (0, 8, 1, 0),
    MapType.STACK: (0, 8, 1, 0),
    MapType.BLOOM_FILTER: (0, 8, 1, 0),
    MapType.RINGBUF: (0, 0, 1 << 16, 0),
    MapType.USER_RINGBUF: (0, 0, 1 << 16, 0),
}  # fmt: skip

_NEED_MORE = frozenset(
    {MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS, MapType.SK_STORAGE, MapType.INODE_STORAGE, MapType.TASK_STORAGE,
     MapType.CGRP_STORAGE, MapType.STRUCT_OPS, MapType.ARENA}
)  # fmt: skip
"""Created only with an inner map, BTF or memory of their own: a refusal says nothing."""


def map_type(kind: MapType) -> Probe:
    def probe() -> Probed:
        key, value, entries, flags = _LEAST.get(kind, (8, 8, 1, 0))
        if kind in _NEED_MORE:
            return Probed(Answer.UNKNOWN, f"{kind.name.lower()} maps cannot be tried without an inner map or BTF")
        try:
            bpf.map_create(kind, key, value, entries, flags=flags, name="probe").close()
        except BpfError as error:
            answer = Answer.NO if error.errno in (errno.EINVAL, errno.ENOSYS) else Answer.UNKNOWN
            return Probed(answer, error.happened)
        return Probed(Answer.YES, "can be created")

    return probe
