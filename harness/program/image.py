"""A program image: compiled once, loadable into any kernel through bpf(2), with no compiler at hand.

An image holds instructions, map definitions, and which instruction refers to which map. Nothing in it depends on
the kernel or on the process that made it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from harness.kernel import bpf

LOAD_IMM64 = 0x18  # BPF_LD | BPF_IMM | BPF_DW: two slots; with src_reg PSEUDO_MAP_FD its imm is a map's descriptor
PSEUDO_MAP_FD = 1


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
        content = json.loads(text)
        return cls(
            maps=tuple(MapSpec(**spec) for spec in content["maps"]),
            programs=tuple(_program(spec) for spec in content["programs"]),
            licence=content["licence"],
            compiler=content["compiler"],
        )

    def program(self, name: str) -> ProgramSpec:
        return next(spec for spec in self.programs if spec.name == name)


def _program(content: Mapping[str, object]) -> ProgramSpec:
    fields = dict(content)
    fields["instructions"] = base64.b64decode(str(fields["instructions"]))
    fields["relocations"] = tuple((int(index), str(name)) for index, name in fields["relocations"])  # type: ignore[attr-defined]
    return ProgramSpec(**fields)  # type: ignore[arg-type]


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
