"""What is not the same in two matrices: what got worse, what was mended, what changed, what is new or gone.

Kernels are matched by what was asked for (a suite's newest kernel stays the same row when the suite has a newer one),
results by their ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.matrix.model import BAD, Cell, Matrix
from harness.report import Outcome
from harness.report.compare import Change, diff


class Kind(StrEnum):
    """WORSE: a FAIL or an ERROR that was none before; FIXED: the reverse; CHANGED: any other change of outcome, and a
    failure that says something else; NEW and GONE: results, or whole cells, that are there in one of the two only."""

    WORSE = "worse"
    FIXED = "fixed"
    CHANGED = "changed"
    NEW = "new"
    GONE = "gone"


@dataclass(frozen=True)
class Difference:
    """One of them. ids is empty where it is a whole cell; NEW and GONE are told together for a cell."""

    kind: Kind
    row: str
    program: str
    ids: Sequence[str]
    before: Outcome | None
    after: Outcome | None
    summary: str


def differences(before: Matrix, after: Matrix) -> list[Difference]:
    """All differences, by kind in the order of Kind, within a kind in the order of the matrix."""
    found = list(_all(before, after))
    return [one for kind in Kind for one in found if one.kind is kind]


def worse(found: Sequence[Difference]) -> bool:
    return any(one.kind is Kind.WORSE for one in found)


def sentence(found: Sequence[Difference]) -> str:
    """`2 worse, 1 fixed`."""
    counts = {kind: sum(one.kind is kind for one in found) for kind in Kind}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "nothing changed"


def _all(before: Matrix, after: Matrix) -> Iterator[Difference]:
    for place, cell in after.by_place.items():
        old = before.by_place.get(place)
        yield from _unknown_cell(cell) if old is None else _cell(old, cell)
    for place, cell in before.by_place.items():
        if place not in after.by_place:
            yield Difference(Kind.GONE, *place, (), cell.outcome, None, "it was not measured this time")


def _unknown_cell(cell: Cell) -> Iterator[Difference]:
    """A cell that was not measured before: nothing excuses what fails in it."""
    bad = [result for result in cell.report.results if result.outcome in BAD]
    for result in bad:
        yield Difference(Kind.WORSE, cell.row, cell.program, (result.id,), None, result.outcome, result.summary)
    if not bad:
        yield Difference(Kind.NEW, cell.row, cell.program, (), None, cell.outcome, "it was not measured before")


def _cell(old: Cell, cell: Cell) -> Iterator[Difference]:
    changes = diff(old.report, cell.report)
    for change in changes:
        if change.before is None or change.after is None:
            continue
        kind = _kind(change)
        if kind is not None:
            yield _told(kind, cell, change)
    yield from _alone(Kind.NEW, cell, [change for change in changes if change.before is None])
    yield from _alone(Kind.GONE, cell, [change for change in changes if change.after is None])


def _alone(kind: Kind, cell: Cell, changes: Sequence[Change]) -> Iterator[Difference]:
    """Results that one of the two has: what fails is told one by one, the rest in one sentence."""
    yield from (_told(Kind.WORSE, cell, change) for change in changes if change.after in BAD)
    ids = [change.id for change in changes if change.after not in BAD]
    if ids:
        words = "not there before" if kind is Kind.NEW else "no longer there"
        yield Difference(kind, cell.row, cell.program, ids, None, None, f"{words}: {_few(ids)}")


def _few(ids: Sequence[str]) -> str:
    return ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")


def _kind(change: Change) -> Kind | None:
    """Of a result that is in both; None where nobody needs to hear of it."""
    was, is_now = change.before in BAD, change.after in BAD
    if was and not is_now:
        return Kind.FIXED
    if is_now and not was:
        return Kind.WORSE
    if change.outcome_changed:
        return Kind.CHANGED
    return Kind.CHANGED if is_now and {"summary", "code"} & set(change.fields) else None


def _told(kind: Kind, cell: Cell, change: Change) -> Difference:
    return Difference(kind, cell.row, cell.program, (change.id,), change.before, change.after, change.summary)
