"""ELF and BTF made by hand, for what no compiler would make."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

HEADER = 64


def elf(sections: Mapping[str, bytes], order: str = "<", machine: int = 247) -> bytes:
    """A relocatable file of these sections; those whose names have a / are executable."""
    names, content, rows = b"\0", b"", [(0,) * 10]
    for name, data in [*sections.items(), (".shstrtab", b"")]:
        where = len(names)
        names += name.encode() + b"\0"
        kind, flags = (3, 0) if name == ".shstrtab" else (1, 4 if "/" in name else 0)
        data = names if name == ".shstrtab" else data
        rows.append((where, kind, flags, 0, HEADER + len(content), len(data), 0, 0, 0, 0))
        content += data
    head = b"\x7fELF" + bytes([2, 1 if order == "<" else 2, 1]) + bytes(9)
    head += struct.pack(
        order + "HHIQQQIHHHHHH", 1, machine, 1, 0, 0, HEADER + len(content), 0, 64, 0, 0, 64, len(rows), len(rows) - 1
    )
    return head + content + b"".join(struct.pack(order + "IIQQQQIIQQ", *row) for row in rows)


def btf(types: Sequence[bytes], strings: bytes = b"\0", order: str = "<") -> bytes:
    """A BTF blob of these types, in the order of their ids from 1 on."""
    body = b"".join(types)
    return struct.pack(order + "HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(body), len(body), len(strings)) + body + strings


def head(name: int, kind: int, value: int, entries: int = 0, flag: int = 0, order: str = "<") -> bytes:
    """A type's first twelve bytes."""
    return struct.pack(order + "III", name, flag << 31 | kind << 24 | entries, value)


def struct_of(name: int, size: int, *members: tuple[int, int, int]) -> bytes:
    """A struct of members (name, type, offset in bits)."""
    return head(name, 4, size, len(members)) + b"".join(struct.pack("<III", *member) for member in members)


def integer(name: int, size: int) -> bytes:
    return head(name, 1, size) + struct.pack("<I", 8 * size)


def extension(relocations: Sequence[tuple[int, int, int, int]], section: int) -> bytes:
    """A .BTF.ext with CO-RE relocations of one section: (offset in bytes, type, access, kind)."""
    rows = b"".join(struct.pack("<IIII", *row) for row in relocations)
    core = struct.pack("<III", 16, section, len(relocations)) + rows
    return struct.pack("<HBBIIIIIII", 0xEB9F, 1, 0, 32, 0, 0, 0, 0, 0, len(core)) + core
