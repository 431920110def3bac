"""An eBPF object as the agent ships one, made of a program image: ELF, maps by BTF, no compiler.

It has what a loader needs and no more: the agent's sections and function names, relocations against the maps, and BTF
that says each map's type, sizes and entries.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from harness.program.image import Image, MapSpec
from harness.program.maps import LAYOUTS
from harness.program.object.agent import PROGRAMS

NAMES: Mapping[str, str] = {"connect4": "connect4", "complete_kprobe": "tcp_v4_connect"}
"""What the agent calls each program of ours."""

# elf.h
_HEADER, _SECTION, _SYMBOL, _RELOCATION = 64, 64, 24, 16  # bytes of each record
_EM_BPF, _ET_REL = 247, 1
_PROGBITS, _SYMTAB, _STRTAB, _REL = 1, 2, 3, 9
_ALLOC_EXECUTE, _WRITE_ALLOC = 0x6, 0x3
_GLOBAL_FUNCTION, _GLOBAL_OBJECT = 0x12, 0x11  # STB_GLOBAL << 4 | STT_…
_R_BPF_64_64 = 1
# linux/btf.h
_BTF_MAGIC = 0xEB9F
_INT, _PTR, _ARRAY, _STRUCT, _VAR, _DATASEC = 1, 2, 3, 4, 14, 15
_MAP_BYTES = 32  # of a map's definition in .maps: four pointers


@dataclass(frozen=True)
class _Section:
    name: str
    data: bytes
    type: int = _PROGBITS
    flags: int = 0
    link: int = 0
    info: int = 0
    entry: int = 0
    align: int = 8


class _Strings:
    """A string table: names to offsets."""

    def __init__(self) -> None:
        self.data = bytearray(b"\0")

    def add(self, name: str) -> int:
        offset = len(self.data)
        self.data += name.encode() + b"\0"
        return offset


def build(image: Image) -> bytes:
    """The object, little-endian. Its maps have as many entries as the agent's."""
    strings = _Strings()
    programs = [program for program in image.programs if program.name in NAMES]
    numbers = {program.name: 1 + 2 * index for index, program in enumerate(programs)}  # its section; relocations follow
    maps, symbols_at = 1 + 2 * len(programs), 4 + 2 * len(programs)
    rows = [bytes(_SYMBOL)]
    for program in programs:
        size = len(program.instructions)
        rows.append(_symbol(strings.add(NAMES[program.name]), _GLOBAL_FUNCTION, numbers[program.name], 0, size))
    symbol_of = {}
    for index, spec in enumerate(image.maps):
        symbol_of[spec.name] = len(rows)
        rows.append(_symbol(strings.add(spec.name), _GLOBAL_OBJECT, maps, index * _MAP_BYTES, _MAP_BYTES))
    sections = []
    for program in programs:
        code = bytearray(program.instructions)
        for index, _ in program.relocations:
            struct.pack_into("<Bhi", code, 8 * index + 1, code[8 * index + 1] & 0x0F, 0, 0)  # no source, no immediate
        named = PROGRAMS[NAMES[program.name]]
        sections.append(_Section(named, bytes(code), flags=_ALLOC_EXECUTE))
        relocations = b"".join(
            struct.pack("<QQ", 8 * index, symbol_of[name] << 32 | _R_BPF_64_64) for index, name in program.relocations
        )
        sections.append(_Section(f".rel{named}", relocations, _REL, 0, symbols_at, numbers[program.name], _RELOCATION))
    sections += [
        _Section(".maps", bytes(_MAP_BYTES * len(image.maps)), flags=_WRITE_ALLOC),
        _Section("license", image.licence.encode() + b"\0", flags=_WRITE_ALLOC, align=1),
        _Section(".BTF", _btf(image.maps), align=4),
        _Section(".symtab", b"".join(rows), _SYMTAB, 0, symbols_at + 1, 1, _SYMBOL),
    ]
    return _elf(sections, strings)


def _symbol(name: int, info: int, section: int, value: int, size: int) -> bytes:
    return struct.pack("<IBBHQQ", name, info, 0, section, value, size)


def _elf(sections: list[_Section], strings: _Strings) -> bytes:
    """Header, contents, section table; the string table, of sections and symbols alike, comes last."""
    names = [strings.add(section.name) for section in sections]
    names.append(strings.add(".strtab"))
    sections = [*sections, _Section(".strtab", bytes(strings.data), _STRTAB, align=1)]
    body, table = bytearray(), bytearray(_SECTION)
    for name, one in zip(names, sections, strict=True):
        body += bytes(-len(body) % 8)
        place = (0, _HEADER + len(body), len(one.data))
        table += struct.pack("<IIQQQQIIQQ", name, one.type, one.flags, *place, one.link, one.info, one.align, one.entry)
        body += one.data
    body += bytes(-len(body) % 8)
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", _ET_REL, _EM_BPF, 1, 0, 0, _HEADER + len(body), 0, _HEADER, 0, 0, _SECTION,
        len(sections) + 1, len(sections),
    )  # fmt: skip
    return header + bytes(body) + bytes(table)


def _btf(maps: tuple[MapSpec, ...]) -> bytes:
    """BTF of the section .maps. A number N is there as `int (*name)[N]`, as libbpf's __uint(name, N) writes it."""
    strings = _Strings()
    types = [_type(strings.add("int"), _INT, 0, 4) + struct.pack("<I", 1 << 24 | 32)]  # signed, 32 bits
    pointers: dict[int, int] = {}
    variables = []

    def add(record: bytes) -> int:
        types.append(record)
        return len(types)

    for spec in maps:
        entries = LAYOUTS[spec.name].entries if spec.name in LAYOUTS else spec.entries
        members = {"type": spec.type, "key_size": spec.key_size, "value_size": spec.value_size, "max_entries": entries}
        fields = b""
        for index, (name, number) in enumerate(members.items()):
            if number not in pointers:
                array = add(_type(0, _ARRAY, 0, 0) + struct.pack("<III", 1, 1, number))
                pointers[number] = add(_type(0, _PTR, 0, array))
            fields += struct.pack("<III", strings.add(name), pointers[number], 64 * index)
        shape = add(_type(0, _STRUCT, len(members), _MAP_BYTES) + fields)
        variables.append(add(_type(strings.add(spec.name), _VAR, 0, shape) + struct.pack("<I", 1)))  # global
    places = (struct.pack("<III", one, _MAP_BYTES * index, _MAP_BYTES) for index, one in enumerate(variables))
    add(_type(strings.add(".maps"), _DATASEC, len(maps), _MAP_BYTES * len(maps)) + b"".join(places))
    data, size = b"".join(types), len(strings.data)
    return struct.pack("<HBBIIIII", _BTF_MAGIC, 1, 0, 24, 0, len(data), len(data), size) + data + bytes(strings.data)


def _type(name: int, kind: int, members: int, size: int) -> bytes:
    return struct.pack("<III", name, kind << 24 | members, size)
