"""Failed to load the eBPF program: what the verifier says, whole where a log has it; the object of the agent."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from functools import lru_cache

from harness.diagnose import facts as f
from harness.diagnose.case import EBPF, Case, Said
from harness.diagnose.rule import Ask, Because, Finding, Role, Rule, Sure, because
from harness.diagnose.rules.services import DOCUMENTED_FLOOR, MEASURED_FLOOR
from harness.diagnose.rules.windows import drivers_down
from harness.msp import codes, verifier_codes
from harness.msp.codes import Code, all_codes
from harness.msp.messages import REDIRECTOR_FORMS, Form
from harness.report.model import Outcome
from harness.verifier.explain import explain_text
from harness.verifier.explanation import Explanation

WHOLE_LOG = Ask(
    "grep -h -A 60 'Failed to load program' /var/log/azure-proxy-agent/ProxyAgent*.log | tail -80",
    "how does the message go on after 1,024 bytes?",
    "what the kernel refused: its reason stands after the cut",
)
RELEASE = Ask("uname -r", "which kernel runs?", "whether it is below the guide's 5.15; beside the log, not instead")
_VERIFIER_CODES = tuple(row for name, row in all_codes().items() if name.startswith("MSP-V"))
_UPGRADE = (
    "Opt out of MSP for this VM.",
    "Upgrade the OS image to its latest version (kernel 5.15 or later, as the guide asks; `uname -r`).",
    "Enable MSP again; status.json must then say ebpfProgramStatus RUNNING.",
)
# Refusals that a newer kernel mends; others are mended where the code says.
_KERNELS = frozenset(
    row.id
    for row in (
        verifier_codes.HELPER_NOT_ALLOWED, verifier_codes.HELPER_UNKNOWN, verifier_codes.KFUNC_MISSING,
        verifier_codes.RELOCATION, verifier_codes.LOOP, verifier_codes.TOO_COMPLEX, verifier_codes.TRUNCATED,
        verifier_codes.CONTEXT_ACCESS, verifier_codes.UNINITIALISED_STACK, verifier_codes.EMPTY_LOG,
        verifier_codes.BTF,
    )
)  # fmt: skip


@lru_cache(maxsize=2048)
def _explained(text: str, release: str | None) -> Explanation:
    """A fleet has the same message a thousand times."""
    return explain_text(text, release=release)[0]


def _floors(case: Case) -> tuple[Because, ...]:
    kernel = case.kernel
    if not kernel or not kernel.version:
        return ()
    documented = "below" if kernel.version < DOCUMENTED_FLOOR else "not below"
    measured = "below" if kernel.version < MEASURED_FLOOR else "not below"
    return (because(kernel, f"{documented} the guide's floor 5.15, {measured} the measured one (mainline 5.7)"),)


def refused(case: Case) -> Iterator[Finding]:
    """The message in status.json or a log, explained."""
    said = case.failing(EBPF, Form.LOAD, Form.LOAD_OTHER)
    if not said:
        return
    whole = case.uncut(said)
    yield _told(case, whole, _explained(whole.text, case.release))


def alone(case: Case) -> Iterator[Finding]:
    """A verifier log that came by itself."""
    if case.failing(EBPF, *REDIRECTOR_FORMS) or case.running(EBPF):
        return
    for log in case.of(f.VerifierLog):
        explained = _explained(log.text, case.release)
        if explained.outcome in (Outcome.FAIL, Outcome.WARN) and explained.code is not verifier_codes.ACCEPTED:
            said = Said(EBPF, log.text, None, log.source, None, "log")
            yield _told(case, said, explained)
            return


def _told(case: Case, said: Said, explained: Explanation) -> Finding:
    code = explained.code
    line = explained.lines[0] if explained.lines else ""
    undecided = code in (verifier_codes.TRUNCATED, verifier_codes.EMPTY_LOG, verifier_codes.UNKNOWN_COMPLAINT)
    asks: list[Ask] = [ask for ask in explained.asks if not (case.kernel and ask.command == RELEASE.command)]
    if code is verifier_codes.TRUNCATED:
        asks.append(WHOLE_LOG)
    if not case.kernel and RELEASE.command not in [ask.command for ask in asks]:
        asks.append(RELEASE)
    possible = tuple(Because(f"possible: {text}") for text in explained.possible[:3])
    return Finding(
        code,
        explained.summary,
        (
            because(said.source, "the agent's message") if undecided or not line else _reason(said, line),
            *possible,
            *_floors(case),
        ),
        Sure.LIKELY if undecided else Sure.CERTAIN,
        steps=_UPGRADE if code.id in _KERNELS else (explained.help,),
        asks=tuple(asks),
        answers=said.text,
    )


def _reason(said: Said, line: str) -> Because:
    """The line that matters, where it stands in its file; of a status.json all is on one line."""
    words = "".join(line.split())
    for number, text in enumerate(said.text.splitlines() if said.origin == "log" else ()):
        if words == "".join(text.split()):
            source = said.source
            return because(f.Source(source.document, source.line + number, text), "the kernel's reason")
    return because(said.source, f"the kernel's reason: `{line}`")


_OBJECT: dict[Form, Code] = {
    Form.LOAD_OBJECT: codes.OBJECT_NOT_READ,
    Form.GET_PROGRAM: codes.OBJECT_NOT_READ,
    Form.GET_MAP: codes.OBJECT_NOT_READ,
    Form.UPDATE_MAP: codes.MAP_NOT_UPDATED,
}


_WINDOWS = (
    "sc query eBPFCore & sc query NetEbpfExt: both must be 4 RUNNING before the agent can load its object.",
    "Have the platform install the agent again: opt out of MSP in the VM model and enable it.",
)


def object_unread(case: Case) -> Iterator[Finding]:
    """The object itself, its maps, their limit."""
    said = case.failing(EBPF, *_OBJECT)
    if not said or not said.form:
        return
    explained = _explained(said.text, case.release)
    code = explained.code if explained.code is verifier_codes.MEMLOCK else _OBJECT[said.form]
    path = (said.message.fields.get("path") if said.message else "") or "/usr/lib/azure-proxy-agent/ebpf_cgroup.o"
    yield Finding(
        code,
        f"{code.title}: {path}." if code is codes.OBJECT_NOT_READ else f"{code.title}.",
        (because(said.source, "the agent's own words"), *_floors(case)),
        Sure.CERTAIN,
        role=Role.SYMPTOM if drivers_down(case) else Role.CAUSE,
        steps=() if code is not codes.OBJECT_NOT_READ else _WINDOWS if "\\" in path else (
            f"ls -l {shlex.quote(path)}",
            "Reinstall: sudo apt-get install --reinstall azure-proxy-agent (or sudo dnf reinstall azure-proxy-agent).",
            "sudo systemctl restart azure-proxy-agent",
        ),
        answers=said.text,
    )  # fmt: skip


def gave_up(case: Case) -> Iterator[Finding]:
    """Five tries failed; the reason stands before that line, which is not here."""
    said = case.failing(EBPF, Form.GAVE_UP)
    if said:
        yield Finding(
            codes.GAVE_UP,
            "The agent gave up after five tries; what they failed with is not in the evidence.",
            (because(said.source, "the agent's own words"),),
            asks=(
                Ask(
                    "grep -h 'Failed to' /var/log/azure-proxy-agent/ProxyAgent*.log | tail -20",
                    "what did the five tries fail with?",
                    "whether loading, attaching or the object failed",
                ),
            ),
            answers=said.text,
        )


_SAID = (f.AgentStatus, f.AgentLogEvent, f.UnitLog, f.StatusTag, f.ProvisioningReport, f.ExtensionStatus)

RULES: Sequence[Rule] = (
    Rule("setup.load.refused", "The kernel refuses connect4 or the kprobe", refused, (_SAID,),
         (*_VERIFIER_CODES, codes.NO_PROGRAM_TYPE, codes.OBJECT_NOT_READ, codes.UNKNOWN_MESSAGE),
         ("setup.load#block1", "setup.load", "setup.load#uname -r", "setup")),
    Rule("setup.load.log", "A verifier log by itself", alone, ((f.VerifierLog,),),
         (*_VERIFIER_CODES, codes.UNKNOWN_MESSAGE, codes.NO_PROGRAM_TYPE), ("setup.load",)),
    Rule("setup.load.object", "The agent's object, its programs or maps", object_unread, (_SAID,),
         (codes.OBJECT_NOT_READ, codes.MAP_NOT_UPDATED, verifier_codes.MEMLOCK), ("setup.load",)),
    Rule("setup.gave-up", "Five tries failed, and the reason is not here", gave_up, (_SAID,), (codes.GAVE_UP,),
         ("setup",), Sure.CERTAIN, Role.SYMPTOM),
)  # fmt: skip
