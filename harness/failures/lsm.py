"""A policy of the kernel's BPF security module: bpf(2)'s map creation is refused to one process, and to no other."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

from harness.errors import HarnessError, errno_text
from harness.failures.assembler import EXIT, call, instruction, load, set_to
from harness.failures.btf import bpf_call
from harness.kernel.bpf import AttachType, ProgramType
from harness.program.object import btf
from harness.program.object.btf import Kind

HOOK = "bpf_lsm_bpf"
"""The function behind the hook security_bpf(cmd, attr, size)."""

_ACTIVE = Path("/sys/kernel/security/lsm")
_PROG_LOAD, _RAW_TRACEPOINT_OPEN = 5, 17  # enum bpf_cmd
_PID_TGID = 14  # bpf_get_current_pid_tgid
_MAP_CREATE = 0  # enum bpf_cmd
_LOG_SIZE = 1 << 16


def active() -> list[str] | None:
    """The security modules that are active, in their order; None where securityfs is not mounted."""
    try:
        return _ACTIVE.read_text().strip().split(",")
    except OSError:
        return None


def hook() -> int | None:
    """The hook's id in the kernel's BTF; None where programs cannot be attached to it."""
    if "bpf" not in (active() or []) or not btf.KERNEL.exists():
        return None
    functions = btf.load(btf.KERNEL).named(HOOK, Kind.FUNC)
    return functions[0].id if functions else None


def refuse_maps_to(pid: int, hook: int) -> int:
    """Attach the policy and give its link's descriptor: it holds until that is closed. Raises HarnessError."""
    code = (
        load(8, 6, 1, 0)  # r6 = cmd
        + call(_PID_TGID)
        + instruction(0x77, 0, immediate=32)  # r0 >>= 32: the process
        + instruction(0x56, 0, offset=3, immediate=pid)  # another one: allowed
        + instruction(0x56, 6, offset=2, immediate=_MAP_CREATE)  # another command: allowed
        + set_to(0, -1)  # EPERM
        + EXIT
        + set_to(0, 0)
        + EXIT
    )
    text, licence = (ctypes.create_string_buffer(raw, len(raw)) for raw in (code, b"GPL\0"))
    log = ctypes.create_string_buffer(_LOG_SIZE)
    address = ctypes.addressof
    attribute = struct.pack(
        "=IIQQIIQII16sIIIIQIIQII", ProgramType.LSM, len(code) // 8, address(text), address(licence), 1, _LOG_SIZE,
        address(log), 0, 0, b"refuse_maps", 0, AttachType.LSM_MAC, 0, 0, 0, 0, 0, 0, 0, hook,
    )  # fmt: skip
    program = bpf_call(_PROG_LOAD, attribute)
    if program < 0:
        detail = log.value.decode("utf-8", "replace")
        raise HarnessError(f"load a program for {HOOK}", errno_text(-program), errno=-program, detail=detail)
    try:
        link = bpf_call(_RAW_TRACEPOINT_OPEN, struct.pack("=QII", 0, program, 0))
    finally:
        os.close(program)
    if link < 0:
        raise HarnessError(f"attach a program to {HOOK}", errno_text(-link), errno=-link)
    return link
