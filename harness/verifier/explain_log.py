"""What a verifier log means: the refusal it holds or, when it is cut, what is certain and what remains possible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.msp import verifier_codes as codes
from harness.msp.codes import Code
from harness.report.model import Outcome
from harness.verifier import attach, complaints, helpers, sequence
from harness.verifier.explanation import Ask, Explanation
from harness.verifier.helpers import version_text
from harness.verifier.log import OPCODE_CALL, Instruction, Log
from harness.verifier.sequence import Alignment, Step, Suspect

DOCUMENTED_FLOOR = (5, 15)  # the guide's, under "Linux VM"

# What the report of 7.3 is about, where the complaint's own line is not in the catalogue.
_CATEGORIES: Mapping[str, Code] = {
    "Register Type Safety": codes.NOT_A_POINTER,
    "Memory Safety": codes.OUT_OF_BOUNDS,
    "Resource Lifetime Safety": codes.REFERENCE,
    "Call Type Safety": codes.ARGUMENT_TYPE,
    "Execution Context Safety": codes.LOCKING,
    "Program Structure": codes.MALFORMED,
}


def explain_log(
    log: Log,
    *,
    subject: str = "verifier log",
    named: str | None = None,
    from_agent: bool = False,
    steps: Sequence[Step] | None = None,
    object_name: str = "the object",
    release: str | None = None,
) -> Explanation:
    """Explain one log.

    named: the program's name by the message around the log; from_agent: that message is of the agent's form.
    steps: the calls of the program's object, where it is at hand, and object_name how to call it.
    release: `uname -r` of the machine that the log is from, where known.
    """
    if log.complaint:
        explained = _refusal(log, subject)
        if explained:
            return explained
    if log.truncated:
        return _cut(log, subject, named, from_agent, steps, object_name, release)
    if log.complaint:
        return _unknown(log, subject)
    return _accepted(log, subject)


def _line(instruction: Instruction) -> str:
    return f"{instruction.number}: ({instruction.opcode:02x}) {instruction.text}"


def _form(log: Log) -> str | None:
    return log.generation.text if log.generation.signs else None


def _refusal(log: Log, subject: str) -> Explanation | None:
    found = complaints.find(log.complaint)
    says = dict(log.refusal.sections) if log.refusal else {}
    if not found:
        return _by_category(log, subject, says) if log.refusal else None
    lines = [_line(log.failing)] if log.failing and log.failing.text else []
    return Explanation(
        code=found.row.code,
        outcome=Outcome.FAIL,
        subject=subject,
        summary=found.says,
        lines=(*lines, found.line),
        required=found.required,
        found=found.found,
        causes=found.row.causes,
        remedy=found.row.change,
        relaxed=found.row.relaxed or None,
        kernel=_form(log),
        certain=_about_helper(log, found),
        says=says,
        row=found.row.id,
    )


def _by_category(log: Log, subject: str, says: Mapping[str, str]) -> Explanation:
    assert log.refusal is not None
    lines = [_line(log.failing)] if log.failing else []
    return Explanation(
        code=_CATEGORIES.get(log.refusal.category, codes.UNKNOWN_COMPLAINT),
        outcome=Outcome.FAIL,
        subject=subject,
        summary=f"{log.refusal.category}: {log.refusal.problem}.",
        lines=(*lines, log.complaint[0]),
        found=says.get("Reason"),
        remedy=says.get("Suggestion"),
        kernel=_form(log),
        says=says,
    )


def _about_helper(log: Log, found: complaints.Found) -> tuple[str, ...]:
    """For a refused helper: since when mainline has it, and since when connect4 programs may call it."""
    if found.row.id not in ("helper-not-allowed", "helper-unknown"):
        return ()
    digits = found.groups.get("number", "")
    number = int(digits) if digits.isascii() and digits.isdigit() else helpers.number_of(found.groups.get("helper", ""))
    if number is None:
        return ()
    certain = []
    name = helpers.name_of(number) or f"helper {number}"
    first, allowed = helpers.introduced(number), helpers.allowed_in_connect4(number)
    if first and number < len(helpers.HELPER_NAMES):
        certain.append(f"Mainline has {name} since {version_text(first)}.")
    if allowed:
        certain.append(
            f"Mainline lets cgroup/connect4 programs call it since {version_text(allowed)}: a connect4 program is "
            "refused by kernels before it, and by those built without what the helper needs."
        )
    return tuple(certain)


def _unknown(log: Log, subject: str) -> Explanation:
    lines = [_line(log.failing)] if log.failing else []
    return Explanation(
        code=codes.UNKNOWN_COMPLAINT,
        outcome=Outcome.WARN,
        subject=subject,
        summary=f"The verifier's reason is not in the catalogue: {log.complaint[-1][:200]}",
        lines=(*lines, *log.complaint[-2:]),
        kernel=_form(log),
    )


def _accepted(log: Log, subject: str) -> Explanation:
    if "insns" not in log.statistics:
        return Explanation(codes.EMPTY_LOG, Outcome.FAIL, subject, codes.EMPTY_LOG.cause)
    return Explanation(
        code=codes.ACCEPTED,
        outcome=Outcome.PASS,
        subject=subject,
        summary=f"The verifier looked at {log.statistics.get('insns', 0)} instructions and complains of nothing.",
        kernel=_form(log),
    )


# --- a cut log ----------------------------------------------------------------------------------------------------


def _cut(
    log: Log,
    subject: str,
    named: str | None,
    from_agent: bool,
    steps: Sequence[Step] | None,
    object_name: str,
    release: str | None,
) -> Explanation:
    alignment: Alignment | None = None
    mismatch = False
    if steps is not None:
        alignment = sequence.align_object(log, steps, object_name)
        mismatch = alignment is None
    elif known := sequence.identify(log, named, from_agent):
        alignment = sequence.align_known(log, *known)
    found = sequence.suspects(log, alignment) if alignment else ()
    return Explanation(
        code=codes.TRUNCATED,
        outcome=Outcome.WARN,
        subject=subject,
        summary=_cut_summary(log, alignment, found, mismatch, object_name),
        lines=_last_lines(log),
        required="the verifier's complaint",
        found="a log that ends before it",
        kernel=_form(log),
        certain=_certain(log, named, alignment),
        possible=_possible(alignment, found),
        asks=_asks(found, release),
        remedy=_cut_remedy(found),
    )


def _last_lines(log: Log) -> tuple[str, ...]:
    """The source line and the instruction that the text ends in."""
    if not log.instructions:
        return tuple(line.strip() for line in log.lines[-1:])
    last = log.instructions[-1]
    source = (f"; {last.source}",) if last.source else ()
    return (*source, _line(last) + ("..." if last.cut else ""))


def _cut_summary(
    log: Log, alignment: Alignment | None, found: Sequence[Suspect], mismatch: bool, object_name: str
) -> str:
    if mismatch:
        return f"The log is cut off before the refusal, and it is not a log of {object_name}: their calls differ."
    if not alignment:
        return "The log is cut off before the refusal: what it is cannot be told from this text."
    if not found:
        return (
            f"The log is cut off before the refusal; nothing that {alignment.program} calls after the cut is known to "
            "be refused by a kernel that prints this form."
        )
    names = ", then ".join(f"{suspect.name} (kernels {suspect.kernels})" for suspect in found)
    return (
        f"The log is cut off before the refusal; of what {alignment.program} calls after the cut, some kernels that "
        f"print this form refuse {names}."
    )


def _certain(log: Log, named: str | None, alignment: Alignment | None) -> tuple[str, ...]:
    rows = []
    if log.generation.signs and not log.generation.contradictory:
        rows.append(f"The form is that of mainline kernels {log.generation.text}: {'; '.join(log.generation.signs)}.")
    program = named or log.program
    last = log.instructions[-1] if log.instructions else None
    if program:
        rows.append(f"The program is called {program}.")
    if last:
        where = "which is cut" if last.cut else "the last one shown"
        rows.append(f"The verifier got to instruction {last.number} ({_line(last)}), {where}.")
        rows.append("Everything shown before it was accepted by the kernel that printed this.")
    rows += _calls_passed(log, alignment)
    if alignment:
        rows.append(f"It is taken to be {alignment.program}: {alignment.evidence}.")
    return tuple(rows)


def _calls_passed(log: Log, alignment: Alignment | None) -> list[str]:
    """That no call up to the cut is refused by any kernel that prints this form, where the table proves it."""
    shown = [Step(number, call.number) for number, call in log.calls if call.number is not None]
    first_after = alignment.later[0] if alignment and alignment.later else None
    last = log.instructions[-1] if log.instructions else None
    if first_after and last and last.cut and last.opcode == OPCODE_CALL and last.call is None:
        shown.append(first_after)  # the call that the text ends in
    need = sequence.floor(shown)
    first = log.generation.first
    if not need or not first or need[0] > first:
        return []
    if any(helpers.allowed_in_connect4(step.helper) is None for step in shown):
        return []
    names = ", ".join(helpers.name_of(step.helper) or str(step.helper) for step in shown)
    return [
        f"Nothing called up to there ({names}) is refused to a connect4 program by any kernel that prints this form: "
        f"{version_text(need[0])} is enough for it."
    ]


def _possible(alignment: Alignment | None, found: Sequence[Suspect]) -> tuple[str, ...]:
    if not alignment:
        return ("Anything after the cut: without the program's object nothing can be said of it.",)
    rows = []
    for suspect in found:
        where = f"instruction {suspect.step.insn}" if suspect.step.insn is not None else "a later call"
        rows.append(
            f"{suspect.name} ({where}) is refused to connect4 programs by kernels {suspect.kernels}; mainline allows "
            f"it from {version_text(suspect.allowed)}."
        )
    for step in alignment.unlisted:
        name = helpers.name_of(step.helper) or f"helper {step.helper}"
        rows.append(f"{name}: the table does not say since when connect4 programs may call it.")
    rows.append("Something else after the cut (a memory access, the return value): the uncut log tells.")
    return tuple(rows)


def _asks(found: Sequence[Suspect], release: str | None) -> tuple[Ask, ...]:
    """One question a suspect, answered when uname -r is known."""
    running = attach.version(release or "")
    return tuple(
        Ask(
            "uname -r",
            f"is the kernel older than {version_text(suspect.allowed)}?",
            f"if so, {codes.HELPER_NOT_ALLOWED.id} for {suspect.name} (distributions take such things back to older "
            "numbers: a probe of the helper decides)",
            release,
            running < suspect.allowed if running else None,
        )
        for suspect in found[:3]
    )


def _cut_remedy(found: Sequence[Suspect]) -> str | None:
    if not found:
        return None
    suspect = found[0]
    floor = version_text(suspect.allowed)
    documented = ""
    if suspect.allowed < DOCUMENTED_FLOOR:
        documented = (
            f" The guide asks for {version_text(DOCUMENTED_FLOOR)}, which has it as well; what decides here is {floor}:"
            " a kernel between the two is not refused for this."
        )
    return (
        f"If `uname -r` is below {floor}, upgrade to an image whose kernel is {floor} or later.{documented} To be "
        "sure, read the uncut message in the agent's log, /var/log/azure-proxy-agent."
    )
