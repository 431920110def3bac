"""A kprobe by perf_event_open(2): how a program is attached to a kernel function."""

from __future__ import annotations

import ctypes
import fcntl
import platform
import struct
from pathlib import Path

from harness.errors import HarnessError, errno_text
from harness.kernel.bpf import Fd

_SYSCALL = {"x86_64": 298, "aarch64": 241, "riscv64": 241}  # __NR_perf_event_open
_PMU = Path("/sys/bus/event_source/devices/kprobe/type")
_IOC_ENABLE = 0x2400  # PERF_EVENT_IOC_*, include/uapi/linux/perf_event.h
_IOC_SET_BPF = 0x40042408
_ATTRIBUTE_SIZE = 112  # PERF_ATTR_SIZE_VER5

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def attach_kprobe(function: str, program: Fd) -> Fd:
    """Run program whenever the kernel enters function, until the descriptor is closed.

    Raises HarnessError when the kernel has no kprobes (CONFIG_KPROBE_EVENTS), no such function, or refuses.
    """
    attempted = f"attach a kprobe to {function}"
    try:
        kind = int(_PMU.read_text())
    except OSError as error:
        happened = f"{errno_text(error.errno or 0)}: no {_PMU} (CONFIG_KPROBE_EVENTS)"
        raise HarnessError(attempted, happened, errno=error.errno or 0) from error
    name = ctypes.create_string_buffer(function.encode())
    attribute = ctypes.create_string_buffer(_ATTRIBUTE_SIZE)
    struct.pack_into("=II", attribute, 0, kind, _ATTRIBUTE_SIZE)
    struct.pack_into("=Q", attribute, 56, ctypes.addressof(name))  # config1: kprobe_func
    number = _libc.syscall(_SYSCALL[platform.machine()], attribute, -1, 0, -1, 8)  # every process, CPU 0, CLOEXEC
    if number < 0:
        raise HarnessError(attempted, errno_text(ctypes.get_errno()), errno=ctypes.get_errno())
    event = Fd(number)
    try:
        fcntl.ioctl(number, _IOC_SET_BPF, program.fileno())
        fcntl.ioctl(number, _IOC_ENABLE, 0)
    except OSError as error:
        event.close()
        raise HarnessError(attempted, errno_text(error.errno or 0), errno=error.errno or 0) from error
    return event
