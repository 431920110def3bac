"""A matrix as one self-contained HTML page: verdict, matrix, what changed, floors; each cell opens its evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.checks.verify import verdict
from harness.kernel.probes import Answer
from harness.matrix.abilities import ABILITIES, WAYS, loads, word
from harness.matrix.differences import Difference, Kind, sentence
from harness.matrix.floors import Floor, floors, together
from harness.matrix.model import Cell, Matrix, Row, headline
from harness.report import Outcome, page

_PACKAGE = "harness.matrix"

ANSWER_MARKS = {Answer.YES: "✓", Answer.NO: "✗", Answer.UNKNOWN: "?"}
ANSWER_WORDS = {Answer.YES: "yes", Answer.NO: "no", Answer.UNKNOWN: "not known"}
KIND_MARKS = {Kind.WORSE: "✗", Kind.FIXED: "✓", Kind.CHANGED: "≠", Kind.NEW: "+", Kind.GONE: "−"}
KIND_TONES = {Kind.WORSE: "FAIL", Kind.FIXED: "PASS", Kind.CHANGED: "WARN", Kind.NEW: "SKIP", Kind.GONE: "SKIP"}

_COLUMNS = "\n.matrix { --columns: %d; }\n"


@dataclass(frozen=True)
class _Way:
    name: str
    mark: str
    word: str
    said: str
    tone: str


@dataclass(frozen=True)
class _Shown:
    """A cell with all that the page says of it."""

    cell: Cell
    row: Row
    word: str
    verdict: str
    ways: Sequence[_Way]


_TONES = {Answer.YES: "PASS", Answer.NO: "FAIL", Answer.UNKNOWN: "SKIP"}


def render(matrix: Matrix, found: Sequence[Difference] | None = None, against: str = "") -> str:
    """The page; ends with a newline. found: the differences from `against`; None where there is nothing to compare."""
    outcome, said = headline(matrix)
    return page.render(
        "matrix.html",
        _PACKAGE,
        style="\n" + page.template("matrix.css", _PACKAGE) + _COLUMNS % len(matrix.programs),
        matrix=matrix,
        rows=[(row, [_shown(matrix, row, program.name) for program in matrix.programs]) for row in matrix.rows],
        outcome=outcome,
        said=said,
        tally=[(one, matrix.count(one)) for one in _ORDER if matrix.count(one)],
        found=found,
        against=against,
        changes=sentence(found or ()),
        groups=_floor_groups(floors(matrix)),
        kind_marks=KIND_MARKS,
        kind_tones=KIND_TONES,
    )


_ORDER = (Outcome.FAIL, Outcome.ERROR, Outcome.WARN, Outcome.PASS, Outcome.SKIP)


def _shown(matrix: Matrix, row: Row, program: str) -> _Shown:
    cell = matrix.by_place[row.name, program]
    asked = [(WAYS[one.name], one.ask(cell.report)) for one in ABILITIES if one.name in WAYS]
    ways = [
        _Way(name, ANSWER_MARKS[said.answer], ANSWER_WORDS[said.answer], said.said, _TONES[said.answer])
        for name, said in asked
    ]
    return _Shown(cell, row, word(cell.report), _sentence(cell), ways)


def _sentence(cell: Cell) -> str:
    """What was found, in one: why there is no answer, why the kernel refuses it, or the verdict of `verify`."""
    guest = next((one for one in cell.report.results if one.group == "guest" and one.outcome is Outcome.ERROR), None)
    if guest is not None:
        return guest.summary
    loading = loads(cell.report)
    return f"{word(cell.report)}: {loading.said}" if loading.answer is Answer.NO else verdict(cell.report)


def _floor_groups(found: Sequence[Floor]) -> list[tuple[str, str, list[tuple[str, Floor]]]]:
    """Program and kind of machine, with what was measured of its abilities."""
    told = together(found)
    places = dict.fromkeys((floor.program, floor.variation) for floor in found)
    return [
        (program, variation, [one for one in told if (one[1].program, one[1].variation) == (program, variation)])
        for program, variation in places
    ]
