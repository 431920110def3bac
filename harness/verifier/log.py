"""What a verifier log says, as data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from harness.verifier import helpers
from harness.verifier.helpers import Version

OPCODE_CALL = 0x85  # BPF_JMP | BPF_CALL

_CALL = re.compile(r"call (?:pc([+-]\d+)|(\w+)?(?:#(-?\d{1,10}))?)")
_REGISTER = re.compile(r"(?<![\w-])(R\d+|fp-\d+|refs)(?:_[rwPD]+)?=")


class Call(NamedTuple):
    """A call: a helper or kernel function by name and number, or a function of the program itself."""

    name: str | None  # `bpf_map_lookup_elem`; None when it is not in the text and the number is not in the table
    number: int | None
    local: bool = False


class Instruction(NamedTuple):
    """One printed instruction (a NamedTuple since a log may hold a million of them)."""

    number: int  # of the instruction in the program, from 0
    opcode: int
    text: str  # the kernel's disassembly
    state: str | None  # registers after it (5.17 and later) or before it (log level 2 of older kernels)
    source: str | None  # the source line it belongs to
    line: int  # where in the clean lines, from 0
    cut: bool = False  # the text ends inside this instruction

    @property
    def call(self) -> Call | None:
        """What a call instruction calls; None for others, and when the text is cut before it."""
        if self.opcode != OPCODE_CALL:
            return None
        match = _CALL.match(self.text)
        if not match:
            return None
        relative, name, digits = match.groups()
        if relative:
            return Call(None, None, local=True)
        if self.cut:  # the number may be cut too: only a whole helper name counts
            number = helpers.number_of(name) if name else None
            return Call(name, number) if number is not None else None
        number = int(digits) if digits else helpers.number_of(name or "")
        if name in (None, "unknown") and number is not None:
            name = helpers.name_of(number)
        return Call(name, number)

    @property
    def registers(self) -> Mapping[str, str]:
        return registers(self.state or "")


def registers(state: str) -> Mapping[str, str]:
    """`R1=ctx() R10=fp0 fp-8=mmmmmmmm` as {'R1': 'ctx()', 'R10': 'fp0', 'fp-8': 'mmmmmmmm'}."""
    found = list(_REGISTER.finditer(state))
    ends = [match.start() for match in found[1:]] + [len(state)]
    return {match.group(1): state[match.end() : end].strip() for match, end in zip(found, ends, strict=False)}


class State(NamedTuple):
    """A line of registers on its own: at the start, at a branch (`from 5 to 7: …`) or before an instruction."""

    number: int  # of the instruction that comes next
    text: str
    origin: int | None  # the branch's instruction
    line: int

    @property
    def registers(self) -> Mapping[str, str]:
        return registers(self.text)


@dataclass(frozen=True)
class Refusal:
    """The report that kernels from 7.3 add to the complaint."""

    category: str  # "Register Type Safety"
    problem: str  # "Unreadable register"
    sections: Mapping[str, str]  # Reason, At, Causal path, Suggestion …


@dataclass(frozen=True)
class Generation:
    """Which mainline kernels print a log of this form; None at an end that the form does not limit."""

    first: Version | None
    last: Version | None
    signs: Sequence[str]  # why, each a sentence
    contradictory: bool = False  # the signs exclude one another: a backport, or two logs in one

    @property
    def text(self) -> str:
        if self.contradictory:
            return "cannot be told: its signs contradict one another"
        first = helpers.version_text(self.first) if self.first else None
        last = helpers.version_text(self.last) if self.last else None
        if first and last:
            return f"{first} to {last}"
        return f"{first} or later" if first else f"{last} or earlier" if last else "any"


@dataclass(frozen=True)
class Log:
    """A verifier log read."""

    lines: Sequence[str]
    instructions: Sequence[Instruction]
    states: Sequence[State]
    sources: Sequence[tuple[int, str]]  # (clean line, text of the source line)
    complaint: Sequence[str]  # the kernel's own words for the refusal; empty when there is none
    failing: Instruction | None  # what the complaint is about
    failing_index: int | None  # its number, also when it was never printed
    statistics: Mapping[str, int]
    refusal: Refusal | None
    generation: Generation
    truncated: bool
    head_missing: bool  # the beginning is missing: kernels from 6.4 keep the end when the buffer is short
    program: str | None = None  # by libbpf's prefix or the first source line
    loader: Sequence[str] = field(default_factory=tuple)  # what libbpf or bcc say around the log

    @property
    def calls(self) -> Sequence[tuple[int, Call]]:
        """(instruction, call) of every call to a helper or kernel function, each instruction once, as first printed."""
        seen: dict[int, Call] = {}
        for instruction in self.instructions:
            if instruction.opcode == OPCODE_CALL and instruction.number not in seen:
                call = instruction.call
                if call and not call.local:
                    seen[instruction.number] = call
        return list(seen.items())

    @property
    def is_log(self) -> bool:
        """Whether there is anything in it that only a verifier prints."""
        return bool(self.instructions or self.statistics or self.states or self.refusal)
