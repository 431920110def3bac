"""A matrix as GitHub's Markdown, for the summary of a CI job: the table, what changed, the floors, what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.kernel.probes import Answer
from harness.matrix.abilities import ABILITIES, WAYS, word
from harness.matrix.differences import Difference, Kind, sentence
from harness.matrix.floors import Floor, floors, together
from harness.matrix.model import Cell, Matrix, headline
from harness.report import Outcome
from harness.report.markdown import MARKS, code, details, escape
from harness.report.text import counts, duration

_ROOM = 900_000  # characters: GitHub refuses a summary of more than 1 MiB
_WAY_MARKS = {Answer.YES: "✓", Answer.NO: "✗", Answer.UNKNOWN: "?"}
_KIND_MARKS = {Kind.WORSE: "❌", Kind.FIXED: "✅", Kind.CHANGED: "🔁", Kind.NEW: "➕", Kind.GONE: "➖"}


def render(matrix: Matrix, found: Sequence[Difference] | None = None, against: str = "") -> str:
    """found: the differences from `against` (a baseline, the last run); None where there is nothing to compare with."""
    outcome, said = headline(matrix)
    lines = [f"## {MARKS[outcome]} {escape(said)}", ""]
    lines += [f"{len(matrix.cells)} cells in {duration(matrix.seconds)}, {matrix.reused} of them kept from before · "
              f"msp-harness {escape(matrix.harness_version)}", ""]  # fmt: skip
    lines += _table(matrix)
    if found is not None:
        lines += [f"### Compared with {escape(against)}: {sentence(found)}", "", *_differences(found)]
    lines += ["### Floors, as measured", "", *_floors(floors(matrix))]
    text = "\n".join(lines)
    for part in _wrong(matrix):
        if len(text) + len(part) > _ROOM:
            return text + "\n(more is left out here; the JSON and HTML reports have it)\n"
        text += "\n" + part
    return text.rstrip("\n") + "\n"


def _table(matrix: Matrix) -> list[str]:
    heads = [code(program.name) for program in matrix.programs]
    lines = ["| kernel | release | " + " | ".join(heads) + " |", "|---|---|" + "---|" * len(heads)]
    for row in matrix.rows:
        cells = [_cell(matrix.cell(row, program)) for program in matrix.programs]
        lines.append(f"| {code(row.name)} | {escape(row.release)} | " + " | ".join(cells) + " |")
    shown = ", ".join(WAYS.values())
    return [*lines, "", f"Under each verdict: attached by {shown}. ✓ yes, ✗ no, ? not known.", ""]


def _cell(cell: Cell) -> str:
    ways = [
        f"{WAYS[ability.name]} {_WAY_MARKS[ability.ask(cell.report).answer]}"
        for ability in ABILITIES
        if ability.name in WAYS
    ]
    told = escape(counts(cell.report))
    return f"{MARKS[cell.outcome]} **{word(cell.report)}**, {told}<br><sub>{' '.join(ways)}</sub>"


def _differences(found: Sequence[Difference]) -> list[str]:
    lines = []
    for one in found:
        names = code(one.ids[0]) if len(one.ids) == 1 else ""
        change = f" ({one.before or 'none'} → {one.after or 'none'})" if one.before or one.after else ""
        place = f"{code(one.row)} × {code(one.program)}"
        lines.append(f"- {_KIND_MARKS[one.kind]} {one.kind}: {place} {names}{change}: {escape(one.summary)}")
    return [*lines, ""] if lines else []


def _floors(found: Sequence[Floor]) -> list[str]:
    lines = ["| program | it | measured | documented |", "|---|---|---|---|"]
    for phrase, floor in together(found):
        name = code(floor.program) + (f" on {escape(floor.variation)}" if floor.variation else "")
        measured = escape(floor.text)
        measured += f"<br>refusal: {escape(floor.reason)}" if floor.reason else ""
        measured += f"<br>lab kernels: {escape(floor.altered)}" if floor.altered else ""
        beside = f"<br>{escape(floor.beside)}" if floor.beside else ""
        lines.append(f"| {name} | {escape(phrase)} | {measured} | {floor.documented}{beside} |")
    return [*lines, ""]


def _wrong(matrix: Matrix) -> Iterator[str]:
    """Each result that failed or could not be found out, with its evidence."""
    for cell in matrix.cells:
        bad = [result for result in cell.report.results if result.outcome in (Outcome.FAIL, Outcome.ERROR)]
        if bad:
            lines = [f"### {MARKS[cell.outcome]} {escape(cell.program)} on {escape(cell.row)}", ""]
            yield "\n".join([*lines, *(line for result in bad for line in details(result, level=4))])
