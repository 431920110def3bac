"""What a provisioned boot shows: its report, the platform's outcome, the guide's row and the prediction, the race."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from harness.image.azure.observation import Asked
from harness.image.azure.outcome import End
from harness.image.predict import Provisions
from harness.msp import guide
from harness.report import Outcome, Result
from harness.report.model import Json

if TYPE_CHECKING:
    from harness.image.azure.check import Boot

PREDICTION = "prediction.outcome"
_REQUESTS = 20  # to IMDS, that are kept
MODEL = "the platform's outcome is a model of ours: with MSP on, `ready` counts once the key is latched"


def results(boot: Boot, before: Sequence[Result]) -> Iterator[Result]:
    yield _report(boot)
    yield _outcome(boot)
    yield _row(boot, before)
    yield _timeline(boot)


def _report(boot: Boot) -> Result:
    id, title = "full.report", "What its provisioning reports"
    rows: list[Json] = [
        {
            "seconds": round(row.at, 2),
            "state": row.report.state,
            "substatus": row.report.substatus,
            "description": row.report.description,
        }
        for row in boot.seen.reports
    ]
    if not rows:
        return Result(id, title, Outcome.FAIL, f"nothing: {boot.seen.stopped} ({boot.seen.limit})")
    first = boot.seen.reports[0].report
    told = first.state + (f": {first.reason}" if first.reason else "")
    outcome = Outcome.PASS if first.ready else Outcome.FAIL
    evidence: dict[str, Json] = {"state": first.state, "reason": first.reason}
    observed: dict[str, Json] = {"reports": rows, "clients": list(boot.seen.provisioners)}
    return Result(id, title, outcome, told, evidence, observed, guide=guide.NEW_VM_LINUX)


def _outcome(boot: Boot) -> Result:
    id, title, end = "full.outcome", "The outcome that the platform would give", boot.end
    evidence: dict[str, Json] = {"outcome": str(end.end), "code": end.code, "portal": end.portal, "model": MODEL}
    observed: dict[str, Json] = {
        "ready_seconds": _rounded(end.ready_at),
        "latched_seconds": _rounded(end.latched_at),
        "margin_seconds": _rounded(end.margin),
    }
    if end.end is End.PROVISIONED:
        return Result(id, title, Outcome.PASS, "it provisions", evidence, observed)
    found = boot.happened.code
    remedy, code = (found.remedy, found.id) if found else (None, None)
    return Result(id, title, Outcome.FAIL, end.portal, evidence, observed, remedy, guide.NEW_VM_LINUX, code)


def _row(boot: Boot, before: Sequence[Result]) -> Result:
    id, title, happened = "full.row", "The row of the guide's table that it is, and the prediction", boot.happened
    predicted = next((result for result in before if result.id == PREDICTION), None)
    expected = predicted.evidence if predicted else {}
    evidence: dict[str, Json] = {
        "row": happened.number,
        "predicted row": expected.get("row"),
        "predicted to provision": expected.get("will provision"),
        "provisions": boot.end.end is End.PROVISIONED,
        "Expected Failure": happened.row.failure if happened.row else None,
        "Cause": happened.row.cause if happened.row else None,
    }
    what = f"row {happened.number} of the guide's table: {happened.why}" if happened.row else happened.why
    outcome, against = compared(boot, expected)
    code = happened.code
    remedy = code.remedy if code else None
    return Result(
        id, title, outcome, f"{what}; {against}", evidence, {}, remedy, guide.NEW_VM_LINUX, code.id if code else None
    )


def compared(boot: Boot, expected: Mapping[str, Json]) -> tuple[Outcome, str]:
    """What happened against the evidence of `prediction.outcome`; empty where there was none."""
    provisioned, number = boot.end.end is End.PROVISIONED, boot.happened.number
    outcome = Outcome.PASS if provisioned else Outcome.FAIL
    will, row = expected.get("will provision"), expected.get("row")
    if will is None or will == Provisions.UNKNOWN:
        return outcome, "there is no prediction to compare with"
    if provisioned and will == Provisions.MAYBE:
        return Outcome.WARN, f"the race of row {row}, won this time: `--repeat N` shows how often it is lost"
    right = will == Provisions.YES if provisioned else will != Provisions.YES and (number == row or row is None)
    if right:
        return outcome, "as predicted"
    told = f"row {row}, provisions: {will}" if row else f"provisions: {will}"
    return Outcome.FAIL, f"NOT as predicted ({told})"


def _timeline(boot: Boot) -> Result:
    id, title, line = "full.timeline", "Agent and provisioning side by side", boot.timeline
    rows: list[Json] = [
        {"seconds": round(row.at, 3), "side": row.side, "who": row.who, "what": row.what} for row in line.rows
    ]
    observed: dict[str, Json] = {
        "rows": rows,
        "lines": [row.text() for row in line.rows],
        "clock_offset_seconds": _rounded(line.offset),
        "imds": [_asked(row) for row in boot.seen.asked if row.endpoint == "imds"][:_REQUESTS],
    }
    summary = order(boot)
    if line.unsaid:
        return Result(id, title, Outcome.SKIP, f"{summary}; {line.unsaid}", {}, observed)
    return Result(id, title, Outcome.PASS, summary, {}, observed)


def _asked(row: Asked) -> Json:
    """A request as the evidence has it, with its headers."""
    headers: list[Json] = [f"{name}: {value}"[:400] for name, value in row.headers]
    return {
        "seconds": round(row.at, 3),
        "request": f"{row.method} {row.target}"[:400],
        "status": row.status,
        "through the agent": row.through_agent,
        "headers": headers,
    }


def order(boot: Boot) -> str:
    """Which came first, in a sentence."""
    ready, latched = boot.end.ready_at, boot.end.latched_at
    if ready is None and latched is None:
        return "neither a ready report nor a latched key was seen"
    if latched is None:
        return f"ready after {ready:.1f} s; a key was never latched"
    if ready is None:
        return f"the key was latched after {latched:.1f} s; ready was never reported"
    if ready < latched:
        return f"ready after {ready:.1f} s, {latched - ready:.1f} s before the key was latched"
    return f"the key was latched after {latched:.1f} s, {ready - latched:.1f} s before ready"


def rate(boots: Sequence[Boot], wanted: int) -> Result:
    """How often the race was lost."""
    lost = [boot for boot in boots if boot.end.end is not End.PROVISIONED]
    rows: list[Json] = [
        {
            "outcome": str(boot.end.end),
            "ready_seconds": _rounded(boot.end.ready_at),
            "latched_seconds": _rounded(boot.end.latched_at),
            "margin_seconds": _rounded(boot.end.margin),
        }
        for boot in boots
    ]
    percent = round(100 * len(lost) / len(boots))
    observed: dict[str, Json] = {"boots": rows, "failed": len(lost), "percent": percent}
    summary = f"{len(lost)} of {len(boots)} boots would fail to provision ({percent} %)"
    title = "How often it fails to provision"
    if len(boots) < wanted:
        return Result("full.rate", title, Outcome.ERROR, f"{summary}; {wanted} were to be made", {}, observed)
    outcome = Outcome.FAIL if lost else Outcome.PASS
    return Result("full.rate", title, outcome, summary, {}, observed, guide=guide.NEW_VM_LINUX)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
