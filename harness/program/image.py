"""A program image: compiled once, loadable into any kernel through bpf(2), with no compiler at hand.

An image holds instructions, map definitions, and which instruction refers to which map. Nothing in it depends on
the kernel or on the process that made it. It has no BTF: BCC gives none with its instructions, and the names that
bpftool shows are those of maps and programs themselves.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from harness.errors import HarnessError
from harness.kernel import bpf
from harness.kernel.bpf import AttachType, MapType, ProgramType

LOAD_IMM64 = 0x18  # BPF_LD | BPF_IMM | BPF_DW: two slots; with src_reg PSEUDO_MAP_FD its imm is a map's descriptor
PSEUDO_MAP_FD = 1
_INSTRUCTIONS = 1_000_000  # BPF_COMPLEXITY_LIMIT_INSNS: no kernel takes a longer program
_WORD = 1 << 32  # a member of union bpf_attr


@dataclass(frozen=True)
class MapSpec:
    """A map to create; sizes in bytes."""

    name: str
    type: int
    key_size: int
    value_size: int
    entries: int
    flags: int = 0


@dataclass(frozen=True)
class ProgramSpec:
    """A program to load: 8 bytes an instruction; relocations give (index of the ld_imm64, name of its map)."""

    name: str
    type: int
    attach: int | None
    instructions: bytes
    relocations: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Image:
    maps: tuple[MapSpec, ...]
    programs: tuple[ProgramSpec, ...]
    licence: str = "GPL"
    compiler: str = ""  # what made it, for the report

    @property
    def digest(self) -> str:
        """`sha256:…` over maps, instructions and licence; the same source, compiler and headers give the same."""
        content = json.loads(self.dump())
        del content["compiler"]
        return "sha256:" + hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def dump(self) -> str:
        """The image as JSON; instructions in base64."""
        return json.dumps(asdict(self), default=lambda raw: base64.b64encode(raw).decode())

    @classmethod
    def parse(cls, text: str) -> Image:
        """The image that dump() wrote. Raises HarnessError for anything else: what it is made of goes to the kernel."""
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _no_image(f"it is not JSON: {error}") from error
        return cls.of(content)

    @classmethod
    def of(cls, content: object) -> Image:
        """The same from JSON that has been read already."""
        try:
            given = _members(content, cls, "an image")
            image = cls(
                maps=tuple(MapSpec(**_members(spec, MapSpec, "a map")) for spec in _list(given["maps"])),
                programs=tuple(_program(spec) for spec in _list(given["programs"])),
                licence=given["licence"],
                compiler=given["compiler"],
            )
        except (TypeError, ValueError, binascii.Error) as error:
            raise _no_image(str(error)) from error
        problem = next(_problems(image), "")
        if problem:
            raise _no_image(problem)
        return image

    def program(self, name: str) -> ProgramSpec:
        return next(spec for spec in self.programs if spec.name == name)


def _no_image(happened: str) -> HarnessError:
    return HarnessError("use a program image", happened, "have it compiled again")


def _members(content: object, kind: type[Any], what: str) -> dict[str, Any]:
    """The members of a JSON object, which are to be those of a dataclass. Raises ValueError."""
    names = {field.name for field in fields(kind)}
    if not isinstance(content, dict):
        raise ValueError(f"{what} is an object, and not {type(content).__name__}")
    if content.keys() != names:
        raise ValueError(f"{what} has the members {', '.join(sorted(names))}, and no others")
    return content


def _list(content: object) -> Sequence[Any]:
    if not isinstance(content, list):
        raise ValueError(f"a list was expected, and not {type(content).__name__}")
    return content


def _program(content: object) -> ProgramSpec:
    given = dict(_members(content, ProgramSpec, "a program"))
    given["instructions"] = base64.b64decode(given["instructions"], validate=True)
    given["relocations"] = tuple((index, name) for index, name in _list(given["relocations"]))
    return ProgramSpec(**given)


def _problems(image: Image) -> Iterator[str]:
    """What is wrong with an image whose members are all there."""
    names = [*(spec.name for spec in image.maps), *(spec.name for spec in image.programs)]
    if not all(map(_is_text, (image.licence, image.compiler, *names))):
        yield "its licence, its compiler and all names are texts"
        return
    if len(set(names)) != len(names):
        yield "a name is there twice"
    for spec in image.maps:
        numbers = (spec.type, spec.key_size, spec.value_size, spec.entries, spec.flags)
        if not all(_is_number(number) for number in numbers):
            yield f"the map {spec.name}: {numbers} are no type, sizes, entries and flags"
        elif spec.type not in list(MapType):
            yield f"the map {spec.name} has type {spec.type}, which is none"
    for program in image.programs:
        yield from _problems_of(program, {spec.name for spec in image.maps})


def _problems_of(program: ProgramSpec, maps: set[str]) -> Iterator[str]:
    whose = f"the program {program.name}"
    if not _is_number(program.type) or program.type not in list(ProgramType):
        yield f"{whose} has type {program.type}, which is none"
    if program.attach is not None and (not _is_number(program.attach) or program.attach not in list(AttachType)):
        yield f"{whose} attaches as {program.attach}, which is no way to attach"
    size = len(program.instructions)
    if size % 8 or not 0 < size <= 8 * _INSTRUCTIONS:
        yield f"{whose} has {size} bytes of instructions, which are 8 bytes each, 1 to {_INSTRUCTIONS}"
    for index, name in program.relocations:
        if not _is_text(name) or name not in maps:
            yield f"{whose} refers to a map {name}, which is not there"
        elif not _is_number(index) or not 0 <= 8 * index <= size - 16 or program.instructions[8 * index] != LOAD_IMM64:
            yield f"{whose} is to have the map {name} at instruction {index}, which loads none"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.isprintable()


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _WORD


def find_relocations(instructions: bytes, maps: Mapping[int, str]) -> tuple[tuple[int, str], ...]:
    """The map references of a program as a loader's process has them; maps gives the name under each descriptor."""
    found = []
    index = 0
    count = len(instructions) // 8
    while index < count:
        opcode, registers, _, immediate = struct.unpack_from("=BBhi", instructions, 8 * index)
        if opcode == LOAD_IMM64:
            if registers >> 4 == PSEUDO_MAP_FD:
                found.append((index, maps[immediate]))
            index += 1
        index += 1
    return tuple(found)


def relocate(program: ProgramSpec, maps: Mapping[str, bpf.Fd]) -> bytes:
    """The program's instructions with this process's map descriptors."""
    code = bytearray(program.instructions)
    for index, name in program.relocations:
        struct.pack_into("=i", code, 8 * index + 4, maps[name].fileno())
    return bytes(code)
