"""The maps that an object defines: in `.maps` by BTF, in `maps` by struct bpf_map_def, and its data sections."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.kernel.bpf_types import MapType
from harness.program.object.btf import Btf, Field, Kind, Type
from harness.program.object.elf import STT_SECTION, Elf, Malformed

BTF_MAPS = ".maps"
LEGACY_MAPS = "maps"
MAPS = 512  # of an object; a program may use 64, MAX_USED_MAPS
_DATA = (".rodata", ".data", ".bss", ".kconfig")
_LEGACY_WORDS = 5  # type, key size, value size, entries, flags; each loader has words of its own behind them


@dataclass(frozen=True)
class Definition:
    """A map as the object defines it; sizes in bytes, None where the object does not say.

    form: `BTF`, `legacy`, or `data` for what a loader makes of a section such as .rodata.
    """

    name: str
    form: str
    type: int | None
    key_size: int | None
    value_size: int | None
    entries: int | None
    flags: int = 0
    key: tuple[Field, ...] = ()
    value: tuple[Field, ...] = ()
    key_type: str = ""
    value_type: str = ""

    @property
    def kind(self) -> str:
        """`LRU_HASH`; `type 99` where the number has no name here."""
        if self.type is None:
            return "no type"
        return MapType(self.type).name if self.type in _TYPES else f"type {self.type}"


_TYPES = frozenset(int(kind) for kind in MapType)


def read(content: Elf, types: Btf | None, problems: list[str]) -> tuple[Definition, ...]:
    """All maps of an object. What cannot be read is told in problems."""
    found: list[Definition] = []
    for part in (_by_btf, _legacy, _data):
        try:
            for definition in part(content, types):
                if len(found) == MAPS:
                    raise Malformed(f"it has more than {MAPS} maps; the others were not read")
                found.append(definition)
        except Malformed as error:
            problems.append(str(error))
    return tuple(found)


def _by_btf(content: Elf, types: Btf | None) -> Iterator[Definition]:
    section = content.section(BTF_MAPS)
    if section is None or not section.size:
        return
    names = [
        symbol.name for symbol in content.symbols if symbol.section == section.index and symbol.kind != STT_SECTION
    ]
    group = next(iter(types.named(BTF_MAPS, Kind.DATASEC)), None) if types is not None else None
    if types is None or group is None:
        for name in names:
            yield Definition(name, "BTF", None, None, None, None)
        why = "has no BTF" if types is None else "has no .maps in its BTF"
        raise Malformed(f"it defines its maps by BTF and {why}: nobody can tell their types and sizes")
    for variable, _ in types.variables(group):
        yield _definition(types, variable)


def _definition(types: Btf, variable: Type) -> Definition:
    shape = types.bare(variable.value)
    numbers: dict[str, int] = {}
    inner: dict[str, int] = {}
    for member in types.members(shape) if shape.kind is Kind.STRUCT else ():
        pointer = types.bare(member.type)
        if pointer.kind is not Kind.PTR:
            continue
        if member.name in ("key", "value"):
            inner[member.name] = pointer.value
        elif (target := types.bare(pointer.value)).kind is Kind.ARRAY:  # __uint(name, number): int (*name)[number]
            numbers[member.name] = types.array(target)[1]
    key, value = inner.get("key"), inner.get("value")
    return Definition(
        variable.name, "BTF", numbers.get("type"),
        _size(types, key, numbers.get("key_size")), _size(types, value, numbers.get("value_size")),
        numbers.get("max_entries", 0), numbers.get("map_flags", 0), _fields(types, key), _fields(types, value),
        "" if key is None else types.describe(key), "" if value is None else types.describe(value),
    )  # fmt: skip


def _fields(types: Btf, number: int | None) -> tuple[Field, ...]:
    return () if number is None else tuple(types.fields(number))


def _size(types: Btf, number: int | None, given: int | None) -> int | None:
    return types.size(number) if number is not None else 0 if given is None else given


def _legacy(content: Elf, types: Btf | None) -> Iterator[Definition]:
    """struct bpf_map_def: as many bytes each as the section has for each of its symbols."""
    section = content.section(LEGACY_MAPS)
    if section is None or not section.size:
        return
    symbols = sorted(
        (one for one in content.symbols if one.section == section.index and one.kind != STT_SECTION),
        key=lambda one: one.value,
    )
    if not symbols:
        raise Malformed("it has a section maps and no symbols for it: nobody can tell where a map begins")
    for symbol in symbols:
        if symbol.value + 4 * _LEGACY_WORDS > len(section.data):
            raise Malformed(f"its section maps is cut off in {symbol.name}")
        kind, key, value, entries, flags = struct.unpack_from(f"{content.order}5I", section.data, symbol.value)
        yield Definition(symbol.name, "legacy", kind, key, value, entries, flags)


def _data(content: Elf, types: Btf | None) -> Iterator[Definition]:
    """Variables and constants: a loader makes an array map of one entry of each such section (5.2)."""
    for section in content.sections:
        stem = "." + section.name[1:].partition(".")[0]
        # Texts that a compiler merges, .rodata.str1.1, are loaded only where an instruction points to them.
        if stem in _DATA and section.size and not section.name.startswith(".rodata.str"):
            yield Definition(section.name, "data", int(MapType.ARRAY), 4, section.size, 1)


def by_name(maps: Sequence[Definition]) -> Mapping[str, Definition]:
    return {one.name: one for one in maps}
