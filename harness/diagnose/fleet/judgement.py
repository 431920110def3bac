"""One bundle's verdict as a row: what a fleet's summary counts."""

from __future__ import annotations

import json
import re
import traceback
from dataclasses import astuple, dataclass, fields

from harness.diagnose import facts as f
from harness.diagnose.fleet.bundles import Bundle
from harness.diagnose.intake import Intake, read
from harness.diagnose.limits import LIMITS
from harness.diagnose.streams import Stream
from harness.diagnose.verdict import Kind, Verdict, diagnose
from harness.errors import HarnessError
from harness.report.text import visible

UNREADABLE = "unreadable"
"""The kind of a bundle that could not be read; else a Kind of harness.diagnose.verdict."""

UNKNOWN_WORDS = "MSP-P302"
"""A part of the agent does not run, with words that no rule knows."""


@dataclass(frozen=True, slots=True)
class Row:
    """Texts are "" where the evidence does not say; also and contradictions are JSON lists of codes."""

    name: str
    stamp: str
    kind: str
    code: str
    summary: str
    sure: str
    place: str  # in the guide
    kernel: str
    distribution: str
    agent: str
    also: str
    contradictions: str
    unexplained: str  # the message that no rule explains, masked
    notes: int  # what was left out of the bundle or not understood

    def values(self) -> tuple[str | int, ...]:
        return astuple(self)


COLUMNS = tuple(field.name for field in fields(Row))


def judge(bundle: Bundle) -> Row:
    """The row of a bundle. Never raises for what is in it: what goes wrong is the row."""
    try:
        if bundle.problem:
            return _unreadable(bundle, bundle.problem)
        return _row(bundle, diagnose(_evidence(bundle)))
    except HarnessError as error:
        return _unreadable(bundle, str(error))
    except Exception:  # a defect of ours must not cost the other million
        return _unreadable(bundle, f"a defect of the harness: {traceback.format_exc().splitlines()[-1]}")


def _evidence(bundle: Bundle) -> f.Evidence:
    if bundle.path is not None:
        return read([bundle.path])
    intake = Intake(LIMITS)
    for name, data in bundle.documents:
        intake.guarded(name, Stream(iter([data])))
    return intake.evidence()


def _unreadable(bundle: Bundle, problem: str) -> Row:
    name = visible(bundle.name)
    return Row(name, bundle.stamp, UNREADABLE, "", visible(problem), "", "", "", "", "", "[]", "[]", "", 1)


def _row(bundle: Bundle, found: Verdict) -> Row:
    case = found.case
    status = case.status
    return Row(
        name=visible(bundle.name),
        stamp=bundle.stamp,
        kind=str(found.kind),
        code=found.code.id,
        summary=visible(found.summary),
        sure=str(found.sure),
        place=(found.best.place if found.best else None) or found.code.guide or "",
        kernel=visible(case.release or ""),
        distribution=_distribution(case.os),
        agent=visible((status.status.version if status else None) or ""),
        also=json.dumps([row.code.id for row in found.findings[1:]]),
        contradictions=json.dumps([row.code.id for row in found.contradictions]),
        unexplained=_unexplained(found),
        notes=len(found.evidence.notes),
    )


def _distribution(release: f.OsRelease | None) -> str:
    if release is None:
        return ""
    return visible(release.pretty or " ".join(filter(None, (release.id, release.version))))


MASKS = tuple(
    (re.compile(pattern), placeholder)
    for pattern, placeholder in (
        (r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b", "<guid>"),
        (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?", "<time>"),
        (r"\b0x[0-9a-fA-F]+\b|\b[0-9a-fA-F]{16,}\b", "<hex>"),
        (r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b", "<address>"),
        (r"(?<![A-Za-z])\d+", "<n>"),
    )
)
"""What differs from machine to machine, so that the same message falls into one group."""

_LONGEST = 240  # characters of a masked message


def mask(message: str) -> str:
    """The message with what differs from machine to machine replaced, on one line, of bounded length."""
    text = " ".join(message.split())[: 4 * _LONGEST]
    for pattern, placeholder in MASKS:
        text = pattern.sub(placeholder, text)
    return text[:_LONGEST]


def _unexplained(found: Verdict) -> str:
    """What the agent or the platform says and no rule explains."""
    if found.kind is not Kind.CANNOT_TELL and found.code.id != UNKNOWN_WORDS:
        return ""
    case = found.case
    for part, said in case.standing.items():
        if said.form is None and not case.running(part):
            return mask(f"{part}: {said.text}")
    for error in case.of(f.ProvisioningError):
        return mask(f"{error.code}: {error.message or ''}")
    for report in case.of(f.ProvisioningReport):
        if report.result != "success":
            return mask(f"provisioning report: {report.reason or ''}")
    for event in case.of(f.AgentLogEvent):
        if (event.level or "").upper().startswith("ERR"):
            return mask(event.message)
    for status in case.of(f.ExtensionStatus):
        if (status.status or "").lower() == "error":
            return mask(f"extension: {status.message or ''}")
    return ""
