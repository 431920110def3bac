"""What a program calls, in order, and lining a cut log up with it.

A cut log says how far the verifier got. What comes after the cut is known only when the program is: from its object
(--object), or because it is the agent's connect4, whose calls are data here. Then each later call that some kernels
refuse is a suspect, with the kernels. Nothing is matched against a stored log.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from harness.verifier import helpers
from harness.verifier.helpers import Version
from harness.verifier.log import OPCODE_CALL, Log


class Step(NamedTuple):
    """One call of a program: the instruction's number, where known, and the helper's."""

    insn: int | None
    helper: int
    note: str = ""


@dataclass(frozen=True)
class KnownProgram:
    """A program whose calls are public interface, though its object is not at hand."""

    name: str
    what: str  # how to call it
    steps: Sequence[Step]
    marks: Sequence[str]  # names of its own maps and types, as they stand in its source lines
    source: str  # where the sequence is from


AGENT_CONNECT4 = KnownProgram(
    "connect4",
    "the Guest Proxy Agent's connect4",
    (
        Step(None, 46),
        Step(None, 1, "policy_map"),
        Step(None, 6),
        Step(None, 14),
        Step(None, 1, "skip_process_map"),
        Step(None, 15),
        Step(None, 2, "local_map"),
    ),
    ("policy_map", "skip_process_map", "local_map", "audit_map", "destination_entry"),
    "the agent's eBPF interface: the calls along the redirect path, in their order",
)

KNOWN_PROGRAMS = (AGENT_CONNECT4,)


@dataclass(frozen=True)
class Suspect:
    """A call after the cut that kernels before a version refuse to this program type."""

    step: Step
    allowed: Version  # the first mainline version that allows it
    kernels: str  # of those that print this form of log, which refuse it

    @property
    def name(self) -> str:
        return helpers.name_of(self.step.helper) or f"helper {self.step.helper}"


@dataclass(frozen=True)
class Alignment:
    """A log lined up with a program's calls."""

    program: str
    evidence: str  # why the log is taken to be of that program
    passed: Sequence[Step]  # calls that the log shows
    later: Sequence[Step]  # from the cut on; the first may be the instruction that is cut
    unlisted: Sequence[Step]  # later calls that the table says nothing of


_HELPER_IN_SOURCE = re.compile(r"\bbpf_(\w{1,64})\s?\(")


def _shown(log: Log) -> list[tuple[int, int]]:
    """(instruction, helper) of each call that stands whole in the log."""
    return [(number, call.number) for number, call in log.calls if call.number is not None]


def _cut_call(log: Log) -> int | None:
    """The helper of the call instruction that the text ends in, when its source line names exactly one."""
    last = log.instructions[-1] if log.instructions else None
    if last is None or not last.cut or last.opcode != OPCODE_CALL or last.call is not None or not last.source:
        return None
    names = {name for name in _HELPER_IN_SOURCE.findall(last.source) if helpers.number_of(name) is not None}
    return helpers.number_of(names.pop()) if len(names) == 1 else None


def identify(log: Log, named: str | None, from_agent: bool) -> tuple[KnownProgram, str] | None:
    """The known program that a log is of, with the evidence; None when that is not certain enough to reason from.

    named: the program's name by the message around the log; from_agent: that message is of the agent's form.
    Wanted are the name, at least one call, all calls in the program's order, and a sign that it is that product's:
    its message, or its own names in the source lines.
    """
    if log.head_missing:
        return None
    shown = [helper for _, helper in _shown(log)]
    if (cut := _cut_call(log)) is not None:
        shown.append(cut)
    for program in KNOWN_PROGRAMS:
        if (named or log.program) != program.name or not shown:
            continue
        if shown != [step.helper for step in program.steps][: len(shown)]:
            continue
        marks = sorted({mark for mark in program.marks for _, text in log.sources if mark in text})
        if not marks and not (from_agent and not log.sources):
            continue
        sign = f"its source lines name {', '.join(marks)}" if marks else "the message is the agent's"
        calls = ", ".join(helpers.name_of(helper) or str(helper) for helper in shown)
        return program, f"it is called {program.name}, {sign}, and its calls so far are the program's first ({calls})"
    return None


def align_known(log: Log, program: KnownProgram, evidence: str) -> Alignment:
    """Line a log up by the order of calls. Raises nothing: identify() made sure that they agree."""
    whole = len(_shown(log))
    return _alignment(program.what, evidence, program.steps[:whole], program.steps[whole:])


def align_object(log: Log, steps: Sequence[Step], program: str) -> Alignment | None:
    """Line a log up with an object's calls by instruction number; None when they are not the same program's."""
    by_number = {step.insn: step for step in steps if step.insn is not None}
    for number, helper in _shown(log):
        if number not in by_number or by_number[number].helper != helper:
            return None
    if not log.instructions:
        return None
    seen = {row.number for row in log.instructions if not row.cut}
    cut = log.instructions[-1]
    if cut.opcode == OPCODE_CALL and cut.number not in by_number and not (cut.call and cut.call.local) and cut.call:
        return None
    passed = [step for step in steps if step.insn in seen]
    later = [step for step in steps if step.insn not in seen]
    count = len(passed)
    evidence = f"all of its {count} calls so far are at the same instructions as in the object"
    return _alignment(program, evidence, passed, later) if count else None


def _alignment(program: str, evidence: str, passed: Sequence[Step], later: Sequence[Step]) -> Alignment:
    unlisted = [step for step in later if helpers.allowed_in_connect4(step.helper) is None]
    return Alignment(program, evidence, tuple(passed), tuple(later), tuple(unlisted))


def suspects(log: Log, alignment: Alignment) -> tuple[Suspect, ...]:
    """The later calls that some kernel which prints logs of this form refuses to a connect4 program, in their order."""
    found: dict[int, Suspect] = {}
    for step in alignment.later:
        allowed = helpers.allowed_in_connect4(step.helper)
        if allowed is None or step.helper in found:
            continue
        kernels = refusing(log.generation.first, log.generation.last, allowed)
        if kernels:
            found[step.helper] = Suspect(step, allowed, kernels)
    return tuple(found.values())


def refusing(first: Version | None, last: Version | None, allowed: Version) -> str | None:
    """Which kernels of a range lack what came with `allowed`; None when none of them does."""
    if first and first >= allowed:
        return None
    major, minor = allowed
    before = (major, minor - 1) if minor else None  # the last release without it; not known where the major changed
    if last and last < allowed:
        before = last
    if first and before:
        return (
            f"{helpers.version_text(first)} to {helpers.version_text(before)}"
            if first < before
            else (helpers.version_text(first))
        )
    return f"before {helpers.version_text(allowed)}"


def floor(steps: Sequence[Step]) -> tuple[Version, Step] | None:
    """The newest of the versions that the calls need: no mainline kernel before it accepts them all."""
    needs = [(allowed, step) for step in steps if (allowed := helpers.allowed_in_connect4(step.helper))]
    return max(needs, key=lambda need: need[0], default=None)
