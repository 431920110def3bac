"""What changed since the last image: its Report beside this one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from harness.errors import HarnessError, errno_text
from harness.report import Outcome, Report, Result, json
from harness.report.compare import Change, diff

_OWN = ("baseline", "policy", "depth")
"""Groups that are about the check and not about the image."""

_WORST_LAST = (Outcome.PASS, Outcome.SKIP, Outcome.WARN, Outcome.ERROR, Outcome.FAIL)
_LARGEST = 64 << 20  # bytes of a Report


def read(path: Path) -> Report:
    """The Report of the last image, as --json wrote it. Raises HarnessError."""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST)
    except OSError as error:
        number = error.errno or 0
        raise HarnessError(f"read the baseline {path}", errno_text(number), errno=number) from error
    return json.load(content.decode("utf-8", "replace"))


def compared(before: Report, after: Report) -> Iterator[Result]:
    """baseline.worse and baseline.changed: what is worse than it was, and what else is not the same."""
    changes = diff(_image(before), _image(after))
    worse = [change for change in changes if _worse(change)]
    others = [change for change in changes if change not in worse]
    yield _told("baseline.worse", "Nothing is worse than in the last image", worse, Outcome.WARN)
    yield _told("baseline.changed", "What else changed since the last image", others, Outcome.PASS)


def _image(report: Report) -> Report:
    return replace(report, results=[result for result in report.results if result.group not in _OWN])


def _worse(change: Change) -> bool:
    """What was never looked at before is worse only where something is wrong with it."""
    before = Outcome.PASS if change.before is None else change.before
    return change.after is not None and _WORST_LAST.index(change.after) > _WORST_LAST.index(before)


def _told(id: str, title: str, changes: Sequence[Change], outcome: Outcome) -> Result:
    named = ", ".join(change.id for change in changes)
    return Result(
        id,
        title,
        outcome if changes else Outcome.PASS,
        f"{len(changes)}: {named}" if changes else "nothing",
        evidence={
            change.id: {
                "before": change.before,
                "after": change.after,
                "differs": list(change.fields),
                "says": change.summary,
            }
            for change in changes
        },
        remedy="look at each: `-v` shows before and after" if changes and outcome is Outcome.WARN else None,
    )
