"""The first bytes of an executable: an ELF file and for which machine, or a script and by what."""

from __future__ import annotations

import struct

_MACHINES = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64", 21: "ppc64", 22: "s390x"}
"""e_machine by uname's names, from elf.h."""


def machine_of(data: bytes) -> str:
    """The machine that an ELF file is for; nothing for what is no ELF file, `ELF machine N` for one without a name."""
    if data[:4] != b"\x7fELF" or len(data) < 20:
        return ""
    order = ">" if data[5] == 2 else "<"
    (number,) = struct.unpack_from(f"{order}H", data, 18)
    return _MACHINES.get(number, f"ELF machine {number}")


def interpreter_of(data: bytes) -> str:
    """What a script is run by: the words after `#!`, nothing for what is no script."""
    if data[:2] != b"#!":
        return ""
    return data[2:].partition(b"\n")[0][:256].decode("utf-8", "replace").strip()
