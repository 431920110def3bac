"""vmlinux, the kernel as an ELF file: QEMU starts it directly (PVH), and the guest has nothing to unpack.

QEMU wants an ELF64 file for x86-64 with the note XEN_ELFNOTE_PHYS32_ENTRY, which CONFIG_PVH gives
(include/xen/interface/elfnote.h; QEMU's hw/i386/x86.c refuses an ELF file without it). Numbers are from elf.h, integers
little endian.
"""

from __future__ import annotations

import re
import struct

from harness.errors import HarnessError

MAGIC = b"\x7fELF"

_MACHINES = {3: "x86 (32 bits)", 40: "Arm", 62: "x86-64", 183: "AArch64", 243: "RISC-V", 21: "PowerPC64", 22: "s390"}
_EM_X86_64 = 62
_HEADER, _PROGRAM_HEADER = 64, 56
_PT_LOAD, _PT_NOTE = 1, 4
_NOTE_OWNER, _PHYS32_ENTRY = b"Xen\0", 18
_RELEASE = re.compile(rb"Linux version ([0-9][!-~]{0,200}) ")


def check(kernel: bytes) -> None:
    """Raises HarnessError, with the reason, for a file that QEMU cannot start by PVH."""
    if kernel[:4] != MAGIC or len(kernel) < _HEADER:
        raise _refused("it is no ELF file")
    if kernel[4:6] != b"\2\1":
        raise _refused("it is not ELF64, little endian")
    (machine,) = struct.unpack_from("<H", kernel, 18)
    if machine != _EM_X86_64:
        raise _refused(f"it is for {_MACHINES.get(machine, f'machine {machine}')}, not for x86-64")
    (table,) = struct.unpack_from("<Q", kernel, 32)
    size, count = struct.unpack_from("<HH", kernel, 54)
    if size != _PROGRAM_HEADER or table + size * count > len(kernel):
        raise _refused("its program headers are damaged")
    notes, segments = False, 0
    for row in range(count):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", kernel, table + row * size)
        if kind not in (_PT_LOAD, _PT_NOTE):
            continue
        if offset + length > len(kernel):
            raise _refused("a segment of it ends behind the file: it is cut off or damaged")
        segments += kind == _PT_LOAD
        notes = notes or (kind == _PT_NOTE and _enters_by_pvh(kernel[offset : offset + length]))
    if not segments:
        raise _refused("it has nothing to load")
    if not notes:
        raise _refused("it has no PVH entry (CONFIG_PVH)")


def release(kernel: bytes) -> str:
    """As `uname -r` will print it, from the kernel's banner. Raises HarnessError when there is none."""
    found = _RELEASE.search(kernel)
    if found is None:
        raise _refused("it names no version: it is no Linux kernel")
    return found.group(1).decode()


def _enters_by_pvh(notes: bytes) -> bool:
    """Whether a PT_NOTE segment has the entry: name size, content size, type; name and content padded to 4."""
    position = 0
    while position + 12 <= len(notes):
        name, content, kind = struct.unpack_from("<III", notes, position)
        position += 12
        if kind == _PHYS32_ENTRY and name == len(_NOTE_OWNER) and notes[position : position + name] == _NOTE_OWNER:
            return content in (4, 8) and position + name + content <= len(notes)
        position += (name + 3 & ~3) + (content + 3 & ~3)
    return False


def _refused(happened: str) -> HarnessError:
    return HarnessError("start a kernel as an ELF file", happened)
