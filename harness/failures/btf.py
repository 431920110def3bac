"""Type and line information for a program put together by hand, so that the verifier prints its source lines.

Only what the verifier asks for: an int, a pointer, a function's prototype, the function, and a source line for some
instructions. Layouts are those of Documentation/bpf/btf.rst and union bpf_attr; integers in host byte order.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from harness.kernel import bpf
from harness.kernel.bpf import AttachType, BpfError, ProgramType

_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280}  # __NR_bpf
_PROG_LOAD, _BTF_LOAD = 5, 18  # enum bpf_cmd
_MAGIC, _VERSION = 0xEB9F, 1
_INT, _PTR, _STRUCT, _FUNC, _FUNC_PROTO = 1, 2, 4, 12, 13  # BTF_KIND_*
_CONTEXT = 72  # bytes of struct bpf_sock_addr; its members are not looked at
_COLUMN_BITS = 10  # BPF_LINE_INFO_LINE_NUM
_LOG_SIZE = 1 << 20

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


@dataclass(frozen=True)
class SourceLine:
    """The text that belongs to an instruction (by its slot) and to those after it, and its number in the file."""

    slot: int
    text: str
    number: int


class _Strings:
    """BTF's string section: zero-terminated texts by their offset; offset 0 is the empty one."""

    def __init__(self) -> None:
        self.raw = b"\0"

    def add(self, text: str) -> int:
        offset = len(self.raw)
        self.raw += text.encode() + b"\0"
        return offset


def _info(kind: int, count: int = 0) -> int:
    return kind << 24 | count


def _btf(name: str, strings: _Strings) -> bytes:
    """`int NAME(struct bpf_sock_addr *ctx)`: types 1 int, 2 the pointer, 3 the prototype, 4 the function, 5 the struct.

    A kernel that compares arguments with their types says so in the log of any other pointer.
    """
    types = struct.pack("=4I", strings.add("int"), _info(_INT), 4, 1 << 24 | 32)
    types += struct.pack("=3I", 0, _info(_PTR), 5)
    types += struct.pack("=5I", 0, _info(_FUNC_PROTO, 1), 1, strings.add("ctx"), 2)
    types += struct.pack("=3I", strings.add(name), _info(_FUNC), 3)
    types += struct.pack("=3I", strings.add("bpf_sock_addr"), _info(_STRUCT), _CONTEXT)
    header = struct.pack("=HBBIIIII", _MAGIC, _VERSION, 0, 24, 0, len(types), len(types), len(strings.raw))
    return header + types + strings.raw


_FUNCTION_TYPE = 4  # the function's id in _btf


def bpf_call(command: int, attribute: bytes) -> int:
    """bpf(2): its result, or minus errno."""
    buffer = ctypes.create_string_buffer(attribute, len(attribute))
    number = _SYSCALL.get(platform.machine())
    if number is None:
        return -errno.ENOSYS
    result: int = _libc.syscall(number, command, buffer, len(attribute))
    return result if result >= 0 else -ctypes.get_errno()


def load_with_lines(
    code: bytes, name: str, file: str, lines: Sequence[SourceLine], log_level: int
) -> tuple[bpf.Fd, str]:
    """Load a connect4 program whose instructions have these source lines of file, and give it with the verifier's log.

    The first line must be that of slot 0. Raises BpfError with the log.
    """
    strings = _Strings()
    place = strings.add(file)
    table = b"".join(
        struct.pack("=4I", line.slot, place, strings.add(line.text), line.number << _COLUMN_BITS) for line in lines
    )
    raw = _btf(name, strings)
    data = ctypes.create_string_buffer(raw, len(raw))
    types = bpf_call(_BTF_LOAD, struct.pack("=QQIII", ctypes.addressof(data), 0, len(raw), 0, 0))
    if types < 0:
        raise BpfError(f"load the type information of {name}", -types)
    try:
        return _load(code, name, types, table, len(lines), log_level)
    finally:
        os.close(types)


def _load(code: bytes, name: str, types: int, table: bytes, count: int, level: int) -> tuple[bpf.Fd, str]:
    instructions, licence, lines = (ctypes.create_string_buffer(raw, len(raw)) for raw in (code, b"GPL\0", table))
    functions = ctypes.create_string_buffer(struct.pack("=II", 0, _FUNCTION_TYPE), 8)
    log = ctypes.create_string_buffer(_LOG_SIZE)
    address = ctypes.addressof
    attribute = struct.pack(
        "=IIQQIIQII16sIIIIQIIQI", ProgramType.CGROUP_SOCK_ADDR, len(code) // 8, address(instructions), address(licence),
        level, _LOG_SIZE, address(log), 0, 0, name.encode()[:15], 0, AttachType.CGROUP_INET4_CONNECT,
        types, 8, address(functions), 1, 16, address(lines), count,
    )  # fmt: skip
    result = bpf_call(_PROG_LOAD, attribute)
    text = log.value.decode("utf-8", "replace")
    if result < 0:
        raise BpfError(f"load {name} with source lines", -result, log=text)
    return bpf.Fd(result), text
