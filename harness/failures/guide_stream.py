"""The guide's own failure: its verifier log read back into the instructions and source lines that it was printed from.

The guide shows a log that is cut off inside instruction 16. What it shows is put together again from its own text, so
that the running kernel can be asked about exactly that, and its log laid beside the guide's.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from harness.failures import wording
from harness.failures.assembler import ALLOW, add, call, copy, load, map_address, set_to, store
from harness.failures.btf import SourceLine, load_with_lines
from harness.failures.model import ACCEPTED, Answer, Failure, Family, NotHere, Setting, Shown, asked
from harness.kernel import bpf
from harness.kernel.bpf import MapType
from harness.msp import generations, mask
from harness.msp import verifier_codes as codes
from harness.program.maps import LAYOUTS
from harness.report.model import Json

PID_TGID = 14
"""bpf_get_current_pid_tgid: what comes after the guide's cut, and what kernels before 5.7 refuse in connect4."""

NEAREST = 9
"""bpf_skb_store_bytes: a helper that no kernel lets a connect4 program call."""

_FILE = "guide.c"  # the guide's kernel printed no file names
_LOOKUP = 1
_INSTRUCTION = re.compile(r"(\d+): \(([0-9a-f]{2})\) (.*)")

# How the verifier prints an instruction, and what it is.
_FORMS: tuple[tuple[str, Callable[[re.Match[str]], bytes]], ...] = (
    (r"r(\d+) = r(\d+)", lambda m: copy(int(m[1]), int(m[2]))),
    (r"r(\d+) = (-?\d+)", lambda m: set_to(int(m[1]), int(m[2]))),
    (r"r(\d+) \+= (-?\d+)", lambda m: add(int(m[1]), int(m[2]))),
    (r"call \w+#(\d+)", lambda m: call(int(m[1]))),
    (r"\*\(u32 \*\)\(r(\d+) ([+-]\d+)\) = r(\d+)", lambda m: store(4, int(m[1]), int(m[2]), int(m[3]))),
    (r"r(\d+) = \*\(u32 \*\)\(r(\d+) ([+-]\d+)\)", lambda m: load(4, int(m[1]), int(m[2]), int(m[3]))),
)
_MAP_ADDRESS = re.compile(r"r(\d+) = 0x[0-9a-f]+")  # the address that the map had at the guide's boot


@dataclass(frozen=True)
class Stream:
    """Instructions and source lines as a log shows them."""

    code: bytes
    lines: tuple[SourceLine, ...]


def guides_stream(policy_map: int) -> Stream:
    """The guide's instructions 0 to 16 with this descriptor for its map. 16 is cut, but its source line names it."""
    message = wording.guides_message(Family.LOAD)
    assert message is not None
    code = b""
    lines: list[SourceLine] = []
    waiting: str | None = None
    for line in message.fields["log"].splitlines():
        match = _INSTRUCTION.match(line)
        if match is None:
            waiting = line[2:] if line.startswith("; ") else waiting
            continue
        slot = len(code) // 8
        if slot != int(match[1]):
            raise ValueError(f"instruction {match[1]} of the guide's log stands where {slot} should")
        if waiting is not None:
            # The same text twice is the same line twice: newer kernels print it once.
            again = bool(lines) and lines[-1].text == waiting
            lines.append(SourceLine(slot, waiting, lines[-1].number if again else len(lines) + 1))
            waiting = None
        code += _assembled(match[3], policy_map)
    return Stream(code, tuple(lines))


def _assembled(text: str, policy_map: int) -> bytes:
    if text.endswith("..."):
        return call(_LOOKUP)
    if match := _MAP_ADDRESS.fullmatch(text):
        return map_address(int(match[1]), policy_map)
    for pattern, instruction in _FORMS:
        if match := re.fullmatch(pattern, text):
            return instruction(match)
    raise ValueError(f"an instruction of the guide's log that is not known: {text}")


def load_stream(then: bytes, did: str, log_level: int) -> Answer:
    """Load the guide's instructions, then these, with a map of the agent's policy_map's layout."""
    layout = LAYOUTS["policy_map"]
    logs: list[str] = []

    def step() -> None:
        sizes = layout.key_size, layout.value_size, layout.entries
        with bpf.map_create(MapType.HASH, *sizes, name="policy_map") as table:
            stream = guides_stream(table.fileno())
            program, log = load_with_lines(stream.code + then, "connect4", _FILE, stream.lines, log_level)
            program.close()
            logs.append(log)

    answer = asked(did, step)
    return dataclasses.replace(answer, log=logs[0]) if logs else answer


_STRICT = "lines of the guide that are the same, under the mask"
_BARE = "the same without register states"
_DIFFERENCES = "lines that differ, and why"


def _side_by_side(log: str) -> Mapping[str, Json]:
    """The two logs line by line, and what is the same when the kernel's register states are set aside."""
    strict = wording.compare_logs(wording.stable(log))
    bare = wording.compare_logs("\n".join(_bare(wording.stable(log))))
    return {
        _STRICT: f"{strict.same} of {strict.guide_total}",
        "similarity": round(strict.similarity, 3),
        _BARE: f"{bare.same} of {bare.guide_total}",
        "similarity without register states": round(bare.similarity, 3),
        "mask": mask.mask_text().splitlines(),
        _DIFFERENCES: [one.text for one in _named(log).differences],
        "set aside": "registers in lines of their own and behind `;`, `mark_precise`, ` @ file:line`",
        "side by side": strict.text.splitlines(),
        "side by side without register states": bare.text.splitlines(),
    }


def _named(log: str) -> generations.Named:
    theirs = wording.guides_message(Family.LOAD)
    assert theirs is not None  # it is part of the package
    return generations.named(theirs.fields["log"].splitlines(), wording.stable(log).splitlines())


def _not_explained(log: str) -> str:
    """A problem where a line differs from the guide's for which no difference of generations is known."""
    lines = _named(log).unexplained
    return f"{len(lines)} lines differ from the guide's without a known reason, first {lines[0]}" if lines else ""


_STATE_LINE = re.compile(r"(?:\d+: )?(?:frame\d+: )?R\d+\S*=|func#\d+ @|mark_precise:|\d+: R")


def _bare(log: str) -> list[str]:
    """A log without what newer kernels add: states in lines of their own and behind `;`, places behind `@`."""
    lines = [line for line in log.splitlines() if not _STATE_LINE.match(line)]
    lines = [re.sub(r" @ \S*:\d+$", "", line) if line.startswith(";") else line for line in lines]
    return [re.sub(r"\s+; [RrFf].*$", "", line) if not line.startswith(";") else line for line in lines]


def _log(setting: Setting) -> Shown:
    """The guide's stream up to its cut: every kernel takes it, and its log is what the guide's would have been here."""
    failing = load_stream(ALLOW, "BPF_PROG_LOAD of the guide's instructions up to its cut, log level 2", 2)
    then = load_stream(call(PID_TGID) + ALLOW, "BPF_PROG_LOAD of the same and bpf_get_current_pid_tgid after it", 2)
    facts: dict[str, Json] = {**_side_by_side(failing.log), then.did: then.word}
    again = load_stream(ALLOW, "BPF_PROG_LOAD of the guide's instructions up to its cut, log level 1", 1)
    summary = (
        f"the guide's instructions up to its cut: {failing.word}; of the guide's lines this kernel's log has "
        f"{facts[_STRICT]}, and {facts[_BARE]} when register states are set aside; "
        f"bpf_get_current_pid_tgid after them: {then.word}"
    )
    again = dataclasses.replace(again, log="")
    return Shown(failing, again, facts=facts, summary=summary, problem=_not_explained(failing.log))


def _pid_tgid(setting: Setting) -> Shown:
    """The guide's stream and the helper that comes after it, as a kernel before 5.7 refuses it."""
    did = "BPF_PROG_LOAD of the guide's instructions, then bpf_get_current_pid_tgid"
    failing = load_stream(call(PID_TGID) + ALLOW, did, 1)
    if failing.word == ACCEPTED:
        near = "the same instructions, then bpf_skb_store_bytes, which no kernel lets connect4 call"
        nearest = load_stream(call(NEAREST) + ALLOW, f"BPF_PROG_LOAD of {near}", 1)
        facts: dict[str, Json] = {"matters": list(wording.decisive(nearest.log, "")), **_side_by_side(nearest.log)}
        raise NotHere(
            "this kernel lets connect4 call bpf_get_current_pid_tgid, so it takes what the guide's kernel refused",
            "boot a mainline kernel before 5.7, or the lab kernel no-pid-tgid (5.10 with that one permission undone)",
            nearest,
            facts,
        )
    repaired = load_stream(ALLOW, "BPF_PROG_LOAD of the guide's instructions without that call", 1)
    return Shown(failing, repaired, facts=_side_by_side(failing.log), problem=_not_explained(failing.log))


GUIDE = (
    Failure("guide-pid-tgid", "The guide's own: bpf_get_current_pid_tgid in connect4", Family.LOAD,
            codes.HELPER_NOT_ALLOWED, ("EINVAL",), _pid_tgid, "the call was left out",
            says=r"unknown func bpf_get_current_pid_tgid|cannot use helper", needs="a kernel before 5.7"),
    Failure("guide-log", "The guide's log up to its cut, on this kernel", Family.LOAD, codes.TRUNCATED, (ACCEPTED,),
            _log, "none is needed: nothing up to the cut is refused",
            says=r"^16: \(85\) call bpf_map_lookup_elem#1"),
)  # fmt: skip
