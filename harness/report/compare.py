"""What changed between two Reports, apart from what differs in every run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.report.model import Outcome, Report, Result


@dataclass(frozen=True)
class Change:
    """One result that is not the same in both Reports; None where it is in one of them only.

    fields names what differs (outcome, summary, evidence …), so that a change of words can be told from one of outcome.
    summary is the second Report's, or the first's where only that one has the result.
    """

    id: str
    before: Outcome | None
    after: Outcome | None
    fields: Sequence[str]
    summary: str = field(default="", compare=False)

    @property
    def outcome_changed(self) -> bool:
        return self.before is not self.after


_FIELDS = ("title", "outcome", "summary", "evidence", "remedy", "guide", "code", "blocking")


def diff(before: Report, after: Report) -> list[Change]:
    """The changes in the order of the second Report, then what only the first one has. Empty: the same findings.

    Times, ids and observed are left out. An id that is there several times is matched in order.
    """
    old, new = _by_id(before), _by_id(after)
    changes = [_change(key[0], old.get(key), result) for key, result in new.items()]
    changes += [_change(key[0], result, None) for key, result in old.items() if key not in new]
    return [change for change in changes if change.fields]


def _by_id(report: Report) -> dict[tuple[str, int], Result]:
    found: dict[tuple[str, int], Result] = {}
    seen: dict[str, int] = {}
    for result in report.results:
        number = seen[result.id] = seen.get(result.id, -1) + 1
        found[result.id, number] = result
    return found


def _change(name: str, old: Result | None, new: Result | None) -> Change:
    fields = [each for each in _FIELDS if getattr(old, each, None) != getattr(new, each, None)]
    newer = new or old
    return Change(
        name, old.outcome if old else None, new.outcome if new else None, fields, newer.summary if newer else ""
    )
