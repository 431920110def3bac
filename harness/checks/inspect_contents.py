"""What is in an eBPF object, as Results: the file, its programs, its maps."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from harness.program.maps import LAYOUTS
from harness.program.object import agent, elf
from harness.program.object.contents import Call, Contents, Program
from harness.program.object.definitions import Definition
from harness.report import Json, Outcome, Result
from harness.verifier import helpers

SHOWN = 200  # of whatever an object may have thousands of, in one Result's evidence


def visible(text: str) -> str:
    """A stranger's text on one line."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def listed(texts: Iterable[str]) -> str | None:
    """The first SHOWN texts, a line each; None where there is none."""
    rows = list(islice(texts, SHOWN + 1))
    return "\n".join([*map(visible, rows[:SHOWN]), *["…"] * (len(rows) > SHOWN)]) or None


def of_object(one: Contents, digest: str) -> Iterator[Result]:
    """The file, its licence and types, what of it could not be read, and whether it has what the agent's object has."""
    yield _file(one, digest)
    yield _licence(one)
    yield _types(one)
    yield from _damage(one)
    yield _role(one)


def _file(one: Contents, digest: str) -> Result:
    content = one.elf
    evidence: dict[str, Json] = {
        "bytes": content.size,
        "sha256": digest.removeprefix("sha256:"),
        "byte order": one.byte_order,
        "ELF type": "relocatable" if content.type == elf.ET_REL else f"{content.type}, not relocatable (1)",
        "sections": [visible(section.name) for section in content.sections[1:SHOWN] if not _is_debugging(section.name)],
        "symbols": len(content.symbols),
    }
    summary = f"64-bit {one.byte_order}-endian BPF, {content.size:,} bytes, {len(one.programs)} programs"
    problems = []
    if one.byte_order != sys.byteorder:
        problems.append(f"it is {one.byte_order}-endian and this machine {sys.byteorder}-endian")
    if content.type != elf.ET_REL:
        problems.append("it is no relocatable file, which is what loaders take")
    if not one.programs:
        problems.append("there is no program in it")
    outcome = Outcome.FAIL if problems else Outcome.PASS
    remedy = f"compile it with -target {'bpfel' if sys.byteorder == 'little' else 'bpfeb'} and -c" if problems else None
    return Result("object.file", "ELF", outcome, "; ".join([summary, *problems]), evidence, remedy=remedy)


def _is_debugging(name: str) -> bool:
    return name.startswith((".debug", ".rel.debug"))


# license_is_gpl_compatible() in include/linux/license.h
_FREE = frozenset(
    {"GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL"}
)  # fmt: skip


def _licence(one: Contents) -> Result:
    title, name = "Licence", "object.licence"
    if one.licence is None:
        remedy = 'put `char _license[] SEC("license") = "Dual MIT/GPL";` into its source'
        summary = "no section license: loaders refuse it, or load it as not GPL-compatible"
        return Result(name, title, Outcome.WARN, summary, remedy=remedy)
    free = one.licence in _FREE
    meaning = "GPL-compatible" if free else "not GPL-compatible: helpers such as bpf_trace_printk are refused"
    shown = visible(one.licence)
    outcome = Outcome.PASS if free else Outcome.WARN
    return Result(name, title, outcome, f"{shown}: {meaning}", {"licence": shown, "GPL-compatible": free})


def _types(one: Contents) -> Result:
    title, name = "Types (BTF)", "object.btf"
    if one.types is None:
        summary = "no BTF: no CO-RE, no layouts of maps, no source lines in a verifier log"
        return Result(name, title, Outcome.WARN, summary, remedy="compile it with -g")
    count = sum(len(program.relocations) for program in one.programs)
    lines = "with source lines" if one.has_lines else "without source lines"
    summary = f"{len(one.types)} types, {lines}, {count} CO-RE relocations"
    evidence: dict[str, Json] = {"types": len(one.types), "source lines": one.has_lines, "CO-RE relocations": count}
    return Result(name, title, Outcome.PASS, summary, evidence)


def _damage(one: Contents) -> Iterator[Result]:
    if one.problems:
        problems: list[Json] = [visible(problem) for problem in one.problems]
        remedy = "take the object from its package again, or compile it again, with -g"
        yield Result("object.damage", "What could not be read", Outcome.FAIL, "; ".join(map(str, problems)),
                     {"problems": problems}, remedy=remedy)  # fmt: skip


def _role(one: Contents) -> Result:
    """Whether it is a redirector in the agent's form at all: what the maps and programs below are compared with."""
    name, title = "object.role", "Beside the agent's object"
    if not agent.is_redirector(one):
        summary = "no redirector: it has none of the agent's maps and no cgroup/connect4 program; nothing is compared"
        return Result(name, title, Outcome.WARN, summary)
    places = {(program.name, program.section) for program in one.programs}
    lacks = [f"program {name} ({section})" for name, section in agent.PROGRAMS.items() if (name, section) not in places]
    lacks += [f"map {name}" for name in LAYOUTS if name not in {definition.name for definition in one.maps}]
    if lacks:
        remedy = "the agent looks these up by name and does not start without them"
        return Result(name, title, Outcome.FAIL, f"it lacks {', '.join(lacks)}", {"lacks": list(lacks)}, remedy=remedy)
    return Result(name, title, Outcome.PASS, "it has the agent's two programs and four maps by their names")


# --- programs --------------------------------------------------------------------------------------------------------


def of_programs(one: Contents) -> Iterator[Result]:
    """Each program: what it is, how long, and what it calls."""
    for number, program in enumerate(one.programs):
        if number == SHOWN:
            return
        known = program.place.type is not None
        called = f"{len(program.helpers)} helpers" + (
            f", {len(program.kfuncs)} kernel functions" * bool(program.kfuncs)
        )
        summary = f"{visible(program.section)}: {_type(program)}; {program.count} instructions, {called}"
        remedy = None if known else "name its section as libbpf does (cgroup/connect4, kprobe/…)"
        outcome = Outcome.PASS if known else Outcome.WARN
        name = f"program.{visible(program.name)}"
        yield Result(name, "Program", outcome, summary, _facts(program), remedy=remedy)


def _type(program: Program) -> str:
    place = program.place
    if place.type is None:
        return "its section's name tells no program type"
    return place.type.name.lower() + (f", attached as {place.attach.name.lower()}" if place.attach is not None else "")


def _facts(program: Program) -> Mapping[str, Json]:
    place, first = program.place, program.parts[0].line
    found: dict[str, Json] = {
        "section": visible(program.section),
        "program type": place.type.name.lower() if place.type is not None else None,
        "attach type": place.attach.name.lower() if place.attach is not None else None,
        "attaches to": visible(place.target) or None,
        "instructions": program.count,
        "functions": [visible(part.name) for part in program.parts[:SHOWN]],
        "source": visible(str(first)) if first is not None else None,
        "helpers": [_helper(number) for number in program.helpers],
        "kernel functions": [visible(name) for name in program.kfuncs],
        "maps": [visible(name) for name in program.maps],
        "calls": listed(_called(call) for call in program.calls),
        "CO-RE relocations": len(program.relocations),
    }
    return {name: value for name, value in found.items() if value not in (None, [])}


def _called(call: Call) -> str:
    name = _helper(call.helper) if call.helper else call.kfunc
    return f"{call.instruction}: {name}" + (f" ; {call.line}" if call.line is not None else "")


def _helper(number: int) -> str:
    return f"{helpers.name_of(number) or 'unknown'} (#{number})"


# --- maps ------------------------------------------------------------------------------------------------------------


def of_maps(one: Contents) -> Iterator[Result]:
    """Each map: its layout, beside the agent's where it has one of its names."""
    for definition in one.maps:
        yield _map(definition)
    legacy = [visible(definition.name) for definition in one.maps if definition.form == "legacy"]
    if legacy:
        summary = (
            "defined by struct bpf_map_def in the section maps: aya and libbpf 0.x take it, libbpf 1.0 and later not"
        )
        remedy = "`verify --object` loads by libbpf; an object with BTF maps (.maps) is taken by all"
        yield Result("maps.legacy", "Form of the maps", Outcome.WARN, summary, {"maps": list(legacy)}, remedy=remedy)


def _map(one: Definition) -> Result:
    name, title = f"map.{visible(one.name)}", "Map"
    is_agents = one.name in LAYOUTS
    if one.type is None and not is_agents:
        return Result(name, title, Outcome.WARN, "nobody can tell its type and sizes: there is no BTF for it")
    shape = (
        "unknown"
        if one.type is None
        else f"{one.kind.lower()}, {_bytes(one.key_size)} → {_bytes(one.value_size)}, {one.entries or 0} entries"
    )
    evidence: dict[str, Json] = {
        "type": one.kind.lower(), "key": one.key_size, "value": one.value_size, "entries": one.entries,
        "defined by": {"BTF": "BTF (.maps)", "legacy": "struct bpf_map_def (maps)"}.get(one.form, "a data section"),
        "key's fields": listed(str(part) for part in one.key),
        "value's fields": listed(str(part) for part in one.value),
    }  # fmt: skip
    evidence = {key: value for key, value in evidence.items() if value not in (None, [])}
    if not is_agents:
        return Result(name, title, Outcome.PASS, f"{shape}{' (a data section)' * (one.form == 'data')}", evidence)
    evidence["agent's key"] = listed(str(part) for part in agent.FIELDS[one.name][0])
    evidence["agent's value"] = listed(str(part) for part in agent.FIELDS[one.name][1])
    different = [visible(text) for text in agent.differences(one)]
    if different:
        evidence["differences"] = listed(different)
        remedy = "an agent that reads or fills this map needs its own layout: use the object of the agent's own version"
        return Result(name, title, Outcome.FAIL, "; ".join([shape, *different[:3]]), evidence, remedy=remedy)
    same = "the agent's layout" if one.key and one.value else "the agent's sizes (no BTF to tell the fields)"
    return Result(name, title, Outcome.PASS, "; ".join([f"{shape}: {same}", *agent.remarks(one)]), evidence)


def _bytes(size: int | None) -> str:
    return "unknown" if size is None else f"{size} B"
