"""From evidence to a verdict: every rule tried, causes ranked, contradictions and what is missing beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from harness.diagnose import facts as f
from harness.diagnose.case import EBPF, Case, first_line
from harness.diagnose.facts import Evidence
from harness.diagnose.rule import Ask, Finding, Role, Rule, Sure, Tried
from harness.diagnose.rules import RULES, keys
from harness.diagnose.rules.attach import ASKS
from harness.diagnose.rules.load import RELEASE
from harness.diagnose.rules.services import SYSTEMCTL
from harness.diagnose.rules.windows import SC
from harness.msp import diagnosis_codes as codes
from harness.msp.codes import Code
from harness.msp.guide_walk import position

MOST_ASKS = 6


class Kind(StrEnum):
    """CAUSE: a cause was found. NOTE: nothing is broken, but a setting or a risk is worth saying. CANNOT_TELL: the
    evidence does not decide; the candidates are listed. HEALTHY: it shows that nothing is wrong."""

    HEALTHY = "healthy"
    NOTE = "note"
    CAUSE = "cause"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True)
class Verdict:
    """The answer. findings: the causes, the best first; also: symptoms and notes; contradictions apart."""

    kind: Kind
    code: Code
    summary: str
    sure: Sure
    findings: Sequence[Finding]
    also: Sequence[Finding]
    contradictions: Sequence[Finding]
    asks: Sequence[Ask]
    tried: Sequence[Tried]
    case: Case

    @property
    def best(self) -> Finding | None:
        """What the verdict rests on."""
        return self.findings[0] if self.findings else None

    @property
    def evidence(self) -> Evidence:
        return self.case.evidence


_SURE = {Sure.CERTAIN: 0, Sure.LIKELY: 1, Sure.POSSIBLE: 2}
# What is at the root comes first: a platform's refusal or a service that is not there, then what fails when it runs.
_ROOTS = ("MSP-P2", "MSP-P31", "MSP-P32", "MSP-A", "MSP-V", "MSP-P1", "MSP-K", "MSP-P3", "MSP-E")


def diagnose(evidence: Evidence, now: datetime | None = None, rules: Sequence[Rule] = RULES) -> Verdict:
    """The verdict on the evidence of one machine. now: the moment that its times are compared with (default: now)."""
    case = Case(evidence, now)
    tried = [_try(rule, case) for rule in rules]
    found = _distinct([finding for one in tried for finding in one.findings])
    causes = sorted((row for row in found if row.role is Role.CAUSE), key=_rank)
    symptoms = sorted((row for row in found if row.role is Role.SYMPTOM), key=_rank)
    notes = sorted((row for row in found if row.role is Role.NOTE), key=_rank)
    contradictions = sorted((row for row in found if row.role is Role.CONTRADICTION), key=_rank)
    healthy = [row for row in found if row.role is Role.HEALTHY]
    causes = _doubted(causes, contradictions)
    if not causes:  # nothing explains the symptom, so it is the answer
        causes, symptoms = symptoms, []
    kind, leading = _kind(causes, notes, contradictions, healthy)
    also = [*symptoms, *(row for row in notes if row not in leading)]
    code, summary, sure = _headline(kind, leading, contradictions, case)
    asks = _asks(kind, leading, contradictions, case)
    return Verdict(kind, code, summary, sure, leading, also, contradictions, asks, tried, case)


def _try(rule: Rule, case: Case) -> Tried:
    if lacks := rule.missing(case.present):
        return Tried(rule, lacks)
    found = [
        replace(
            finding,
            sure=finding.sure or rule.sure,
            role=finding.role or rule.role,
            place=finding.place or rule.place,
            rule=rule.id,
        )
        for finding in rule.look(case)
    ]
    return Tried(rule, findings=found)


def _distinct(found: Sequence[Finding]) -> list[Finding]:
    """One finding a code; the surer one stays."""
    best: dict[tuple[str, Role | None], Finding] = {}
    for finding in found:
        key = (finding.code.id, finding.role)
        if key not in best or _SURE[finding.sure or Sure.POSSIBLE] < _SURE[best[key].sure or Sure.POSSIBLE]:
            best[key] = finding
    return list(best.values())


def _rank(finding: Finding) -> tuple[int, int, int, str]:
    root = next((number for number, begin in enumerate(_ROOTS) if finding.code.id.startswith(begin)), len(_ROOTS))
    return (_SURE[finding.sure or Sure.POSSIBLE], root, position(finding.place), finding.code.id)


_DOUBTFUL = frozenset({codes.TWO_MACHINES.id, codes.STALE_STATUS.id, codes.STATUS_AGAINST_SERVICE.id,
                       codes.TWO_KERNELS.id, codes.FROM_A_CONTAINER.id})  # fmt: skip
"""Contradictions that take certainty from what rests on several documents, or on status.json."""


def _doubted(causes: list[Finding], contradictions: Sequence[Finding]) -> list[Finding]:
    """Causes that rest on evidence which contradicts itself are likely at most."""
    if not any(row.code.id in _DOUBTFUL for row in contradictions):
        return causes
    lowered = [
        replace(row, sure=Sure.LIKELY) if row.sure is Sure.CERTAIN and _rests_on_status(row) else row for row in causes
    ]
    return sorted(lowered, key=_rank)


def _rests_on_status(finding: Finding) -> bool:
    documents = {row.source.document for row in finding.because if row.source}
    return len(documents) > 1 or any("status" in name for name in documents)


def _kind(
    causes: list[Finding], notes: list[Finding], contradictions: list[Finding], healthy: list[Finding]
) -> tuple[Kind, list[Finding]]:
    decided = [row for row in causes if row.sure is not Sure.POSSIBLE]
    if decided:
        return Kind.CAUSE, causes
    if causes:
        return Kind.CANNOT_TELL, causes
    if any(row.code.id in (codes.TWO_MACHINES.id, "MSP-A113") for row in contradictions):
        return Kind.CANNOT_TELL, []
    if contradictions and (not healthy or any(row.code.id in _DOUBTFUL for row in contradictions)):
        return Kind.CANNOT_TELL, []
    if healthy:
        return Kind.HEALTHY, healthy
    if any(row.code.id in _ANSWERS for row in notes):
        return Kind.NOTE, [row for row in notes if row.code.id in _ANSWERS]
    return Kind.CANNOT_TELL, []


_ANSWERS = frozenset({"MSP-K105", codes.RESET_NOT_INCREASING.id, codes.RESET_PENDING.id, codes.AUDIT_ONLY.id,
                      codes.AGENT_OLD_CLOUD_INIT.id, codes.AGENT_DISABLED.id})  # fmt: skip
"""Notes that answer the question by themselves, where nothing else was found."""


def _headline(
    kind: Kind, leading: Sequence[Finding], contradictions: Sequence[Finding], case: Case
) -> tuple[Code, str, Sure]:
    if leading:
        best = leading[0]
        return best.code, best.summary, best.sure or Sure.POSSIBLE
    if contradictions:
        best = contradictions[0]
        return best.code, best.summary, best.sure or Sure.POSSIBLE
    if not any(type(fact) in _TELLING for fact in case.evidence.facts):
        return codes.NO_EVIDENCE, codes.NO_EVIDENCE.cause, Sure.CERTAIN
    return codes.CANNOT_TELL, _what_is_known(case), Sure.CERTAIN


_TELLING = frozenset(kind for kind in vars(f).values()
                     if isinstance(kind, type) and issubclass(kind, f.Fact)
                     and kind not in (f.Fact, f.Identity, f.CommandOutput))  # fmt: skip


def _what_is_known(case: Case) -> str:
    """Why the evidence does not decide: which parts of the guide's chain it shows."""
    rows = [f"{name} {part[0].status or 'without a status'}" for name, part in case.parts.items()]
    if rows:
        return "Nothing wrong is shown, and not that all is well: " + ", ".join(rows[:5]) + "."
    if words := next((line for said in case.standing.values() if (line := first_line(said.text, 160))), ""):
        return f"The agent says `{words}`; the rest of its status is not shown."
    if case.unit and case.unit.active == "active":
        return "The agent's service runs; whether it is set up and holds a key, only its status.json would show."
    if case.model:
        enabled = {True: "enables MSP", False: "does not enable MSP", None: "has no ProxyAgentSettings"}[case.wants_msp]
        return f"The VM model {enabled}; what the agent does is not shown: its status.json, log or service's state."
    return "None of this shows what the agent does: its status.json, its log or its service's state."


def _asks(kind: Kind, leading: Sequence[Finding], contradictions: Sequence[Finding], case: Case) -> tuple[Ask, ...]:
    """What is missing, in the guide's order: what would decide between causes, else the guide's own questions."""
    asks: dict[str, Ask] = {}
    for finding in (*leading, *contradictions):
        for ask in finding.asks:
            asks.setdefault(ask.command, ask)
    if kind is Kind.CANNOT_TELL and len(asks) < 2:
        for ask in _general(case):
            asks.setdefault(ask.command, ask)
    answered = {" ".join(row.command.split()) for row in case.of(f.CommandOutput) if row.output}
    return tuple(ask for ask in asks.values() if ask.command not in answered)[:MOST_ASKS]


def _general(case: Case) -> list[Ask]:
    """The guide's way through an existing VM, without what the evidence has."""
    rows: list[Ask] = []
    windows = case.system == "windows"
    if not case.statuses:
        rows.append(_WINDOWS_STATUS if windows else keys.STATUS)
    if windows:
        rows += [ask for ask in SC if ask.command.split()[-1].casefold() not in case.service]
        return rows
    if not case.unit:
        rows.append(SYSTEMCTL)
    if case.statuses and not case.state("secureChannelState"):
        rows.append(keys.STATUS)
    if not case.kernel:
        rows.append(RELEASE)
    if not case.running(EBPF):
        rows += [ASKS[name] for name, kind in (("filesystems", f.Filesystems), ("mounts", f.Mounts))
                 if not case.of(kind)]  # fmt: skip
    elif not case.of(f.CgroupPrograms):
        rows.append(ASKS["tree"])
    return rows


_WINDOWS_STATUS = Ask(r"type C:\WindowsAzure\ProxyAgent\Logs\status.json", keys.STATUS.asks, keys.STATUS.decides)
