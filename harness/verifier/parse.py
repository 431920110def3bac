"""Reading a verifier log of any kernel from 4.17 to 7.3, whole or not, in whatever state it reached us.

parse() never raises and takes time linear in its input: one pass over the text and one over the lines, and no
pattern that can back up over more than a bounded stretch. Formats: kernel/bpf/verifier.c, log.c, disasm.c and (7.3)
diagnostics.c.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.msp.paste import decode, plain
from harness.verifier.generation import generation
from harness.verifier.log import Generation, Instruction, Log, Refusal, State
from harness.verifier.text import clean_lines, unescape

_INSTRUCTION = re.compile(r"\s?(\d{1,7}): \(([0-9a-fA-F]{2})\) ?(.*)")
_STATE = re.compile(r"\s?(\d{1,7}): ?((?:frame\d+: ?)?R\d.*)")
_BRANCH = re.compile(r"\s?from (\d{1,7}) to (\d{1,7})(?: \([a-z ]{1,30}\))?: ?(.*)")
_BARE_STATE = re.compile(r"\s*(?:frame\d+: ?)?R\d{1,2}(?:_[rwPD]{1,3})?=")
_LIVE = re.compile(r"\s*(?:\d+\s+)?\d+: [.0-9]{10} \(")
_PROCESSED = re.compile(r"processed (\d{1,18}) insns")
_STATISTIC = re.compile(r"(limit|stack depth|max_states_per_insn|total_states|peak_states|mark_read) (\d{1,18})")
_DEPTH = re.compile(r"stack depth (\d{1,9}(?:\+\d{1,9}){0,512})\s*$")  # of each function, from 5.2 on
_TIME = re.compile(r"verification time (\d{1,18}) usec")
_LOADER = re.compile(r"libbpf: |bpf: |HINT: |-- (?:BEGIN|END) |Error: failed to load|BPF program load failed")
_PROGRAM = re.compile(r"prog '([^'\n]{1,64})'")
_SIGNATURE = re.compile(r"(?:\w{1,64}[ *]{1,4}){1,6}(\w{1,64}) ?\((?: ?(\w{1,64}))?")
_REPORT = re.compile(r"\s*Verification failed: ([^:\n]{1,80})(?:: (.*))?")
_SECTION = re.compile(r"([A-Z][a-z]+(?: [a-z]+)?):\s*$")
_POINTED_AT = re.compile(r"\s*>>> {1,8}(\d{1,7}) \| \(|\s{0,8}insn (\d{1,7})\s*$")
_COMPLAINT_INDEX = re.compile(r"\binsn (\d{1,7})\b")
_PLACE = re.compile(r" @ [\w./+-]{1,200}:\d+$")

# Complaints that are about no instruction in particular.
_WHOLE_PROGRAM = ("combined stack size",)

_BEGIN = "-- BEGIN PROG LOAD LOG --"
_AGENT = "Verifier output:"
_AGENT_PROGRAM = re.compile(r"program '([^'\n]{1,64})'")
_JSON_TAIL = re.compile(r"\"\s{0,80},?[\s}\],]{0,80}\Z")

# What the verifier says by the way, which is no complaint.
_REMARKS = (
    "func#", "last_idx", "first_idx", "regs=", "mark_precise:", "parent ", "propagating ", "search pruned", "from ",
    "Live regs", "SCC ", "Func#", "Validating ", "caller:", "callee:", "returning from", "to caller", "from callee",
    "cur state:", "old state:", "stack depth", "verification time", "processed ", "max_states", "falling back",
    "reg type unsupported", "subprog ", "insn_idx", "magic: ", "version: ", "flags: ", "hdr_len: ", "type_off: ",
    "type_len: ", "str_off: ", "str_len: ", "btf_total_size: ", "mode:", "BPF:", "hint: ", "arg#0 reference type",
)  # fmt: skip

_ASIDE = re.compile(r"\s*(?:\d+: safe|\(\d+\) (?:frame \d+ insn \d+ |live stack update ).*)\s*\Z")
"""Remarks that begin with a number: a pruned branch, and the liveness of stack slots (from 6.18)."""


def parse(data: str | bytes) -> Log:
    """Read a log; whatever is not one gives a Log without instructions whose complaint is its last lines."""
    text, program = _inside_message(data)
    return _Reader(clean_lines(text), program).log()


def _inside_message(data: str | bytes) -> tuple[str, str | None]:
    """What stands after `Verifier output:` of an agent's message, if that is where the log is, and the program."""
    text = decode(data)
    at = text.rfind(_AGENT)  # the agent tries five times, and says so five times
    if at < 0:
        return text, None
    named = _AGENT_PROGRAM.search(plain(text[max(0, at - 200) : at]))
    inside = plain(text[at + len(_AGENT) :]).lstrip(" ")
    return unescape(_JSON_TAIL.sub("", inside)), named.group(1) if named else None


@dataclass
class _Reader:
    """The one pass over the lines."""

    lines: list[str]
    program: str | None
    instructions: list[Instruction] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    sources: list[tuple[int, str]] = field(default_factory=list)
    loose: list[tuple[int, str]] = field(default_factory=list)  # lines of no known form
    loader: list[str] = field(default_factory=list)
    statistics: dict[str, int] = field(default_factory=dict)
    signs: set[str] = field(default_factory=set)
    report_at: int | None = None

    def log(self) -> Log:
        marked = self._take_cut_mark()
        open_end = bool(self.lines and self.lines[-1])  # the text does not end with a line end
        self._read()
        head = bool(self.instructions and self.instructions[0].number != 0)
        seen = bool(self.instructions or self.states or self.sources)
        truncated = marked or (seen and "insns" not in self.statistics)
        if truncated and (marked or open_end):
            self._cut_last_line()
        refusal, pointed = self._report()
        complaint = self._complaint(refusal)
        failing, index = self._failing(complaint, pointed)
        return Log(
            self.lines, self.instructions, self.states, self.sources, complaint, failing, index, self.statistics,
            refusal, self._generation(), truncated, head, self._program(), tuple(self.loader),
        )  # fmt: skip

    def _take_cut_mark(self) -> bool:
        """Remove the `...` that the agent puts where it cut; whether it was there."""
        kept = len(self.lines)
        while kept > 1 and not ((line := self.lines[kept - 1]) and line.strip(" \t\"'},]")):
            kept -= 1
        del self.lines[kept:]
        if self.lines and self.lines[-1].rstrip(" \"',").endswith("..."):
            self.lines[-1] = self.lines[-1].rstrip(" \"',")[:-3]
            return True
        return False

    def _read(self) -> None:
        source: str | None = None
        instruction = _INSTRUCTION.match
        append = self.instructions.append
        for number, line in enumerate(self.lines):
            match = instruction(line)
            if match and self.report_at is None:
                index, opcode, rest = match.groups()
                body, mark, state = rest.partition(";")
                append(
                    Instruction(
                        int(index), int(opcode, 16), body.rstrip(), state.strip() if mark else None, source, number
                    )
                )
            elif line[:1] == ";" and self.report_at is None:
                source = line[1:].strip()
                self.sources.append((number, source))
            elif line.strip():
                self._other(number, line)

    def _other(self, number: int, line: str) -> None:
        if _BEGIN in line and self.instructions:
            self._begin_again()  # libbpf prints the logs of several programs: the last is the one that stopped it
        if match := _PROCESSED.search(line):
            if before := line[: match.start()].strip():  # one complaint of the kernel lacks its line end
                self.loose.append((number, before))
            self._statistics(line, match)
        elif self.report_at is not None:
            return  # a report goes on to the statistics
        elif match := _STATE.match(line):
            self.states.append(State(int(match.group(1)), match.group(2), None, number))
        elif match := _BRANCH.match(line):
            if match.group(3) and match.group(3) != "safe":
                self.states.append(State(int(match.group(2)), match.group(3), int(match.group(1)), number))
        elif _LIVE.match(line):
            self.signs.add("live_registers")
        elif _BARE_STATE.match(line):
            following = self.instructions[-1].number + 1 if self.instructions else 0
            self.states.append(State(following, line.strip(), None, number))
        elif _REPORT.match(line):
            self.report_at = number
        elif match := _TIME.match(line.lstrip()):
            self.statistics["verification_usec"] = int(match.group(1))
        elif match := _DEPTH.match(line.lstrip()):
            self.statistics["stack_depth"] = sum(int(depth) for depth in match.group(1).split("+"))
        elif _LOADER.match(line):
            self.loader.append(line.strip())
            if match := _PROGRAM.search(line):
                self.program = match.group(1)
        elif line.lstrip().startswith(_REMARKS):
            self._remark(line.lstrip())
        elif _ASIDE.match(line):
            return
        elif "insns" not in self.statistics:  # after the statistics comes what is not the verifier's
            self.loose.append((number, line.strip()))

    def _begin_again(self) -> None:
        for part in (self.instructions, self.states, self.sources, self.loose, self.statistics, self.signs):
            part.clear()
        self.report_at = None

    def _remark(self, line: str) -> None:
        if line.startswith("mark_precise:"):
            self.signs.add("mark_precise")
        elif line.startswith("last_idx"):
            self.signs.add("bare_backtracking")
            if not self.states and self.instructions:
                self.signs.add("backtracking_at_level_1")

    def _statistics(self, line: str, match: re.Match[str]) -> None:
        self.statistics["insns"] = int(match.group(1))
        numbers = {name.replace(" ", "_"): int(value) for name, value in _STATISTIC.findall(line)}
        self.statistics.update(numbers)
        if "stack_depth" in numbers:
            self.signs.add("stack_depth_in_statistics")
        limit = self.statistics.get("limit")
        if limit in (131072, 1000000):
            self.signs.add(f"limit_{limit}")

    def _cut_last_line(self) -> None:
        """The text ends inside its last line: that line is not read as if it were whole."""
        last = len(self.lines) - 1
        if self.instructions and self.instructions[-1].line == last:
            self.instructions[-1] = self.instructions[-1]._replace(cut=True)
        if self.loose and self.loose[-1][0] == last:
            text = self.loose[-1][1]
            if text[:1].isdigit() or any(remark.startswith(text) for remark in _REMARKS):
                self.loose.pop()

    def _report(self) -> tuple[Refusal | None, int | None]:
        if self.report_at is None:
            return None, None
        match = _REPORT.match(self.lines[self.report_at])
        category, problem = match.groups() if match else ("", "")
        self.signs.add("report")
        sections: dict[str, list[str]] = {}
        pointed: int | None = None
        current: list[str] = []
        for line in self.lines[self.report_at + 1 :]:
            if _PROCESSED.match(line) or line.startswith(("verification time", "stack depth")):
                break
            if title := _SECTION.match(line):
                current = sections.setdefault(title.group(1), [])
            else:
                current.append(line.strip())
                if pointed is None and current is sections.get("At") and (found := _POINTED_AT.match(line)):
                    pointed = int(found.group(1) or found.group(2))
        texts = {name: _paragraph(name, body) for name, body in sections.items()}
        return Refusal(category.strip(), (problem or "").strip(), texts), pointed

    def _complaint(self, refusal: Refusal | None) -> tuple[str, ...]:
        after = self.instructions[-1].line if self.instructions else -1
        lines = [text for number, text in self.loose if number > after]
        if not lines and refusal:
            return (f"{refusal.category}: {refusal.problem}",)
        return tuple(lines[-4:])

    def _failing(self, complaint: tuple[str, ...], pointed: int | None) -> tuple[Instruction | None, int | None]:
        if not complaint or complaint[0].startswith(_WHOLE_PROGRAM):
            return None, None
        named = next((found for line in complaint if (found := _COMPLAINT_INDEX.search(line))), None)
        if pointed is None and named:
            pointed = int(named.group(1))
        if pointed is None:
            last = self.instructions[-1] if self.instructions else None
            return last, last.number if last else None
        return next((row for row in reversed(self.instructions) if row.number == pointed), None), pointed

    def _generation(self) -> Generation:
        some = [row.text for row in self.states[:64]]
        behind = [row.state for row in self.instructions[:256] if row.state]
        text = "\n".join(some + behind)
        for sign, words in _STATE_SIGNS.items():
            if any(word in text for word in words):
                self.signs.add(sign)
        if behind:
            self.signs.add("state_after")
        if any(_PLACE.search(source) for _, source in self.sources[:64]):
            self.signs.add("source_place")
        if any("infinite loop detected" in line for _, line in self.loose[-8:]):
            self.signs.add("infinite_loop")
        first = self.instructions[0] if self.instructions else None
        before = self.states[0].line if self.states else None
        if first and first.number == 0 and (before is None or before > first.line):
            self.signs.add("no_first_state")
        return generation(self.signs)

    def _program(self) -> str | None:
        if self.program or not self.sources or not self.instructions:
            return self.program
        line, source = self.sources[0]
        if line > self.instructions[0].line or self.instructions[0].number != 0:
            return None
        match = _SIGNATURE.match(source)
        if not match:
            return None
        name, argument = match.groups()
        return argument if name.isupper() and argument else name  # int BPF_KPROBE(tcp_connect, …


_STATE_SIGNS: Mapping[str, tuple[str, ...]] = {
    "call_suffix": ("fp0,call_",),
    "inv": ("=inv", "=Pinv"),
    "scalar": ("=scalar", "=Pscalar"),
    "id_0": ("(id=0,",),
    "bare_off_imm": ("ctx(off=0,imm=0)",),
    "empty_ctx": ("=ctx()",),
}


def _paragraph(name: str, body: list[str]) -> str:
    """A section's text: prose on one line, context as it stands."""
    joiner = " " if name in ("Reason", "Suggestion") else "\n"
    return joiner.join(line for line in body if line).strip()
