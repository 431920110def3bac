"""The section .BTF.ext of an object: which source line, and which CO-RE relocation, an instruction has.

Layout from Documentation/bpf/btf.rst and tools/lib/bpf/libbpf_internal.h. Everything is in bytes and in the object's
byte order; names and texts are offsets in the strings of .BTF.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.program.object.btf import MAGIC, Btf, order_of
from harness.program.object.elf import Malformed
from harness.program.object.instructions import SIZE

RECORDS = 1 << 17  # of each kind in an object


@dataclass(frozen=True)
class SourceLine:
    """Where in the source an instruction (by its index in its section) begins a line."""

    instruction: int
    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file.rpartition('/')[2]}:{self.line}: {self.text.strip()}"


@dataclass(frozen=True)
class Relocation:
    """A CO-RE relocation: `access` into the object's type, of BPF_CORE_ kind, for one instruction of its section."""

    instruction: int
    type: int
    access: str
    kind: int


@dataclass(frozen=True)
class Extension:
    """Source lines and CO-RE relocations by the name of their section."""

    lines: Mapping[str, tuple[SourceLine, ...]]
    relocations: Mapping[str, tuple[Relocation, ...]]


NOTHING = Extension({}, {})


def parse(data: bytes, types: Btf) -> Extension:
    """Raises Malformed where the section is damaged."""
    order = order_of(data, MAGIC)
    if len(data) < 24:
        raise Malformed("its .BTF.ext is cut off in the header")
    header = struct.unpack_from(order + "I", data, 4)[0]
    if header < 24 or header > len(data):
        raise Malformed(f"its .BTF.ext is damaged: a header of {header} bytes in {len(data)}")
    places = struct.unpack_from(order + "6I", data, 8) if header >= 32 <= len(data) else (0,) * 6
    return Extension(_lines(data, order, header, places[2:4], types), _core(data, order, header, places[4:6], types))


def _lines(
    data: bytes, order: str, header: int, place: tuple[int, ...], types: Btf
) -> Mapping[str, tuple[SourceLine, ...]]:
    found: dict[str, list[SourceLine]] = {}
    for section, row in _records(data, order, header, place, 16, types):
        offset, file, text, column = row
        found.setdefault(section, []).append(
            SourceLine(offset // SIZE, types.text(file), column >> 10, types.text(text))
        )
    return {name: tuple(rows) for name, rows in found.items()}


def _core(
    data: bytes, order: str, header: int, place: tuple[int, ...], types: Btf
) -> Mapping[str, tuple[Relocation, ...]]:
    found: dict[str, list[Relocation]] = {}
    for section, row in _records(data, order, header, place, 16, types):
        offset, kind, access, what = row
        found.setdefault(section, []).append(Relocation(offset // SIZE, kind, types.text(access), what))
    return {name: tuple(rows) for name, rows in found.items()}


def _records(
    data: bytes, order: str, header: int, place: tuple[int, ...], least: int, types: Btf
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The section's name and the first four words of each record of one part."""
    at, length = header + place[0], place[1]
    if not length:
        return
    end = at + length
    if end > len(data) or length < 4:
        raise Malformed("its .BTF.ext is damaged or cut off: a part lies outside of it")
    size = struct.unpack_from(order + "I", data, at)[0]
    at += 4
    if size < least:
        raise Malformed(f"its .BTF.ext is damaged: records of {size} bytes")
    total = 0
    while at < end:
        if at + 8 > end:
            raise Malformed("its .BTF.ext is cut off in the head of a section")
        name, count = struct.unpack_from(order + "2I", data, at)
        at += 8
        if at + count * size > end:
            raise Malformed(f"its .BTF.ext is damaged or cut off: {count} records for one section")
        total += count
        if total > RECORDS:
            raise Malformed(f"its .BTF.ext has more than {RECORDS} records of one kind")
        section = types.text(name)
        for number in range(count):
            yield section, struct.unpack_from(order + "4I", data, at + number * size)
        at += count * size
