"""From evidence to the failure itself: which recipe brings about what the diagnosis names, on which kernel, and
whether its message is the customer's.

The kernel is the bundle's own where there is one to boot: of the cache, or of the Debian suite that its release names;
else a lab kernel that lacks the same thing, else the running one. What differs from boot to boot is masked (msp.mask).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from harness.diagnose.case import KEY
from harness.diagnose.rule import Finding
from harness.diagnose.verdict import Verdict
from harness.errors import HarnessError
from harness.failures import wording
from harness.failures.table import FAILURES
from harness.kernel import facts
from harness.msp import mask, messages
from harness.msp.messages import Form
from harness.report.model import Json, Outcome, Report, Result
from harness.vm import inventory, spec
from harness.vm.kernels import Kernel

ID = "reproduce.from"
HERE = "here"

# Where a code has several recipes or none of its own, or another code's shows the same.
_RECIPES: Mapping[str, tuple[str, ...]] = {
    "MSP-V101": ("load-helper-not-allowed",),
    "MSP-V105": ("load-stack-uninitialised",),
    "MSP-V204": ("load-no-cap-bpf",),
    "MSP-A101": ("attach-tmpfs",),
    "MSP-A106": ("attach-exclusive-same-link",),
    "MSP-A112": ("attach-tmpfs", "attach-no-cgroup2", "attach-hybrid", "attach-exclusive-same-link"),
    "MSP-A206": ("applied-first-mount",),
    "MSP-E109": ("applied-detached",),
    "MSP-K108": ("key-refused",),
    "MSP-K102": ("key-refused",),
    "MSP-K109": ("key-moved-disk",),
    "MSP-K110": ("key-reset-equal",),
    "MSP-K103": ("key-rejected",),
    "MSP-P303": ("applied-proxy-down",),
}
_PID_TGID = "bpf_get_current_pid_tgid"
_SUITES = (("5.10.", "bullseye"), ("6.1.", "bookworm"), ("6.12.", "trixie"))
_LAB = {
    "guide-pid-tgid": "lab:no-pid-tgid",
    "attach-no-link": "lab:no-cgroup-link",
    "attach-no-cgroup2-kernel": "lab:no-cgroup2",
}
"""Lab kernels that lack what these failures need to be missing."""


@dataclass(frozen=True)
class Plan:
    """What is to be brought about, and where. kernel None: on the running kernel."""

    names: tuple[str, ...]
    kernel: Kernel | None
    where: str  # for people: which kernel, and why that one
    message: str  # the customer's; empty where there is none
    why_not: str = ""  # no recipe


def plan(verdict: Verdict, tell: Callable[[str], None] = lambda line: None) -> Plan:
    """What reproduces a verdict's first finding. Raises nothing: what cannot be had is said in `where`."""
    finding = verdict.best
    names = recipes(finding) if finding else ()
    message = _customers(verdict, finding)
    if not names:
        what = f"{verdict.code.id} ({verdict.code.title})"
        return Plan((), None, HERE, message, f"no recipe brings about {what}: it is not of the kernel or of a key")
    kernel, where = _kernel(names, verdict.case.release, tell)
    return Plan(names, kernel, where, message)


def recipes(finding: Finding) -> tuple[str, ...]:
    """The names of the failures that are this finding."""
    text = " ".join([finding.answers, finding.summary, *(row.shows for row in finding.because)])
    if finding.code.id in ("MSP-V101", "MSP-V201") and (_PID_TGID in text or "guide" in text):
        return ("guide-pid-tgid",)
    if finding.code.id in _RECIPES:
        return _RECIPES[finding.code.id]
    return tuple(failure.name for failure in FAILURES if failure.code.id == finding.code.id)[:1]


def _customers(verdict: Verdict, finding: Finding | None) -> str:
    if finding and finding.answers:
        return finding.answers
    said = verdict.case.standing.get(KEY)
    return said.text if said and finding and finding.code.id.startswith("MSP-K") else ""


def _kernel(names: Sequence[str], release: str | None, tell: Callable[[str], None]) -> tuple[Kernel | None, str]:
    """The kernel to boot and why; None: this one."""
    live = facts.release()
    if release == live:
        return None, f"this kernel is the bundle's, {release}"
    reasons: list[str] = []
    for text, why in _candidates(names, release):
        try:
            return spec.resolve(text, tell=tell), why
        except HarnessError as error:
            reasons.append(f"{text}: {error.happened}")
    told = f"the bundle's kernel {release} is not to be had here" if release else "the bundle names no kernel"
    return None, f"{told}: on this kernel, {live}" + (f" ({'; '.join(reasons)})" if reasons else "")


def _candidates(names: Sequence[str], release: str | None) -> Iterator[tuple[str, str]]:
    """What may be named to spec.resolve(), the best first."""
    kept = {name: entry for entry in inventory.listed() if entry.kernel for name in entry.specs}
    if release:
        for name, entry in kept.items():
            if entry.kernel and entry.kernel.release == release:
                yield name, f"the bundle's own kernel, {release}, of the cache"
        if suited := _suite(release):
            yield suited, f"the bundle's own kernel, {release}, as Debian ships it"
    for name in names:
        lab = _LAB.get(name)
        if lab in kept and lab:
            yield lab, f"a lab kernel that lacks the same, {lab}"


def _suite(release: str) -> str | None:
    """`bookworm/6.1.0-44` for `6.1.0-44-cloud-amd64`; None for a release that is not Debian's."""
    match = re.fullmatch(r"(\d[\w.+]*(?:-\d+)?)(-cloud)?-(?:amd64|arm64)", release)
    suite = next((name for begin, name in _SUITES if release.startswith(begin)), None)
    if not match or not suite:
        return None
    return f"{suite}/{match[1]}{'' if match[2] else ':generic'}"


def compared(planned: Plan, results: Sequence[Result]) -> Result:
    """Whether the message that came about is the customer's, after masking."""
    title = "The customer's failure, brought about here"
    evidence: dict[str, Json] = {"kernel": planned.where, "customer's message": planned.message or "none"}
    if planned.why_not:
        return Result(ID, title, Outcome.SKIP, planned.why_not, evidence)
    done = [result for result in results if result.outcome is Outcome.PASS]
    if not done:
        reason = results[0].summary if results else "nothing was run"
        return Result(ID, title, Outcome.SKIP, f"not brought about: {reason}", evidence)
    if not planned.message:
        names = ", ".join(result.id.partition(".")[2] for result in done)
        return Result(ID, title, Outcome.PASS, f"{names} brought about; the bundle has no message to compare", evidence)
    answers = [(result, *same(planned.message, *_ours(result))) for result in done]
    equal = [result for result, grade, _ in answers if grade is Grade.EQUAL]
    evidence["comparison"] = {result.id: said for result, _, said in answers}
    evidence["mask"] = mask.mask_text().splitlines()
    if equal:
        names = ", ".join(result.id.partition(".")[2] for result in equal)
        several = f": {len(equal)} failures give it, as the diagnosis says" if len(equal) > 1 else ""
        return Result(ID, title, Outcome.PASS, f"{names}: the message equals the customer's{several}", evidence)
    result, grade, said = next((row for row in answers if row[1] is Grade.CONTAINED), answers[0])
    name = result.id.partition(".")[2]
    if grade is Grade.CONTAINED:
        return Result(
            ID, title, Outcome.PASS, f"{name}: all of the customer's message came, and more: {said}", evidence
        )
    return Result(ID, title, Outcome.WARN, f"{name}: brought about, with another message: {said}", evidence)


class Grade(StrEnum):
    """CONTAINED: every line of the customer's verifier log, in its order, among others that this kernel prints too."""

    EQUAL = "equal"
    CONTAINED = "contained"
    ANOTHER = "another"


def _ours(result: Result) -> tuple[str, str]:
    """The message that the agent gives for what came about, cut as the agent cuts, and the verifier's log, whole."""
    return str(result.evidence.get("message") or ""), str(result.evidence.get("log") or "")


def same(theirs: str, ours: str, log: str = "") -> tuple[Grade, str]:
    """Whether two of the agent's messages are equal after masking, and in what they are not. log: ours, uncut."""
    one, other = messages.parse(theirs), messages.parse(ours)
    if not one or not other:
        equal = _flat(theirs) == _flat(ours) != ""
        return (Grade.EQUAL, "equal") if equal else (Grade.ANOTHER, f"ours: {ours[:200] or 'no message'}")
    if one.form is not other.form:
        return Grade.ANOTHER, f"another form: {other.text[:200]}"
    if one.form is Form.LOAD:
        return _same_logs(one.fields["log"], log or other.fields["log"])
    left = {name: _flat(value) for name, value in one.fields.items()}
    right = {name: _flat(value) for name, value in other.fields.items()}
    parts = [f"{name}: {value!r}, ours {right[name]!r}" for name, value in left.items() if value != right[name]]
    return (Grade.ANOTHER, "; ".join(parts)) if parts else (Grade.EQUAL, "equal, word for word")


def _same_logs(theirs: str, ours: str) -> tuple[Grade, str]:
    """Line by line as far as the customer's goes, which may have been cut at 1,024 bytes."""
    left = [line for line in wording.stable(theirs).splitlines() if line.strip()]
    right = [line for line in wording.stable(ours).splitlines() if line.strip()]
    comparison = mask.diff(left, right)
    told = f"{comparison.same} of {comparison.guide_total} lines of the verifier's log are equal"
    lacking = [line.guide for line in comparison.lines if line.guide is not None and not line.same]
    more = [line.ours for line in comparison.lines if line.ours is not None and line.guide is None]
    if lacking:
        return Grade.ANOTHER, f"{told}; only in the customer's: {lacking[0].strip()}"
    if more:
        return Grade.CONTAINED, f"{told}; {len(more)} more in ours: {'; '.join(line.strip() for line in more[:3])}"
    return Grade.EQUAL, told


def _flat(text: str) -> str:
    return mask.masked(" ".join(wording.stable(text).split())).removesuffix(messages.CUT_MARK)


def finished(planned: Plan, report: Report) -> Report:
    """The report of the run with the comparison behind its results; a name stands for those that begin with it, too."""
    wanted = {f"reproduce.{name}" for name in planned.names}
    results = [row for row in report.results if row.id in wanted or not row.id.startswith("reproduce.")]
    return replace(report, results=(*results, compared(planned, results)))
