"""BTF: the types of an object or of a kernel (Documentation/bpf/btf.rst, include/uapi/linux/btf.h).

Offsets and sizes are in bytes, a member's offset in bits. The kernel's BTF has 150,000 types: one pass finds where each
begins, and a type is decoded when it is asked for. Whatever a stranger wrote into it: names are cut, chains have a
greatest length, and what makes no sense raises Malformed.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import Path

from harness.errors import HarnessError
from harness.program.object import elf
from harness.program.object.elf import Malformed, text_at

KERNEL = Path("/sys/kernel/btf/vmlinux")
LARGEST = 32 << 20  # bytes of a .BTF section; a distribution's kernel has 5 to 10 MiB
TYPES = 1 << 20
MAGIC = 0xEB9F
CHAIN = 32  # typedefs and qualifiers in a row; BTF's own limit is MAX_RESOLVE_DEPTH, 32
DEEP = 16  # structs within structs
FIELDS = 1024  # of one struct, those of its members' structs included
ALL_FIELDS = 1 << 16  # of all structs that are asked for; an object of the agent's has some thirty
SAME = 256  # types of one name that are looked at
POINTER = 8  # bytes: a BPF object's, and that of the kernels that we know


class Kind(IntEnum):
    """BTF_KIND_*."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


MODIFIERS = frozenset({Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG})
COMPOSITE = frozenset({Kind.STRUCT, Kind.UNION})
ENUMS = frozenset({Kind.ENUM, Kind.ENUM64})

# What follows a type's first twelve bytes: bytes for each of its vlen entries, and bytes once.
_EACH = {Kind.STRUCT: 12, Kind.UNION: 12, Kind.ENUM: 8, Kind.FUNC_PROTO: 8, Kind.DATASEC: 12, Kind.ENUM64: 12}
_ONCE = {Kind.INT: 4, Kind.ARRAY: 12, Kind.VAR: 4, Kind.DECL_TAG: 4}


@dataclass(frozen=True)
class Type:
    """A type's head: value is a size in bytes or another type's id, as its kind has it."""

    id: int
    kind: Kind
    name: str
    entries: int
    flag: bool
    value: int
    at: int  # where what follows the head begins


@dataclass(frozen=True)
class Member:
    """A member of a struct or union; bits is its width where it is a bit field, else 0."""

    name: str
    type: int
    offset: int  # in bits
    bits: int


@dataclass(frozen=True)
class Field:
    """A leaf of a struct: `destination_ip.ipv4`, where it lies and how long it is in bytes, and its type's name."""

    name: str
    offset: int
    size: int
    type: str

    def __str__(self) -> str:
        return f"{self.type} {self.name} at {self.offset}".replace("  ", " ")


VOID = Type(0, Kind.VOID, "void", 0, False, 0, 0)


class Btf:
    """The types of one BTF blob, by id; 0 is void. Raises Malformed where it is damaged."""

    def __init__(self, data: bytes):
        self.order = order_of(data, MAGIC)
        if len(data) > LARGEST:
            raise Malformed(f"its BTF has more than {LARGEST >> 20} MiB")
        if len(data) < 24:
            raise Malformed("its BTF is cut off in the header")
        header, types, types_length, strings, strings_length = struct.unpack_from(self.order + "5I", data, 4)
        if header < 24 or max(header + types + types_length, header + strings + strings_length) > len(data):
            raise Malformed(f"its BTF is damaged or cut off: the header speaks of more than its {len(data)} bytes")
        self._types = data[header + types : header + types + types_length]
        self._strings = data[header + strings : header + strings + strings_length]
        self._offsets = self._walk()
        self._known_fields: dict[int, Sequence[Field]] = {}
        self._counted_fields = 0

    def _walk(self) -> array[int]:
        """Where each type begins."""
        offsets = array("I", (0,))
        content, at, length = self._types, 0, len(self._types)
        sizes = [(_EACH.get(kind, 0), _ONCE.get(kind, 0)) for kind in Kind]
        unpack = struct.Struct(self.order + "4xI4x").unpack_from
        while at < length:
            if at + 12 > length:
                raise Malformed(f"its BTF is cut off in type {len(offsets)}")
            info = unpack(content, at)[0]
            kind = info >> 24 & 31
            if kind >= len(sizes) or kind == 0:
                raise Malformed(f"its BTF has a type {len(offsets)} of kind {kind}, which is not known")
            if len(offsets) > TYPES:
                raise Malformed(f"its BTF has more than {TYPES} types")
            offsets.append(at)
            each, once = sizes[kind]
            at += 12 + once + each * (info & 0xFFFF)
        if at > length:
            raise Malformed(f"its BTF is cut off in type {len(offsets) - 1}")
        return offsets

    def __len__(self) -> int:
        """How many types, void not counted."""
        return len(self._offsets) - 1

    def text(self, offset: int) -> str:
        return text_at(self._strings, offset)

    def type(self, number: int) -> Type:
        if number == 0:
            return VOID
        if not 0 < number < len(self._offsets):
            raise Malformed(f"its BTF speaks of type {number} and has {len(self)}")
        at = self._offsets[number]
        name, info, value = struct.unpack_from(self.order + "3I", self._types, at)
        return Type(number, Kind(info >> 24 & 31), self.text(name), info & 0xFFFF, bool(info >> 31), value, at + 12)

    @cached_property
    def names(self) -> Mapping[str, Sequence[int]]:
        """The ids of all types by name, without the `___flavour` of CO-RE; the nameless are left out."""
        texts: dict[int, str] = {}  # by offset: a struct's, its typedef's and others' name is often the same text
        found: dict[str, list[int]] = {}
        unpack = struct.Struct(self.order + "I").unpack_from
        for number in range(1, len(self._offsets)):
            offset = unpack(self._types, self._offsets[number])[0]
            if offset:
                name = texts.get(offset)
                if name is None:
                    name = texts[offset] = essential(self.text(offset))
                found.setdefault(name, []).append(number)
        return found

    def named(self, name: str, *kinds: Kind) -> Sequence[Type]:
        """The types of a name (without flavour) and of these kinds, or of any; of very many the first SAME."""
        types = (self.type(number) for number in self.names.get(essential(name), ())[:SAME])
        return [one for one in types if not kinds or one.kind in kinds]

    def bare(self, number: int) -> Type:
        """What is behind typedefs, const, volatile, restrict and type tags."""
        for _ in range(CHAIN):
            one = self.type(number)
            if one.kind not in MODIFIERS:
                return one
            number = one.value
        raise Malformed(f"its BTF goes in circles at type {number}")

    def member(self, one: Type, number: int) -> Member:
        """A member of a struct or union by its place, which is less than its entries."""
        name, kind, offset = struct.unpack_from(self.order + "3I", self._types, one.at + 12 * number)
        bits = offset >> 24 if one.flag else 0
        return Member(self.text(name), kind, offset & 0xFFFFFF if one.flag else offset, bits)

    def members(self, one: Type) -> Iterator[Member]:
        return (self.member(one, number) for number in range(one.entries))

    def enumerator(self, one: Type, number: int) -> tuple[str, int]:
        """An enumerator's name and value by its place, which is less than the type's entries."""
        wide = one.kind is Kind.ENUM64
        form, size, sign = ("3I", 12, 1 << 63) if wide else ("2I", 8, 1 << 31)
        row = struct.unpack_from(self.order + form, self._types, one.at + size * number)
        value = row[1] | row[2] << 32 if wide else row[1]
        return self.text(row[0]), value - 2 * sign if one.flag and value & sign else value

    def enumerators(self, one: Type) -> Iterator[tuple[str, int]]:
        return (self.enumerator(one, number) for number in range(one.entries))

    def array(self, one: Type) -> tuple[int, int]:
        """The element's type and how many there are."""
        element, _, count = struct.unpack_from(self.order + "3I", self._types, one.at)
        return element, count

    def parameters(self, one: Type) -> Iterator[tuple[str, int]]:
        for number in range(one.entries):
            name, kind = struct.unpack_from(self.order + "2I", self._types, one.at + 8 * number)
            yield self.text(name), kind

    def variables(self, one: Type) -> Iterator[tuple[Type, int]]:
        """The VARs (or FUNCs) of a DATASEC and their sizes."""
        for number in range(one.entries):
            kind, _, size = struct.unpack_from(self.order + "3I", self._types, one.at + 12 * number)
            yield self.type(kind), size

    def signed(self, one: Type) -> bool:
        if one.kind in ENUMS:
            return one.flag
        return one.kind is Kind.INT and bool(struct.unpack_from(self.order + "I", self._types, one.at)[0] >> 24 & 1)

    def size(self, number: int) -> int:
        """A type's size in bytes; 0 for what has none. Raises Malformed for arrays in circles."""
        count = 1
        for _ in range(CHAIN):
            one = self.bare(number)
            if one.kind is Kind.PTR:
                return POINTER * count
            if one.kind is not Kind.ARRAY:
                sized = one.kind in COMPOSITE or one.kind in ENUMS or one.kind in (Kind.INT, Kind.FLOAT, Kind.DATASEC)
                return one.value * count if sized else 0
            number, times = self.array(one)
            count *= times
        raise Malformed(f"its BTF goes in circles at type {number}")

    def describe(self, number: int) -> str:
        """A type as C would write it, or nearly: `struct sock`, `__u32`, `char *`, `__u32[3]`."""
        text = ""
        for _ in range(CHAIN):
            one = self.type(number)
            if one.kind is Kind.PTR:
                text, number = " *" + text, one.value
            elif one.kind is Kind.ARRAY:
                number, count = self.array(one)
                text = f"[{count}]{text}"
            elif one.kind in (Kind.CONST, Kind.VOLATILE, Kind.RESTRICT, Kind.TYPE_TAG):
                number = one.value
            else:
                word = {Kind.STRUCT: "struct ", Kind.UNION: "union ", Kind.ENUM: "enum ", Kind.ENUM64: "enum "}
                return f"{word.get(one.kind, '')}{one.name or '(anonymous)'}{text}"
        return "…" + text

    def fields(self, number: int) -> Sequence[Field]:
        """The leaves of a type in the order of their offsets as declared; of a union those of all its members.

        A type that is no struct is one field without a name. An array of structs is one field.
        """
        if number not in self._known_fields:
            found: list[Field] = []
            self._flatten(number, "", 0, 0, found)
            self._counted_fields += len(found)
            if self._counted_fields > ALL_FIELDS:
                raise Malformed(f"the structs of its BTF have more than {ALL_FIELDS} fields")
            self._known_fields[number] = tuple(found)
        return self._known_fields[number]

    def _flatten(self, number: int, name: str, offset: int, depth: int, found: list[Field]) -> None:
        one = self.bare(number)
        if one.kind not in COMPOSITE or depth == DEEP or not one.entries:
            if len(found) >= FIELDS:
                raise Malformed(f"a struct of its BTF has more than {FIELDS} fields, or lies within itself")
            found.append(Field(name, offset, self.size(number), self.describe(number)))
            return
        for member in self.members(one):
            inner = ".".join(part for part in (name, member.name) if part)
            self._flatten(member.type, inner, offset + member.offset // 8, depth + 1, found)


def essential(name: str) -> str:
    """A name without the `___flavour` by which CO-RE tells apart two versions of one struct."""
    at = name.rfind("___")
    return name[:at] if at > 0 and len(name) > at + 3 else name


def order_of(data: bytes, magic: int) -> str:
    """The byte order that a blob's magic number tells."""
    for order in "<>":
        if data[:2] == struct.pack(order + "H", magic):
            return order
    raise Malformed(f"its BTF does not begin with its magic number but with {data[:2].hex(' ') or 'nothing'}")


def load(path: Path) -> Btf:
    """A kernel's BTF: raw as in /sys/kernel/btf, or the section .BTF of any 64-bit ELF file (an uncompressed vmlinux).

    Raises HarnessError.
    """
    data = elf.read(path)
    try:
        if data[:4] == b"\x7fELF":
            section = next((one for one in elf.any_machine(data).sections if one.name == ".BTF"), None)
            if section is None:
                raise Malformed("it has no section .BTF")
            data = section.data
        return Btf(data)
    except ValueError as error:
        remedy = "give raw BTF as in /sys/kernel/btf/vmlinux, or an ELF file with the section .BTF"
        raise HarnessError(f"read the BTF of {path}", str(error).removeprefix("its BTF "), remedy) from error
