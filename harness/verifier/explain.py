"""explain: a verifier log, a status.json, an agent's log or a bare message, and what it means.

explain_text() takes whatever was pasted and gives Explanations, the most telling first. No explanation is chosen by
comparing with a stored example: the text is parsed, and the catalogue, the helper table and the known order of calls
say what follows.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from harness.errors import errno_name
from harness.msp import codes, messages, status, verifier_codes
from harness.msp.codes import Code
from harness.msp.messages import Form, Message
from harness.msp.paste import decode, plain
from harness.report.model import Outcome
from harness.verifier import attach, complaints
from harness.verifier.explain_log import explain_log
from harness.verifier.explanation import Ask, Explanation
from harness.verifier.log import Log
from harness.verifier.parse import parse
from harness.verifier.sequence import Step

MOST_ENTRIES = 10_000  # of an agent's log that are looked at, from the end
_BARE_LINES = 200  # of a text that is no log, that are compared with the catalogue

_ENTRY = re.compile(r"^(?=\d{4}-\d\d-\d\d[T ]\d\d:\d\d|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d )", re.MULTILINE)
_OS_ERROR = re.compile(r"os error (\d{1,3})\b|\b(E(?:BADF|PERM|INVAL|2BIG|NODEV|NOENT|ACCES|NOMEM))\b")
_ERROR_TEXTS = {"Bad file descriptor": "EBADF", "Operation not permitted": "EPERM", "Invalid argument": "EINVAL",
                "Argument list too long": "E2BIG", "No such device": "ENODEV", "No such file or directory": "ENOENT",
                "Permission denied": "EACCES"}  # fmt: skip


class Context(NamedTuple):
    """What is known besides the text."""

    steps: Sequence[Step] | None = None  # the calls of --object
    object_name: str = "the object"
    answers: Mapping[str, str] = {}  # attach.Question.id → what was observed, by --here
    release: str | None = None  # uname -r of the machine that the text is from


def explain_text(
    data: str | bytes,
    *,
    steps: Sequence[Step] | None = None,
    object_name: str = "the object",
    answers: Mapping[str, str] | None = None,
    release: str | None = None,
) -> list[Explanation]:
    """What a text means; never empty, never raises.

    steps: the calls of the program's object (harness.verifier.elf.read_calls). answers: what was observed on the
    machine, by the ids of attach.QUESTIONS. release: its `uname -r`, where known.
    """
    observed = dict(answers or {})
    if release and attach.RELEASE.id not in observed:
        observed[attach.RELEASE.id] = release
    context = Context(steps, object_name, observed, release or observed.get(attach.RELEASE.id))
    text = decode(data)
    read = status.read(text)
    if read is not None:
        return _explain_status(read, context)
    found = list(_explain_other(text, context))
    return found or [_nothing_known(text)]


def _explain_status(read: status.Status, context: Context) -> list[Explanation]:
    found: list[Explanation] = []
    for module in read.modules:
        if module.message and (explained := _explain_module(module, context)):
            found.append(explained)
        elif module.name == "keyLatchStatus" and module.states.get("secureChannelState", "").lower() == "disabled":
            found.append(_coded(codes.KEY_NOT_ENFORCED, module.name, Outcome.WARN, "secureChannelState: disabled"))
    order = {Outcome.FAIL: 0, Outcome.ERROR: 1, Outcome.WARN: 2, Outcome.SKIP: 3, Outcome.PASS: 4}
    found.sort(key=lambda explanation: order[explanation.outcome])
    return found or [_healthy(read)]


def _explain_module(module: status.Module, context: Context) -> Explanation | None:
    text = module.message or ""
    message = messages.parse(text)
    if message:
        return _explain_message(message, module.name, text, context)
    log = parse(text)
    if log.is_log:
        return _log(log, module.name, None, False, context)
    if module.status in (None, "RUNNING"):
        return None
    return Explanation(codes.UNKNOWN_MESSAGE, Outcome.WARN, module.name, codes.UNKNOWN_MESSAGE.cause, (text[:300],))


def _healthy(read: status.Status) -> Explanation:
    states = ", ".join(f"{module.name} {module.status}" for module in read.modules) or "no module"
    return Explanation(
        codes.NO_CAUSE_FOUND_ATTACH,
        Outcome.PASS if read.modules else Outcome.WARN,
        "status.json",
        f"No failure is reported ({states}). RUNNING says that a module runs, not that clients are redirected: look at "
        "keyLatchStatus.states, and whether policy_map has entries.",
    )


def _explain_other(text: str, context: Context) -> Iterator[Explanation]:
    """A verifier log with or without a message around it, an agent's log, a bare message, a bare complaint."""
    seen: set[tuple[Form, str]] = set()
    found = list(_messages(text))
    around = next((message for message in reversed(found) if message.form is Form.LOAD), None)
    log = _log_around(text, around)
    found_log = log.is_log
    if found_log:
        named = around.fields["name"] if around else log.program
        yield _log(log, "verifier log", named, around is not None, context)
    for message in found:
        key = (message.form, message.text[:4096])
        if key in seen or (found_log and message.form is Form.LOAD):
            continue  # the agent tries five times and says so five times
        seen.add(key)
        yield _explain_message(message, "message", message.text, context)
    if not found_log and not seen and (bare := _bare_complaint(text)):
        yield bare


def _log_around(text: str, around: Message | None) -> Log:
    """The log of the last message that has one; the whole text where each of its lines was made an entry of its own."""
    if around:
        log = parse(around.fields["log"])
        if len(log.instructions) > 1 or log.statistics:
            return log
    return parse(text)


def _messages(text: str) -> Iterator[Message]:
    """The messages of a log file, entry by entry, from its last entries; of a bare message that one."""
    clean = plain(text)
    starts = [match.start() for match in _ENTRY.finditer(clean)][-MOST_ENTRIES:]
    bounds = [*starts, len(clean)] if starts else [0, len(clean)]
    for begin, end in itertools.pairwise(bounds):
        if message := messages.parse(clean[begin:end].strip()):
            yield message


def _log(log: Log, subject: str, named: str | None, from_agent: bool, context: Context) -> Explanation:
    return explain_log(
        log,
        subject=subject,
        named=named,
        from_agent=from_agent,
        steps=context.steps,
        object_name=context.object_name,
        release=context.release,
    )


def _bare_complaint(text: str) -> Explanation | None:
    lines = [line.strip() for line in plain(text[: 1 << 20]).splitlines()[:_BARE_LINES] if line.strip()]
    found = complaints.find(lines)
    if not found:
        return None
    log = parse(found.line + "\nprocessed 0 insns\n")
    return _log(log, "message", None, False, Context())


def _nothing_known(text: str) -> Explanation:
    first = next((line.strip() for line in text[:4096].splitlines() if line.strip()), "(empty)")
    return Explanation(
        codes.UNKNOWN_MESSAGE, Outcome.ERROR, "text", codes.UNKNOWN_MESSAGE.cause, (first[:300],)
    )  # fmt: skip


# --- the agent's messages -----------------------------------------------------------------------------------------

_BY_FORM: Mapping[Form, Code] = {
    Form.OPEN_CGROUP: codes.CGROUP_NOT_OPENED,
    Form.GET_PROGRAM: codes.OBJECT_NOT_READ,
    Form.GET_MAP: codes.OBJECT_NOT_READ,
    Form.UPDATE_MAP: codes.MAP_NOT_UPDATED,
    Form.LOAD_OBJECT: codes.OBJECT_NOT_READ,
    Form.LOAD_API: codes.OBJECT_NOT_READ,
    Form.GAVE_UP: codes.GAVE_UP,
    Form.KEY_STATUS: codes.KEY_STATUS_FAILED,
    Form.KEY_VALIDATION: codes.KEY_INVALID_STATUS,
    Form.KEY_LOCAL: codes.KEY_NOT_STORED,
    Form.KEY_LOCAL_FROM: codes.KEY_NOT_STORED,
    Form.KEY_NOT_SAVED: codes.KEY_NOT_STORED,
    Form.KEY_NOT_CHECKED: codes.KEY_NOT_STORED,
    Form.KEY_NOT_ACQUIRED: codes.KEY_NOT_OFFERED,
    Form.KEY_NOT_ATTESTED: codes.KEY_NOT_ATTESTED,
    Form.KEY_FOUND: codes.KEY_READY,
    Form.KEY_ATTESTED: codes.KEY_READY,
    Form.KEY_NOT_ENFORCED: codes.KEY_NOT_ENFORCED,
}
_OUTCOMES: Mapping[str, Outcome] = {
    codes.KEY_READY.id: Outcome.PASS,
    codes.KEY_NOT_ENFORCED.id: Outcome.WARN,
}


def _explain_message(message: Message, subject: str, text: str, context: Context) -> Explanation:
    if message.form is Form.LOAD:
        return _load(message, subject, context)
    if message.form is Form.ATTACH_LINK or message.form is Form.ATTACH_OTHER:
        return _attach(message, subject, context)
    if message.form is Form.LOAD_OBJECT and "map" in message.fields["error"] and errno_in(text) == "EPERM":
        return _coded(verifier_codes.MEMLOCK, subject, Outcome.FAIL, text)
    if message.form is Form.LOAD_OTHER:
        return _coded(_load_code(errno_in(text)), subject, Outcome.FAIL, text)
    code = _BY_FORM.get(message.form) or _key_step(message)
    return _coded(code, subject, _OUTCOMES.get(code.id, Outcome.FAIL), text)


def _key_step(message: Message) -> Code:
    return codes.KEY_NOT_ATTESTED if message.fields.get("step") == "attest" else codes.KEY_NOT_OFFERED


def _load_code(errno: str | None) -> Code:
    if errno in ("EPERM", "EACCES"):
        return verifier_codes.NO_PRIVILEGE_TO_LOAD
    return codes.NO_PROGRAM_TYPE if errno == "EINVAL" else codes.OBJECT_NOT_READ


def _coded(code: Code, subject: str, outcome: Outcome, line: str) -> Explanation:
    return Explanation(code, outcome, subject, code.title + ".", (line[:300],), causes=(code.cause,))


def errno_in(text: str) -> str | None:
    """The errno's name, where the text gives its number, its name or its words."""
    if match := _OS_ERROR.search(text[:8192]):
        return match.group(2) or errno_name(int(match.group(1)))
    return next((name for words, name in _ERROR_TEXTS.items() if words in text[:8192]), None)


def _load(message: Message, subject: str, context: Context) -> Explanation:
    name, text = message.fields["name"], message.fields["log"]
    log = parse(text + (messages.CUT_MARK if message.cut and not text.endswith(messages.CUT_MARK) else ""))
    if text.strip() and (log.is_log or log.complaint or log.sources):
        return _log(log, subject, name, True, context)
    return Explanation(
        verifier_codes.EMPTY_LOG,
        Outcome.FAIL,
        subject,
        f"The kernel refused to load {name} without verifying it: the log is empty.",
        (message.text[:300],),
        required="a kernel that has the program type (4.17, CONFIG_CGROUP_BPF) and a loader with the privilege",
        found="a refusal before verification",
        causes=(codes.NO_PROGRAM_TYPE.cause, verifier_codes.NO_PRIVILEGE_TO_LOAD.cause),
        asks=(
            Ask("grep CGROUP_BPF /boot/config-$(uname -r)", "has the kernel cgroup programs?",
                f"{codes.NO_PROGRAM_TYPE.id} when it is not set (EINVAL)"),
            Ask(attach.CAPABILITIES.command, attach.CAPABILITIES.asks,
                f"{verifier_codes.NO_PRIVILEGE_TO_LOAD.id} when CAP_BPF and CAP_NET_ADMIN are missing (EPERM)"),
        ),
    )  # fmt: skip


def _attach(message: Message, subject: str, context: Context) -> Explanation:
    errno = errno_in(message.fields.get("error", ""))
    rows = attach.weigh(context.answers, errno)
    by_link = message.form is Form.ATTACH_LINK
    certain = ["The program was loaded: the verifier accepted it, and the kernel has its type (CONFIG_CGROUP_BPF)."]
    if by_link:
        certain.append(attach.NO_LINK_BEFORE)
    answer = context.answers.get(attach.RELEASE.id)
    old = attach.version(answer) if answer else None
    confirmed = [row for row in rows if row.verdict]
    code = confirmed[0].cause.code if confirmed else codes.ATTACH_FAILED_UNKNOWN
    if by_link and old and old < (5, 7):
        code = codes.CONTRADICTORY_KERNEL
    open_rows = [row for row in rows if row.verdict is None]
    return Explanation(
        code,
        Outcome.FAIL,
        subject,
        _attach_summary(message.fields["name"], code, len(open_rows), errno),
        (message.text[:300],),
        required="a cgroup2 directory, the privilege, no exclusive program on the way, and a kernel with bpf_link",
        found=errno or "the message does not give the errno",
        certain=tuple(certain),
        asks=tuple(
            Ask(row.cause.question.command, row.cause.question.asks, row.cause.text, row.answer, row.verdict)
            for row in rows
        ),
    )  # fmt: skip


def _attach_summary(name: str, code: Code, count: int, errno: str | None) -> str:
    if code is codes.ATTACH_FAILED_UNKNOWN:
        known = f"{errno} leaves" if errno else "the message hides the errno and leaves"
        return f"Attaching {name} failed; {known} {count} possible causes, which the questions tell apart."
    if code is codes.CONTRADICTORY_KERNEL:
        return f"Attaching {name} by bpf_link_create failed, on a kernel that has no such call: the two do not fit."
    return f"Attaching {name} failed: {code.title[:1].lower()}{code.title[1:]}."
