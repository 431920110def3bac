"""A process written down, and started again elsewhere from where it was: Emacs calls that undumping.

What is written down is a fork of this process, stopped in a system call of its own: its memory and a few registers are
all that there is to it. It must have one thread, and nothing in memory that is the kernel's: no vDSO (the kernel word
vdso=0). Its addresses must be free in the new process: neither is to have a random layout (`setarch -R`).

Not written down is what the kernel has of a process: files (but those that the new one has, too, by their numbers),
what a mapping of memory is a mapping of, where it has its rseq(2) area and its robust futexes. How signals are handled
is told anew.

The first HEAD bytes of what is written are the executable to start. It maps the rest from a device that has all of it:
what is not needed is never read.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from mmap import MAP_PRIVATE, PROT_EXEC, PROT_READ, PROT_WRITE
from pathlib import Path
from typing import BinaryIO

from harness.errors import HarnessError, errno_text

HEAD = 4 * 4096
"""Bytes of the executable: the first ones of what is written."""

_ATTEMPTED = "write a process down"
_PAGE = 4096
_LOWEST = 0x10000  # vm.mmap_min_addr as distributions have it
_KERNELS = ("[vvar", "[vsyscall]")
_STACK, _VDSO = "[stack]", "[vdso]"
_MAP_FIXED = 0x10  # include/uapi/asm-generic/mman-common.h

# include/uapi/linux/ptrace.h; the registers are struct user_regs_struct, arch/x86/include/asm/user_64.h
_PTRACE_GETREGS, _PTRACE_ATTACH = 12, 16
_REGISTERS = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi", "orig_rax",
    "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
)  # fmt: skip
_KEPT = ("rbx", "rbp", "r12", "r13", "r14", "r15", "rsp")  # across a call, by the System V ABI for x86-64
_CALLS = {"open": 2, "close": 3, "mmap": 9, "kill": 62, "arch_prctl": 158, "set_tid_address": 218}
"""arch/x86/entry/syscalls/syscall_64.tbl"""

_ARCH_SET_FS = 0x1002  # arch/x86/include/uapi/asm/prctl.h
_TID = 0x2D0  # of tid in glibc's struct pthread, to which fs points (nptl/descr.h; 2.31 to 2.41)

# ELF, from elf.h: 64 bits, little-endian, System V; an executable at fixed addresses, for x86-64
_IDENT = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
_HEADER, _ENTRY = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ")
_ET_EXEC, _EM_X86_64, _PT_LOAD, _PT_GNU_STACK = 2, 62, 1, 0x6474E551
_PF_X, _PF_W, _PF_R = 1, 2, 4


def write(descriptor: int, device: str) -> int:
    """Write this process down. Like fork(2) it returns twice: here how many bytes it wrote, 0 in who starts those.

    device: where the new process finds what is written here. Raises HarnessError where it cannot be written down.
    """
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGSTOP)  # ends in the new process only
        _handle_signals()
        return 0
    try:
        os.waitpid(child, os.WUNTRACED)
        _ptrace(_PTRACE_ATTACH, child)
        os.waitpid(child, 0)
        with open(descriptor, "wb", closefd=False) as file:
            return sum(file.write(piece) for piece in _written(child, device))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _handle_signals() -> None:
    """Have the kernel know what Python knows: how signals are handled."""
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        if handler not in (None, signal.SIG_DFL):
            signal.signal(number, handler)


@dataclass(frozen=True)
class _Area:
    """Memory of a process: its addresses, and rights by the bits of mmap(2)."""

    start: int
    end: int
    rights: int
    name: str = ""

    @property
    def size(self) -> int:
        return self.end - self.start


def _ptrace(request: int, pid: int, data: ctypes.Array[ctypes.c_ulong] | None = None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(ctypes.c_long(request), ctypes.c_long(pid), None, data):
        number = ctypes.get_errno()
        raise HarnessError(_ATTEMPTED, f"ptrace({request}): {errno_text(number)}", errno=number)


def _written(pid: int, device: str) -> Iterator[bytes]:
    """What is written, in pieces: the executable, the stack, then each area of memory."""
    registers = _registers(pid)
    areas = list(_areas(pid))
    stack = next(area for area in areas if area.name == _STACK)
    kept = _joined(area for area in areas if area is not stack)
    if _LOWEST + HEAD + stack.size > min(area.start for area in kept):
        raise HarnessError(_ATTEMPTED, "there is no room for a copy of its stack below all else")
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        tid = registers["fs_base"] + _TID
        if (found := int.from_bytes(_content(memory, tid, 4), "little")) != pid:
            raise HarnessError(_ATTEMPTED, f"where its C library has its number is {found}, not {pid}")
        yield _executable(_code(registers, stack, kept, device, tid))
        for area in (stack, *kept):
            yield _content(memory, area.start, area.size)


def _registers(pid: int) -> dict[str, int]:
    values = (ctypes.c_ulong * len(_REGISTERS))()
    _ptrace(_PTRACE_GETREGS, pid, values)
    found = dict(zip(_REGISTERS, values, strict=True))
    if found["orig_rax"] != _CALLS["kill"]:
        raise HarnessError(_ATTEMPTED, f"it is in system call {found['orig_rax']}, not in kill(2)")
    return found


def _areas(pid: int) -> Iterator[_Area]:
    """What a process has in memory that is its own."""
    bits = (("r", PROT_READ), ("w", PROT_WRITE), ("x", PROT_EXEC))
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        addresses, letters, _, _, _, *name = line.split(maxsplit=5)
        start, end = (int(number, 16) for number in addresses.split("-"))
        rights = sum(bit for letter, bit in bits if letter in letters)
        called = name[0] if name else ""
        if called == _VDSO:
            raise HarnessError(_ATTEMPTED, "it has a vDSO, which is its kernel's", "boot with the kernel word vdso=0")
        if rights & PROT_READ and not called.startswith(_KERNELS):
            yield _Area(start, end, rights, called)


def _joined(areas: Iterable[_Area]) -> list[_Area]:
    """What adjoins, and is all written to or all not, as one: each has its price at every fork."""
    found: list[_Area] = []
    for area in areas:
        before = found[-1] if found else None
        if before and before.end == area.start and before.rights & PROT_WRITE == area.rights & PROT_WRITE:
            found[-1] = _Area(before.start, area.end, before.rights | area.rights)
        else:
            found.append(area)
    return found


def _content(memory: BinaryIO, start: int, size: int) -> bytes:
    found = os.pread(memory.fileno(), size, start)
    if len(found) != size:
        raise HarnessError(_ATTEMPTED, f"of {size} bytes at {start:#x} {len(found)} can be read")
    return found


def _executable(code: bytes) -> bytes:
    """An ELF file whose only content is code; all of it is loaded."""
    entry = _HEADER.size + 2 * _ENTRY.size
    header = _HEADER.pack(
        _IDENT, _ET_EXEC, _EM_X86_64, 1, _LOWEST + entry, _HEADER.size, 0, 0, _HEADER.size, _ENTRY.size, 2, 0, 0, 0
    )
    loaded = _ENTRY.pack(_PT_LOAD, _PF_R | _PF_X, 0, _LOWEST, _LOWEST, HEAD, HEAD, _PAGE)
    stack = _ENTRY.pack(_PT_GNU_STACK, _PF_R | _PF_W, 0, 0, 0, 0, 0, 16)
    if entry + len(code) > HEAD:
        raise HarnessError(_ATTEMPTED, f"what is to start it has {len(code)} bytes, more than {HEAD - entry}")
    return (header + loaded + stack + code).ljust(HEAD, b"\0")


def _code(registers: dict[str, int], stack: _Area, areas: list[_Area], device: str, tid: int) -> bytes:
    """What the new process does first: it makes memory and registers those of the old one, and goes on.

    Its number, which its C library has in memory, is made the new one's. Its break(2) stays right behind the executable
    itself, where there is no room to move it: malloc then does without.
    """
    name = device.encode() + b"\0"
    jump_over = bytes((0xEB, len(name)))
    r8_rax, rdi_r8 = b"\x49\x89\xc0", b"\x4c\x89\xc7"  # mov of register to register
    at_rdi_eax, rep_movsb, jmp_r11 = b"\x89\x07", b"\xf3\xa4", b"\x41\xff\xe3"  # to where rdi points, r11 is
    copy = _Area(_LOWEST + HEAD, _LOWEST + HEAD + stack.size, PROT_READ)
    maps, place = [], HEAD
    for area in (copy, *areas):
        how = {"rsi": area.size, "rdx": area.rights, "r10": MAP_PRIVATE | _MAP_FIXED, "r9": place}
        maps.append(_call("mmap", rdi=area.start, **how))  # r8, the file, stays
        place += area.size
    entry = _LOWEST + _HEADER.size + 2 * _ENTRY.size
    return b"".join((
        jump_over, name, _call("open", rdi=entry + len(jump_over), rsi=os.O_RDONLY), r8_rax,
        *maps,
        rdi_r8, _call("close"),
        _set("rsp", stack.start), _set("rdi", stack.start), _set("rsi", copy.start), _set("rcx", stack.size), rep_movsb,
        _call("arch_prctl", rdi=_ARCH_SET_FS, rsi=registers["fs_base"]),
        _call("set_tid_address", rdi=tid), at_rdi_eax,
        *(_set(register, registers[register]) for register in _KEPT),
        _set("rax", 0), _set("r11", registers["rip"]), jmp_r11,
    ))  # fmt: skip


_NUMBERS = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{number}" for number in range(8, 16)))


def _call(name: str, **arguments: int) -> bytes:
    registers = {**arguments, "rax": _CALLS[name]}
    return b"".join(_set(register, value) for register, value in registers.items()) + b"\x0f\x05"


def _set(register: str, value: int) -> bytes:
    """movabs: the register's number is in the first two bytes (Intel's manual, volume 2, MOV)."""
    number = _NUMBERS.index(register)
    return bytes((0x48 | number >> 3, 0xB8 | number & 7)) + struct.pack("<Q", value)
