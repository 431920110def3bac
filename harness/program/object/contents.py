"""What is in an object: its programs and what each calls, its maps and their layouts, its types, its licence.

Everything here is read from the file alone. A part that is damaged is told in `problems`; what is no BPF object at all
raises Malformed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from harness.program.object import btf_ext, definitions, elf
from harness.program.object.btf import Btf
from harness.program.object.btf_ext import Extension, SourceLine
from harness.program.object.definitions import Definition
from harness.program.object.elf import STB_LOCAL, STT_FUNC, Elf, Malformed, Section, Symbol
from harness.program.object.instructions import (
    CALLS,
    LD_IMM64,
    LONG,
    MOST,
    OLD_MOST,
    SIZE,
    Generation,
    Instruction,
    decode,
    generation,
)
from harness.program.object.sections import Place, place_of

LARGEST = 16 << 20  # bytes of an object
FUNCTIONS = 4096
TEXT = ".text"
LICENCES = ("license", "version")


@dataclass(frozen=True)
class Call:
    """A call of a helper, by its number, or of a kfunc, by its name; the instruction is the section's."""

    instruction: int
    helper: int = 0
    kfunc: str = ""
    line: SourceLine | None = None


@dataclass(frozen=True)
class Function:
    """A function: where it lies, in instructions from its section's start, and what its own instructions do."""

    name: str
    section: str
    start: int
    count: int
    is_global: bool
    calls: tuple[Call, ...]
    functions: tuple[str, ...]  # names of the object's functions that it calls or points to
    maps: tuple[str, ...]
    externals: tuple[str, ...]  # names that the kernel has to have: __ksym and __kconfig variables
    generations: tuple[Generation, ...]
    relocations: tuple[btf_ext.Relocation, ...]
    line: SourceLine | None  # its first
    code: bytes = field(default=b"", repr=False)

    @property
    def key(self) -> str:
        return f"{self.section}:{self.name}"


@dataclass(frozen=True)
class Program:
    """A function that a loader loads, with those that it calls; counts are of instructions."""

    name: str
    section: str
    place: Place
    parts: tuple[Function, ...]  # itself first

    @property
    def count(self) -> int:
        return sum(part.count for part in self.parts)

    @property
    def calls(self) -> tuple[Call, ...]:
        return tuple(call for part in self.parts for call in part.calls)

    @property
    def helpers(self) -> tuple[int, ...]:
        """Numbers, each once, in the order in which they stand in the code."""
        return tuple(dict.fromkeys(call.helper for call in self.calls if call.helper))

    @property
    def kfuncs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(call.kfunc for call in self.calls if call.kfunc))

    @property
    def maps(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for part in self.parts for name in part.maps))

    @property
    def externals(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for part in self.parts for name in part.externals))

    @property
    def generations(self) -> tuple[Generation, ...]:
        found = [one for part in self.parts for one in part.generations]
        if len(self.parts) > 1:
            found.append(CALLS)
        if self.count > OLD_MOST:
            found.append(LONG)
        return tuple(dict.fromkeys(found))

    @property
    def relocations(self) -> tuple[btf_ext.Relocation, ...]:
        return tuple(one for part in self.parts for one in part.relocations)


@dataclass(frozen=True)
class Contents:
    """An object, taken to pieces."""

    elf: Elf
    types: Btf | None
    has_lines: bool
    licence: str | None
    programs: tuple[Program, ...]
    maps: tuple[Definition, ...]
    problems: tuple[str, ...] = field(default_factory=tuple)

    @property
    def has_symbols(self) -> bool:
        return bool(self.elf.symbols)

    @property
    def byte_order(self) -> str:
        return "big" if self.elf.big_endian else "little"


def read(data: bytes) -> Contents:
    """Raises Malformed where the bytes are no BPF object, or one whose tables point nowhere."""
    if len(data) > LARGEST:
        raise Malformed(f"it has more than {LARGEST >> 20} MiB, and no eBPF object does")
    content = elf.parse(data)
    problems: list[str] = []
    types = _types(content, problems)
    extension = _extension(content, types, problems)
    functions = tuple(_functions(content, extension))
    return Contents(
        content,
        types,
        any(extension.lines.values()),
        _licence(content),
        tuple(_programs(functions)),
        definitions.read(content, types, problems),
        tuple(problems),
    )


def _types(content: Elf, problems: list[str]) -> Btf | None:
    section = content.section(".BTF")
    try:
        return Btf(section.data) if section is not None else None
    except Malformed as error:
        problems.append(str(error))
        return None


def _extension(content: Elf, types: Btf | None, problems: list[str]) -> Extension:
    section = content.section(".BTF.ext")
    try:
        return btf_ext.parse(section.data, types) if section is not None and types is not None else btf_ext.NOTHING
    except Malformed as error:
        problems.append(str(error))
        return btf_ext.NOTHING


def _licence(content: Elf) -> str | None:
    section = content.section("license")
    return elf.text_at(section.data, 0) if section is not None else None


# --- functions --------------------------------------------------------------------------------------------------------


def _functions(content: Elf, extension: Extension) -> Iterator[Function]:
    places: dict[int, dict[int, Symbol]] = {}
    for symbol in content.symbols:
        if symbol.kind == STT_FUNC and symbol.value % SIZE == 0:
            places.setdefault(symbol.section, {}).setdefault(symbol.value // SIZE, symbol)
    if sum(len(rows) for rows in places.values()) > FUNCTIONS:
        raise Malformed(f"it has more than {FUNCTIONS} functions")
    total = 0
    for section in content.sections:
        if not section.executable or not section.data:
            continue
        total += section.size // SIZE
        if total > MOST:
            raise Malformed(f"it has more than {MOST} instructions")
        yield from _of_section(content, section, places.get(section.index, {}), extension)


def _of_section(
    content: Elf, section: Section, symbols: Mapping[int, Symbol], extension: Extension
) -> Iterator[Function]:
    """A section's functions: each goes on to where the next one begins. Without symbols the section is one function."""
    code = list(decode(section.data, content.order))
    count = section.size // SIZE
    starts = sorted(start for start in symbols if start < count) or [0]
    names = {start: symbols[start].name or section.name for start in symbols if start < count} or {0: section.name}
    lines = {line.instruction: line for line in extension.lines.get(section.name, ())}
    targets = {one.offset // SIZE: one for one in content.relocations.get(section.index, ())}
    core: dict[int, list[btf_ext.Relocation]] = {}
    for relocation in extension.relocations.get(section.name, ()):
        core.setdefault(relocation.instruction, []).append(relocation)
    at = 0
    for start, end in zip(starts, [*starts[1:], count], strict=True):
        own: list[Instruction] = []
        while at < len(code) and code[at].index < end:
            if code[at].index >= start:
                own.append(code[at])
            at += 1
        looked = _Look(content, section, names, targets, lines)
        looked.at(own)
        yield Function(
            names[start], section.name, start, end - start,
            start in symbols and symbols[start].binding != STB_LOCAL,
            tuple(looked.calls), tuple(dict.fromkeys(looked.functions)), tuple(dict.fromkeys(looked.maps)),
            tuple(dict.fromkeys(looked.externals)), tuple(dict.fromkeys(looked.generations)),
            tuple(row for one in own for row in core.get(one.index, ())), _first_line(lines, own),
            section.data[SIZE * start : SIZE * end],
        )  # fmt: skip


def _first_line(lines: Mapping[int, SourceLine], own: Sequence[Instruction]) -> SourceLine | None:
    return next((lines[one.index] for one in own if one.index in lines), None)


@dataclass
class _Look:
    """What is gathered while going through a function's instructions."""

    content: Elf
    section: Section
    names: Mapping[int, str]  # of the section's functions, by where they start
    targets: Mapping[int, elf.Relocation]
    lines: Mapping[int, SourceLine]
    calls: list[Call] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    maps: list[str] = field(default_factory=list)
    externals: list[str] = field(default_factory=list)
    generations: list[Generation] = field(default_factory=list)

    def at(self, own: Sequence[Instruction]) -> None:
        line: SourceLine | None = None
        for one in own:
            line = self.lines.get(one.index, line)
            needs = generation(one)
            if needs is not None:
                self.generations.append(needs)
            if one.helper:
                self.calls.append(Call(one.index, helper=one.immediate, line=line))
            elif one.calls_function:
                self.call(one, line)
            elif one.opcode == LD_IMM64 and one.index in self.targets:
                self.address(self.targets[one.index].symbol, one)

    def call(self, one: Instruction, line: SourceLine | None) -> None:
        """A call of a function of the object, or of the kernel where the symbol is not defined here."""
        target = self.targets.get(one.index)
        if target is None:
            self.function(self.section.index, one.index + 1 + one.immediate)
        elif target.symbol.section == 0:
            self.calls.append(Call(one.index, kfunc=target.symbol.name, line=line))
        else:
            # A section's symbol with the distance in the immediate, less one; a function's own with -1 in it.
            self.function(target.symbol.section, target.symbol.value // SIZE + one.immediate + 1, target.symbol)

    def address(self, symbol: Symbol, one: Instruction) -> None:
        """The address of a map, of a variable, or of a function that is called back."""
        if symbol.section == 0:
            self.externals.append(symbol.name)
        elif symbol.section < len(self.content.sections):
            section = self.content.sections[symbol.section]
            if section.executable:
                self.function(section.index, (symbol.value + one.immediate) // SIZE, symbol)
            else:
                is_map = section.name in (definitions.BTF_MAPS, definitions.LEGACY_MAPS)
                self.maps.append(symbol.name if is_map else section.name)

    def function(self, section: int, start: int, symbol: Symbol | None = None) -> None:
        if section >= len(self.content.sections):
            return
        name = self.content.sections[section].name
        if symbol is not None and symbol.kind == STT_FUNC:
            self.functions.append(f"{name}:{symbol.name}")
        else:
            self.functions.append(f"{name}@{start}")


# --- programs ---------------------------------------------------------------------------------------------------------


def _programs(functions: Sequence[Function]) -> Iterator[Program]:
    """The functions outside of .text, each with all that it calls directly or not."""
    by_name = {one.key: one for one in functions}
    by_place = {f"{one.section}@{one.start}": one for one in functions}
    for one in functions:
        if one.section == TEXT:
            continue
        parts, waiting = {one.key: one}, list(one.functions)
        while waiting:
            name = waiting.pop(0)
            called = by_name.get(name) or by_place.get(name)
            if called is not None and called.key not in parts:
                parts[called.key] = called
                waiting += called.functions
        yield Program(one.name, one.section, place_of(one.section), tuple(parts.values()))
