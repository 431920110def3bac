"""ELF64 relocatable files for BPF: sections, symbols and relocations; nothing else of ELF.

A reader of our own and not pyelftools: a stranger's file must give a Malformed (or an answer) in bounded time and
memory. Of 19,000 damaged objects pyelftools 0.33 answered one in a hundred and forty with another exception than its
own, and it reads as much as a damaged table tells it to; what is needed here of ELF is three tables.

Numbers are from elf.h; EM_BPF and R_BPF_* from include/uapi/linux/elf-em.h and LLVM's ELFRelocs/BPF.def. Integers are
in the file's byte order, which may be either.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.errors import HarnessError, errno_text

LARGEST = 64 << 20  # bytes of a file that is read; an agent's object has 20 to 200 KiB
SECTIONS = 4096
SYMBOLS = 1 << 16
RELOCATIONS = 1 << 17
NAME = 512  # bytes of a name; KSYM_NAME_LEN

EM_BPF = 247
ET_REL = 1
SHT_NULL, SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_NOBITS, SHT_REL = 0, 1, 2, 3, 4, 8, 9
SHF_EXECINSTR = 4
STT_FUNC, STT_SECTION = 2, 3
STB_LOCAL, STB_WEAK = 0, 2
SHN_LORESERVE = 0xFF00
R_BPF_64_64 = 1  # a ld_imm64's value: a map, a variable or a function
R_BPF_64_32 = 10  # a call's target

_HEADER, _SECTION, _SYMBOL = 64, 64, 24
_MACHINES = {3: "x86", 40: "Arm", 62: "x86-64", 183: "AArch64", 243: "RISC-V", 21: "PowerPC64", 22: "s390"}
REMEDY = "give the eBPF object, ebpf_cgroup.o"


class Malformed(ValueError):
    """What was read is not what it should be; the text completes `cannot inspect FILE: …`."""


@dataclass(frozen=True)
class Section:
    """A section header and the bytes that it stands for; sizes and offsets in bytes."""

    index: int
    name: str
    type: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    data: bytes

    @property
    def executable(self) -> bool:
        return bool(self.flags & SHF_EXECINSTR) and self.type == SHT_PROGBITS


@dataclass(frozen=True)
class Symbol:
    """A symbol; section 0 means that it is defined elsewhere, value is an offset in its section."""

    name: str
    value: int
    size: int
    section: int
    kind: int
    binding: int


@dataclass(frozen=True)
class Relocation:
    """Where in its section (bytes), of which R_BPF_ kind, and to which symbol."""

    offset: int
    type: int
    symbol: Symbol


@dataclass(frozen=True)
class Elf:
    """A BPF object's sections; symbols and relocations are read when they are asked for, and raise Malformed."""

    order: str  # struct's: "<" little endian, ">" big endian
    type: int
    sections: tuple[Section, ...]
    size: int  # of the file, in bytes

    @property
    def big_endian(self) -> bool:
        return self.order == ">"

    def section(self, name: str) -> Section | None:
        """The first section of a name."""
        return next((section for section in self.sections if section.name == name), None)

    @cached_property
    def symbols(self) -> tuple[Symbol, ...]:
        """The symbol table; empty where it was stripped. A section's symbol has the section's name."""
        table = next((section for section in self.sections if section.type == SHT_SYMTAB), None)
        if table is None:
            return ()
        if len(table.data) // _SYMBOL > SYMBOLS:
            raise Malformed(f"it has more than {SYMBOLS} symbols")
        strings = self._strings(table.link)
        return tuple(self._symbol(row, strings) for row in struct.iter_unpack(self.order + "IBBHQQ", _whole(table)))

    def _symbol(self, row: tuple[int, int, int, int, int, int], strings: bytes) -> Symbol:
        name, info, _, section, value, size = row
        kind = info & 15
        text = text_at(strings, name)
        if kind == STT_SECTION and not text and section < len(self.sections):
            text = self.sections[section].name
        return Symbol(text, value, size, section, kind, info >> 4)

    def _strings(self, index: int) -> bytes:
        return self.sections[index].data if index < len(self.sections) else b""

    @cached_property
    def relocations(self) -> Mapping[int, tuple[Relocation, ...]]:
        """The relocations by the index of the section that they change, in the order of their offsets.

        Only those of executable sections: a compiler's debug information has many that matter to nobody here.
        """
        found: dict[int, tuple[Relocation, ...]] = {}
        count = 0
        for table in self.sections:
            if table.type not in (SHT_REL, SHT_RELA) or table.info >= len(self.sections):
                continue
            if not self.sections[table.info].executable:
                continue
            count += table.size // 16
            if count > RELOCATIONS:
                raise Malformed(f"it has more than {RELOCATIONS} relocations")
            rows = sorted((*found.get(table.info, ()), *self._relocations(table)), key=lambda row: row.offset)
            found[table.info] = tuple(rows)
        return found

    def _relocations(self, table: Section) -> Iterator[Relocation]:
        form = "QQ" if table.type == SHT_REL else "QQq"
        size = struct.calcsize(self.order + form)
        for row in struct.iter_unpack(self.order + form, table.data[: len(table.data) // size * size]):
            number = row[1] >> 32
            if number >= len(self.symbols):
                of = self.sections[table.info].name
                raise Malformed(f"a relocation of {of} names symbol {number}, of which there are {len(self.symbols)}")
            yield Relocation(row[0], row[1] & 0xFFFFFFFF, self.symbols[number])


def _whole(table: Section) -> bytes:
    return table.data[: len(table.data) // _SYMBOL * _SYMBOL]


def text_at(strings: bytes, offset: int) -> str:
    """The zero-terminated text at an offset: empty outside, cut after NAME bytes."""
    if not 0 <= offset < len(strings):
        return ""
    raw = strings[offset : offset + NAME + 1].partition(b"\0")[0]
    return raw[:NAME].decode("utf-8", "replace") + ("…" if len(raw) > NAME else "")


def read(path: Path, largest: int = LARGEST) -> bytes:
    """A file's bytes. Raises HarnessError when it cannot be read, is larger than largest bytes, or is no file."""
    attempted = f"read {path}"
    try:
        if not path.is_file() and path.exists():
            raise HarnessError(attempted, "it is not a file", REMEDY)
        with path.open("rb") as file:
            data = file.read(largest + 1)
    except OSError as error:
        raise HarnessError(attempted, errno_text(error.errno or 0), errno=error.errno or 0) from error
    except ValueError as error:  # a zero byte in the name
        raise HarnessError(attempted, str(error)) from error
    if len(data) > largest:
        raise HarnessError(attempted, f"the file is larger than {largest >> 20} MiB", REMEDY)
    return data


def parse(data: bytes) -> Elf:
    """The sections of a BPF object. Raises Malformed when the bytes are none, or are cut or damaged."""
    return _parse(data, of_bpf=True)


def any_machine(data: bytes) -> Elf:
    """The same of any 64-bit ELF file: a vmlinux, for its BTF."""
    return _parse(data, of_bpf=False)


def _parse(data: bytes, *, of_bpf: bool) -> Elf:
    if data[:4] != b"\x7fELF" or len(data) < _HEADER or data[4] != 2 or data[5] not in (1, 2):
        raise Malformed(f"it is not a 64-bit ELF file ({_looks_like(data)})")
    order = "<" if data[5] == 1 else ">"
    kind, machine = struct.unpack_from(order + "HH", data, 16)
    if of_bpf and machine != EM_BPF:
        name = f" ({_MACHINES[machine]})" if machine in _MACHINES else ""
        raise Malformed(f"it is an ELF file for machine {machine}{name}, not for BPF ({EM_BPF})")
    return Elf(order, kind, tuple(_sections(data, order)), len(data))


def _looks_like(data: bytes) -> str:
    """What a file that is not ours seems to be, for the message."""
    if not data:
        return "it is empty"
    known = (
        (b"\x7fELF", "a 32-bit or cut ELF file" if len(data) < _HEADER or data[4] == 1 else "a damaged ELF header"),
        (b"\x9f\xeb", "raw BTF: give it to --btf"),
        (b"\xeb\x9f", "raw BTF: give it to --btf"),
        (b"!<arch>\n", "an ar archive or a Debian package"),
        (b"\x1f\x8b", "gzip"),
        (b"PK\x03\x04", "a zip archive"),
        (b"\xed\xab\xee\xdb", "an RPM package"),
        (b"BC\xc0\xde", "LLVM bitcode: compile it with llc -march=bpf -filetype=obj"),
        (b"#!", "a script"),
        (b"MZ", "a Windows executable"),
    )
    return next((what for magic, what in known if data.startswith(magic)), f"it begins with {data[:4].hex(' ')}")


def _sections(data: bytes, order: str) -> Iterator[Section]:
    table = struct.unpack_from(order + "Q", data, 40)[0]
    entry, count, names = struct.unpack_from(order + "3H", data, 58)
    if not table or not count:
        raise Malformed("it has no section headers")
    if entry != _SECTION or count > SECTIONS or table + entry * count > len(data):
        raise Malformed(
            f"its section headers are damaged or cut off: {count} of {entry} bytes at {table} in a file of {len(data)}"
        )
    if names >= count:
        raise Malformed(f"its section headers are damaged: their names are in section {names} of {count}")
    rows = [struct.unpack_from(order + "IIQQQQII", data, table + entry * number) for number in range(count)]
    _check_places(rows, len(data))
    strings = _content(data, rows[names])
    for index, row in enumerate(rows):
        name, kind, flags, _, offset, size, link, info = row
        yield Section(index, text_at(strings, name), kind, flags, offset, size, link, info, _content(data, row))


def _check_places(rows: list[tuple[int, ...]], length: int) -> None:
    """Every section lies in the file, and all together are no larger than it: a relocatable file has no overlaps."""
    total = 0
    for index, (_, kind, _, _, offset, size, _, _) in enumerate(rows):
        if kind in (SHT_NULL, SHT_NOBITS):
            continue
        total += size
        if offset + size > length:
            raise Malformed(
                f"section {index} lies outside of the file: {size} bytes at {offset} of {length}: damaged or cut"
            )
    if total > length:
        raise Malformed(f"its section headers are damaged: sections of {total} bytes in a file of {length}")


def _content(data: bytes, row: tuple[int, ...]) -> bytes:
    return b"" if row[1] in (SHT_NULL, SHT_NOBITS) else data[row[4] : row[4] + row[5]]
