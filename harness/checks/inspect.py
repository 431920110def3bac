"""An eBPF object inspected: what is in it, and what it needs of a kernel. Nothing of it is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.checks.inspect_contents import SHOWN, listed, of_maps, of_object, of_programs, visible
from harness.checks.recording import Recording
from harness.errors import HarnessError
from harness.kernel.bpf_types import ProgramType
from harness.kernel.probes import Answer, Probed
from harness.program.object import btf, contents, core, diff, elf, needs
from harness.program.object.btf import Btf
from harness.program.object.contents import Contents, Program
from harness.program.object.core import Resolution
from harness.program.object.needs import Need
from harness.report import Json, Outcome, Report, Result

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
    results = [*described(one), *_needs(needs.needs(one.contents, one.kernel))]
    return recording.report(results, program=one.digest)


def described(one: Subject) -> Iterator[Result]:
    """What the file alone tells, and how its CO-RE relocations resolve."""
    yield from of_object(one.contents, one.digest)
    yield from of_programs(one.contents)
    yield from of_maps(one.contents)
    yield from _core(one)


def compare(old_path: Path, new_path: Path, given: Path | None = None) -> Report:
    """`msp-harness inspect-object A B`: what changed from A to B, and what the change needs of kernels."""
    recording = Recording(f"object {new_path}, compared with {old_path}")
    old, new = subject(old_path, given), subject(new_path, given)
    results = [*_changes(old, new), *_core(new), *_needs_changes(old, new)]
    return recording.report(results, program=new.digest)


def verdict(report: Report) -> str:
    """The last line: whether this kernel has what the object needs, and what is wrong with the object itself."""
    wanted = [result for result in report.results if result.group == "needs"]
    lacks = [result.id.removeprefix("needs.") for result in wanted if result.outcome is Outcome.FAIL]
    wrong = [result.id for result in report.results if result.group != "needs" and result.outcome is Outcome.FAIL]
    asked = sum(result.outcome in (Outcome.PASS, Outcome.WARN) for result in wanted)
    unasked = sum(result.outcome is Outcome.SKIP for result in wanted)
    here = f"this kernel lacks {_few(lacks)}" if lacks else f"this kernel has the {asked} things asked for"
    parts = [here, f"{unasked} could not be asked" * bool(unasked), f"see {_few(wrong)}" * bool(wrong)]
    return "; ".join(part for part in parts if part)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + " and more" * (len(names) > 5)


# --- CO-RE -----------------------------------------------------------------------------------------------------------


def _core(one: Subject) -> Iterator[Result]:
    types = one.contents.types
    for program in one.contents.programs:
        if not program.relocations:
            yield from _fixed_offsets(one, program)
        if not program.relocations or types is None:
            continue
        name, title = f"core.{visible(program.name)}", "CO-RE relocations"
        if one.target is None:
            reason = f"{len(program.relocations)} relocations, and this kernel has no BTF to resolve them against"
            remedy = "a CO-RE object loads only where there is BTF; give another kernel's with --btf FILE"
            yield Result(name, title, Outcome.SKIP, reason, remedy=remedy)
            continue
        resolver = core.Resolver(types, one.target)
        try:
            yield _resolved(name, title, one, [resolver.resolve(row) for row in program.relocations])
        except ValueError as error:
            summary = f"its relocations make no sense: {visible(str(error))}"
            yield Result(name, title, Outcome.FAIL, summary, remedy="compile it again")


_READS = frozenset({4, 112, 113})  # probe_read, probe_read_user, probe_read_kernel
_AGENTS_READS = ("skc_daddr", "skc_dport", "skc_num")


def _fixed_offsets(one: Subject, program: Program) -> Iterator[Result]:
    """A program that reads kernel memory without CO-RE: nobody but its author knows at which offsets."""
    if not _READS & set(program.helpers) or program.place.type not in (ProgramType.KPROBE, ProgramType.TRACEPOINT):
        return
    summary = "reads kernel memory at fixed offsets (no CO-RE): right only where the kernel's structs lie as it expects"
    evidence: dict[str, Json] = {}
    if one.target is not None:
        places = [core.place_of(one.target, "sock", f"__sk_common.{field}") for field in _AGENTS_READS]
        evidence[f"struct sock in {one.target_name}"] = [
            f"__sk_common.{field} at {'no place' if place is None else place}"
            for field, place in zip(_AGENTS_READS, places, strict=True)
        ]
        agrees = places == [0, 12, 14]
        summary += (
            f"; struct sock's addresses and ports lie {'as ever' if agrees else 'elsewhere'} in {one.target_name}"
        )
    remedy = "look at what audit_map gets: `msp-harness verify --object` does; CO-RE objects need no such trust"
    yield Result(f"core.{visible(program.name)}", "Fixed offsets", Outcome.WARN, summary, evidence, remedy=remedy)


def _resolved(name: str, title: str, one: Subject, found: Sequence[Resolution]) -> Result:
    lost = [row for row in found if not row.works]
    moved = sum(row.there is not None and row.own is not None and row.own != row.there for row in found)
    distinct = dict.fromkeys(visible(f"{row.instruction}: {row}") for row in [*lost, *found])
    evidence: dict[str, Json] = {"against": one.target_name, "relocations": listed(distinct)}
    if lost:
        wanted = list(dict.fromkeys(visible(row.wants) for row in lost))
        summary = f"{len(lost)} of {len(found)} do not resolve against {one.target_name}: {', '.join(wanted[:3])}"
        remedy = "the verifier refuses the program where it gets there; use an object made for this kernel's types"
        return Result(name, title, Outcome.FAIL, summary, evidence, remedy=remedy)
    summary = f"all {len(found)} resolve against {one.target_name}, {moved} to other values than it was compiled with"
    return Result(name, title, Outcome.PASS, summary, evidence)


# --- needs -----------------------------------------------------------------------------------------------------------


def _needs(wanted: Sequence[Need]) -> Iterator[Result]:
    yield from (_need(need) for need in wanted)
    yield from _youngest(wanted)


def _need(need: Need, prefix: str = "") -> Result:
    found = need.probe()
    outcome = _OUTCOMES[found.answer]
    if outcome is Outcome.FAIL and not need.needed:
        outcome = Outcome.WARN
    summary = f"{prefix}{visible(need.what)} · {need.since_text} · {_here(found)}"
    if outcome is Outcome.WARN:
        summary += f": {need.without}"
    remedy = f"use a kernel that has it (mainline: {need.since_text})" if outcome is Outcome.FAIL else None
    evidence: dict[str, Json] = {"first mainline version": need.since or None, "this kernel": str(found.answer)}
    if need.at_least:
        evidence["the version is"] = "a lower bound"
    if found.said:
        evidence["it says"] = visible(found.said)
    return Result(f"needs.{need.key}", "Needed of a kernel", outcome, summary, evidence, remedy=remedy)


def _here(found: Probed) -> str:
    words = {Answer.YES: "here", Answer.NO: "not here", Answer.UNKNOWN: "could not be asked"}
    said = f" ({visible(found.said)})" if found.answer is not Answer.YES and found.said else ""
    return words[found.answer] + said


def _youngest(wanted: Sequence[Need]) -> Iterator[Result]:
    dated = [need for need in wanted if need.needed and need.since]
    if dated:
        floor = max(dated, key=lambda need: need.version)
        names = [need.what for need in dated if need.version == floor.version]
        summary = (
            f"mainline {floor.since} has all of it whose version is known; youngest: {visible(', '.join(names[:3]))}"
        )
        evidence: dict[str, Json] = {"version": floor.since, "youngest": [visible(name) for name in names[:SHOWN]]}
        yield Result("floor.mainline", "First mainline version with all of it", Outcome.PASS, summary, evidence)


# --- two objects -----------------------------------------------------------------------------------------------------


def _changes(old: Subject, new: Subject) -> Iterator[Result]:
    found = diff.changes(old.contents, new.contents)
    if not found:
        same = old.digest == new.digest
        summary = "the same file" if same else "other bytes, and no difference in programs, maps, licence or types"
        yield Result("change.none", "What changed", Outcome.PASS, summary)
    for change in found[:SHOWN]:
        texts = [visible(text) for text in change.differences]
        name = f"change.{change.kind}" + (
            "" if change.kind == "object" else f"-{visible(change.name).replace(' ', '-')}"
        )
        remedy = "whoever fills or reads it has to change with it: use agent and object of one version"
        outcome = Outcome.WARN if change.matters else Outcome.PASS
        shown = "; ".join(texts[:6]) + (f"; {len(texts) - 6} more" if len(texts) > 6 else "")
        yield Result(name, f"Changed {change.kind}", outcome, shown, {"differences": listed(texts)},
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
            summary = f"no longer needed: {visible(need.what)} · {need.since_text}"
            yield Result(f"dropped.{key}", "No longer needed of a kernel", Outcome.PASS, summary)
    floors = [max((need.version for need in rows.values() if need.needed), default=()) for rows in (before, after)]
    words = [".".join(map(str, floor)) or "any version" for floor in floors]
    moved = "the same as before" if floors[0] == floors[1] else f"before: {words[0]}"
    summary = f"mainline {words[1]} has all of it whose version is known; {moved}"
    evidence: dict[str, Json] = {"before": words[0], "after": words[1]}
    yield Result("floor.mainline", "First mainline version with all of it", Outcome.PASS, summary, evidence)
