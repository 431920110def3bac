"""What changed between two objects, apart from what that asks of kernels (harness.program.object.needs tells it)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.program.object.btf import Field
from harness.program.object.contents import Contents, Program
from harness.program.object.definitions import Definition
from harness.verifier import helpers


@dataclass(frozen=True)
class Change:
    """Something that is not the same in both: what it is of, and each difference in words, `before → after`.

    matters: whoever reads the object's maps or attaches its programs has to change too.
    """

    kind: str  # "object", "program", "map"
    name: str
    differences: Sequence[str]
    matters: bool = False


def changes(old: Contents, new: Contents) -> list[Change]:
    """Empty where the two do the same as far as can be seen without running them."""
    found = [Change("object", "object", _object(old, new))]
    before = {(one.section, one.name): one for one in old.programs}
    after = {(one.section, one.name): one for one in new.programs}
    for place in [*before, *(place for place in after if place not in before)]:
        found.append(_program(before.get(place), after.get(place)))
    maps, others = {one.name: one for one in old.maps}, {one.name: one for one in new.maps}
    for name in [*maps, *(name for name in others if name not in maps)]:
        found.append(_map(maps.get(name), others.get(name)))
    return [one for one in found if one.differences]


def _object(old: Contents, new: Contents) -> Sequence[str]:
    rows = (
        ("bytes", str(old.elf.size), str(new.elf.size)),
        ("byte order", old.byte_order, new.byte_order),
        ("licence", old.licence or "none", new.licence or "none"),
        ("BTF", _types(old), _types(new)),
        ("source lines", _there(old.has_lines), _there(new.has_lines)),
    )
    return [f"{name}: {before} → {after}" for name, before, after in rows if before != after]


def _types(one: Contents) -> str:
    return "none" if one.types is None else f"{len(one.types)} types"


def _there(there: bool) -> str:
    return "there" if there else "none"


def _program(old: Program | None, new: Program | None) -> Change:
    one = new or old
    assert one is not None
    name = f"{one.section} {one.name}"
    if old is None or new is None:
        return Change("program", name, ["new" if old is None else "gone"], matters=True)
    found = [] if old.count == new.count else [f"instructions: {old.count} → {new.count}"]
    if not found and _code(old) != _code(new):
        found.append("other instructions, as many as before")
    found += _set("helpers", [_helper(one) for one in old.helpers], [_helper(one) for one in new.helpers])
    found += _set("kernel functions", old.kfuncs, new.kfuncs)
    found += _set("maps", old.maps, new.maps)
    found += _set("instruction set", [one.name for one in old.generations], [one.name for one in new.generations])
    if len(old.relocations) != len(new.relocations):
        found.append(f"CO-RE relocations: {len(old.relocations)} → {len(new.relocations)}")
    return Change("program", name, found)


def _code(program: Program) -> Sequence[bytes]:
    return [part.code for part in program.parts]


def _helper(number: int) -> str:
    return helpers.name_of(number) or f"helper #{number}"


def _set(what: str, old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    gained, lost = [one for one in new if one not in old], [one for one in old if one not in new]
    if gained:
        yield f"{what} added: {', '.join(gained)}"
    if lost:
        yield f"{what} removed: {', '.join(lost)}"


def _map(old: Definition | None, new: Definition | None) -> Change:
    one = new or old
    assert one is not None
    if old is None or new is None:
        return Change("map", one.name, ["new" if old is None else "gone"], matters=one.form != "data")
    rows = (
        ("type", old.kind, new.kind),
        ("key's bytes", old.key_size, new.key_size),
        ("value's bytes", old.value_size, new.value_size),
        ("entries", old.entries, new.entries),
        ("flags", old.flags, new.flags),
        ("defined by", old.form, new.form),
    )
    found = [f"{name}: {before} → {after}" for name, before, after in rows if before != after]
    layout = [*_fields("key", old.key, new.key), *_fields("value", old.value, new.value)]
    sizes = (old.type, old.key_size, old.value_size) != (new.type, new.key_size, new.value_size)
    return Change("map", one.name, found + layout, matters=one.form != "data" and (sizes or bool(layout)))


def _fields(what: str, old: Sequence[Field], new: Sequence[Field]) -> Iterator[str]:
    """Field by field, where both sides know their fields."""
    if not old or not new:
        return
    before, after = [str(one) for one in old], [str(one) for one in new]
    yield from (f"{what} lost `{one}`" for one in before if one not in after)
    yield from (f"{what} gained `{one}`" for one in after if one not in before)
