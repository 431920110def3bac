"""An eBPF object inspected: what is in it, and what it needs of a kernel. Nothing of it is loaded."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.checks.recording import Recording
from harness.errors import HarnessError
from harness.kernel.probes import Answer, Probed
from harness.program.maps import LAYOUTS
from harness.program.object import agent, btf, contents, core, diff, elf, needs
from harness.program.object.btf import Btf
from harness.program.object.contents import Call, Contents, Program
from harness.program.object.core import Resolution
from harness.program.object.definitions import Definition
from harness.program.object.needs import Need
from harness.report import Json, Outcome, Report, Result
from harness.verifier import helpers

SHOWN = 200  # of whatever an object may have thousands of, in one Result's evidence
_OUTCOMES = {Answer.YES: Outcome.PASS, Answer.NO: Outcome.FAIL, Answer.UNKNOWN: Outcome.SKIP}


@dataclass(frozen=True)
class Subject:
    """An object with the kernels that it is asked about: this one, and for CO-RE the one whose BTF was given."""

    path: Path
    contents: Contents
    digest: str
    given: Path | None = None  # --btf

    @cached_property
    def kernel(self) -> Btf | None:
        return needs.kernel_types()

    @cached_property
    def target(self) -> Btf | None:
        """What CO-RE relocations are resolved against."""
        return self.kernel if self.given is None else btf.load(self.given)

    @property
    def target_name(self) -> str:
        return "this kernel's BTF" if self.given is None else str(self.given)


def subject(path: Path, given: Path | None = None) -> Subject:
    """Read an object and, where one is given, a kernel's BTF. Raises HarnessError."""
    data = elf.read(path, contents.LARGEST)
    try:
        found = Subject(path, contents.read(data), "sha256:" + hashlib.sha256(data).hexdigest(), given)
    except ValueError as error:
        raise HarnessError(f"inspect {path}", str(error), elf.REMEDY) from error
    if given is not None:
        _ = found.target  # a wrong --btf is told before anything else
    return found


def inspect(path: Path, given: Path | None = None) -> Report:
    """`msp-harness inspect-object FILE`. Raises HarnessError where FILE is no BPF object, or --btf no BTF."""
    recording = Recording(f"object {path}")
    one = subject(path, given)
    results = [
        *_object(one),
        *_programs(one),
        *_maps(one),
        *_core(one),
        *_needs(one, needs.needs(one.contents, one.kernel)),
    ]
    return recording.report(results, program=one.digest)


def compare(old_path: Path, new_path: Path, given: Path | None = None) -> Report:
    """`msp-harness inspect-object A B`: what changed from A to B, and what the change needs of kernels."""
    recording = Recording(f"object {new_path}, compared with {old_path}")
    old, new = subject(old_path, given), subject(new_path, given)
    results = [*_changes(old, new), *_core(new), *_needs_changes(old, new)]
    return recording.report(results, program=new.digest)


def verdict(report: Report) -> str:
    """The last line: whether this kernel has what the object needs."""
    wanted = [result for result in report.results if result.group == "needs"]
    lacks = [result.id.removeprefix("needs.") for result in wanted if result.outcome is Outcome.FAIL]
    asked = sum(result.outcome in (Outcome.PASS, Outcome.WARN) for result in wanted)
    unasked = sum(result.outcome is Outcome.SKIP for result in wanted)
    if lacks:
        return f"this kernel lacks {', '.join(lacks[:5])}{' and more' if len(lacks) > 5 else ''}"
    return f"this kernel has the {asked} things asked for" + (f"; {unasked} could not be asked" * bool(unasked))


# --- the object ------------------------------------------------------------------------------------------------------


def _object(one: Subject) -> Iterator[Result]:
    yield _file(one)
    yield _licence(one.contents)
    yield _types(one.contents)
    yield from _damage(one.contents)
    yield _role(one.contents)


def _file(one: Subject) -> Result:
    content = one.contents.elf
    evidence: dict[str, Json] = {
        "bytes": content.size,
        "sha256": one.digest.removeprefix("sha256:"),
        "byte order": one.contents.byte_order,
        "ELF type": "relocatable" if content.type == elf.ET_REL else f"{content.type}, not relocatable (1)",
        "sections": [
            _visible(section.name) for section in content.sections[1:SHOWN] if not _is_debugging(section.name)
        ],
        "symbols": len(content.symbols),
    }
    summary = (
        f"64-bit {one.contents.byte_order}-endian BPF, {content.size:,} bytes, {len(one.contents.programs)} programs"
    )
    problems = []
    if one.contents.byte_order != sys.byteorder:
        problems.append(f"it is {one.contents.byte_order}-endian and this machine {sys.byteorder}-endian")
    if content.type != elf.ET_REL:
        problems.append("it is no relocatable file, which is what loaders take")
    if not one.contents.programs:
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
    shown = _visible(one.licence)
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
        problems: list[Json] = [_visible(problem) for problem in one.problems]
        remedy = "take the object from the package again, or compile it again"
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


def _programs(one: Subject) -> Iterator[Result]:
    for number, program in enumerate(one.contents.programs):
        if number == SHOWN:
            return
        known = program.place.type is not None
        called = f"{len(program.helpers)} helpers" + (
            f", {len(program.kfuncs)} kernel functions" * bool(program.kfuncs)
        )
        summary = f"{_visible(program.section)}: {_type(program)}; {program.count} instructions, {called}"
        remedy = None if known else "name its section as libbpf does (cgroup/connect4, kprobe/…)"
        outcome = Outcome.PASS if known else Outcome.WARN
        name = f"program.{_visible(program.name)}"
        yield Result(name, "Program", outcome, summary, _facts(program), remedy=remedy)


def _type(program: Program) -> str:
    place = program.place
    if place.type is None:
        return "its section's name tells no program type"
    return place.type.name.lower() + (f", attached as {place.attach.name.lower()}" if place.attach is not None else "")


def _facts(program: Program) -> Mapping[str, Json]:
    place, first = program.place, program.parts[0].line
    called = [_called(call) for call in program.calls[:SHOWN]]
    found: dict[str, Json] = {
        "section": _visible(program.section),
        "program type": place.type.name.lower() if place.type is not None else None,
        "attach type": place.attach.name.lower() if place.attach is not None else None,
        "attaches to": _visible(place.target) or None,
        "instructions": program.count,
        "functions": [_visible(part.name) for part in program.parts[:SHOWN]],
        "source": _visible(str(first)) if first is not None else None,
        "helpers": [_helper(number) for number in program.helpers],
        "kernel functions": [_visible(name) for name in program.kfuncs],
        "maps": [_visible(name) for name in program.maps],
        "calls": list(called),
        "CO-RE relocations": len(program.relocations),
    }
    return {name: value for name, value in found.items() if value not in (None, [])}


def _called(call: Call) -> str:
    name = _helper(call.helper) if call.helper else _visible(call.kfunc)
    return f"{call.instruction}: {name}" + (f"  ; {_visible(str(call.line))}" if call.line is not None else "")


def _helper(number: int) -> str:
    return f"{helpers.name_of(number) or 'unknown'} (#{number})"


def _visible(text: str) -> str:
    """A stranger's text on one line."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


# --- maps ------------------------------------------------------------------------------------------------------------


def _maps(one: Subject) -> Iterator[Result]:
    for definition in one.contents.maps:
        yield _map(definition)


def _map(one: Definition) -> Result:
    name, title = f"map.{_visible(one.name)}", "Map"
    is_agents = one.name in LAYOUTS
    shape = f"{one.kind.lower()}, {_bytes(one.key_size)} → {_bytes(one.value_size)}, {one.entries or 0} entries"
    evidence: dict[str, Json] = {
        "type": one.kind.lower(), "key": one.key_size, "value": one.value_size, "entries": one.entries,
        "defined by": {"BTF": "BTF (.maps)", "legacy": "struct bpf_map_def (maps)"}.get(one.form, "a data section"),
        "key's fields": [_visible(str(part)) for part in one.key[:SHOWN]],
        "value's fields": [_visible(str(part)) for part in one.value[:SHOWN]],
    }  # fmt: skip
    evidence = {key: value for key, value in evidence.items() if value not in (None, [])}
    if not is_agents:
        return Result(name, title, Outcome.PASS, f"{shape}{' (a data section)' * (one.form == 'data')}", evidence)
    evidence["agent's key"] = [str(part) for part in agent.FIELDS[one.name][0]]
    evidence["agent's value"] = [str(part) for part in agent.FIELDS[one.name][1]]
    different = [_visible(text) for text in agent.differences(one)]
    if different:
        evidence["differences"] = list(different)
        remedy = "an agent that reads or fills this map needs its own layout: use the object of the agent's own version"
        return Result(name, title, Outcome.FAIL, "; ".join([shape, *different[:3]]), evidence, remedy=remedy)
    same = "the agent's layout" if one.key and one.value else "the agent's sizes (no BTF to tell the fields)"
    return Result(name, title, Outcome.PASS, "; ".join([f"{shape}: {same}", *agent.remarks(one)]), evidence)


def _bytes(size: int | None) -> str:
    return "unknown" if size is None else f"{size} B"


# --- CO-RE -----------------------------------------------------------------------------------------------------------


def _core(one: Subject) -> Iterator[Result]:
    types = one.contents.types
    for program in one.contents.programs:
        if not program.relocations or types is None:
            continue
        name, title = f"core.{_visible(program.name)}", "CO-RE relocations"
        if one.target is None:
            reason = f"{len(program.relocations)} relocations, and this kernel has no BTF to resolve them against"
            remedy = "a CO-RE object loads only where there is BTF; give another kernel's with --btf FILE"
            yield Result(name, title, Outcome.SKIP, reason, remedy=remedy)
            continue
        resolver = core.Resolver(types, one.target)
        try:
            yield _resolved(name, title, one, [resolver.resolve(row) for row in program.relocations])
        except ValueError as error:
            summary = f"its relocations make no sense: {_visible(str(error))}"
            yield Result(name, title, Outcome.FAIL, summary, remedy="compile it again")


def _resolved(name: str, title: str, one: Subject, found: Sequence[Resolution]) -> Result:
    lost = [row for row in found if not row.works]
    moved = sum(row.there is not None and row.own is not None and row.own != row.there for row in found)
    distinct = dict.fromkeys(_visible(f"{row.instruction}: {row}") for row in [*lost, *found])
    evidence: dict[str, Json] = {"against": one.target_name, "relocations": list(distinct)[:SHOWN]}
    if lost:
        wanted = list(dict.fromkeys(_visible(row.wants) for row in lost))
        summary = f"{len(lost)} of {len(found)} do not resolve against {one.target_name}: {', '.join(wanted[:3])}"
        remedy = "the verifier refuses the program where it gets there; use an object made for this kernel's types"
        return Result(name, title, Outcome.FAIL, summary, evidence, remedy=remedy)
    summary = f"all {len(found)} resolve against {one.target_name}, {moved} to other values than it was compiled with"
    return Result(name, title, Outcome.PASS, summary, evidence)


# --- needs -----------------------------------------------------------------------------------------------------------


def _needs(one: Subject, wanted: Sequence[Need]) -> Iterator[Result]:
    yield from (_need(need) for need in wanted)
    yield from _youngest(wanted)


def _need(need: Need, prefix: str = "") -> Result:
    found = need.probe()
    outcome = _OUTCOMES[found.answer]
    if outcome is Outcome.FAIL and not need.needed:
        outcome = Outcome.WARN
    summary = f"{prefix}{_visible(need.what)} · {need.since_text} · {_here(found)}"
    if outcome is Outcome.WARN:
        summary += f": {need.without}"
    remedy = f"use a kernel that has it (mainline: {need.since_text})" if outcome is Outcome.FAIL else None
    evidence: dict[str, Json] = {"first mainline version": need.since or None, "this kernel": str(found.answer)}
    if need.at_least:
        evidence["the version is"] = "a lower bound"
    if found.said:
        evidence["it says"] = _visible(found.said)
    return Result(f"needs.{need.key}", "Needed of a kernel", outcome, summary, evidence, remedy=remedy)


def _here(found: Probed) -> str:
    words = {Answer.YES: "here", Answer.NO: "not here", Answer.UNKNOWN: "could not be asked"}
    said = f" ({_visible(found.said)})" if found.answer is not Answer.YES and found.said else ""
    return words[found.answer] + said


def _youngest(wanted: Sequence[Need]) -> Iterator[Result]:
    dated = [need for need in wanted if need.needed and need.since]
    if dated:
        floor = max(dated, key=lambda need: need.version)
        names = [need.what for need in dated if need.version == floor.version]
        summary = (
            f"mainline {floor.since} has all of it whose version is known; youngest: {_visible(', '.join(names[:3]))}"
        )
        evidence: dict[str, Json] = {"version": floor.since, "youngest": [_visible(name) for name in names[:SHOWN]]}
        yield Result("floor.mainline", "First mainline version with all of it", Outcome.PASS, summary, evidence)


# --- two objects -----------------------------------------------------------------------------------------------------


def _changes(old: Subject, new: Subject) -> Iterator[Result]:
    found = diff.changes(old.contents, new.contents)
    if not found:
        same = old.digest == new.digest
        summary = "the same file" if same else "other bytes, and no difference in programs, maps, licence or types"
        yield Result("change.none", "What changed", Outcome.PASS, summary)
    for change in found[:SHOWN]:
        texts = [_visible(text) for text in change.differences]
        name = f"change.{change.kind}" + (
            "" if change.kind == "object" else f"-{_visible(change.name).replace(' ', '-')}"
        )
        remedy = "whoever fills or reads it has to change with it: use agent and object of one version"
        outcome = Outcome.WARN if change.matters else Outcome.PASS
        shown = "; ".join(texts[:6]) + (f"; {len(texts) - 6} more" if len(texts) > 6 else "")
        yield Result(name, f"Changed {change.kind}", outcome, shown, {"differences": list(texts[:SHOWN])},
                     remedy=remedy if change.matters else None)  # fmt: skip


def _needs_changes(old: Subject, new: Subject) -> Iterator[Result]:
    """What the new one needs and the old one did not, asked of this kernel; and what it no longer needs."""
    before = {need.key: need for need in needs.needs(old.contents, old.kernel)}
    after = {need.key: need for need in needs.needs(new.contents, new.kernel)}
    for key, need in after.items():
        if key not in before:
            yield _need(need, "new: ")
    for key, need in before.items():
        if key not in after:
            summary = f"no longer needed: {_visible(need.what)} · {need.since_text}"
            yield Result(f"dropped.{key}", "No longer needed of a kernel", Outcome.PASS, summary)
    floors = [max((need.version for need in rows.values() if need.needed), default=()) for rows in (before, after)]
    words = [".".join(map(str, floor)) or "any version" for floor in floors]
    moved = "the same as before" if floors[0] == floors[1] else f"before: {words[0]}"
    summary = f"mainline {words[1]} has all of it whose version is known; {moved}"
    evidence: dict[str, Json] = {"before": words[0], "after": words[1]}
    yield Result("floor.mainline", "First mainline version with all of it", Outcome.PASS, summary, evidence)
