"""The end of what `matrix` prints: what is wrong, the floors, what changed, and the whole in one sentence last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from harness.matrix.differences import Difference, Kind, sentence, worse
from harness.matrix.floors import Floor, floors, together
from harness.matrix.model import BAD, Matrix, headline
from harness.report import Outcome
from harness.report.console import ASCII_MARKS, MARKS, STYLES
from harness.report.text import duration, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_SHOWN = 12  # of what is wrong, and of what changed; the files have all

_KIND_STYLES = {Kind.WORSE: "bold red", Kind.FIXED: "green", Kind.CHANGED: "yellow", Kind.NEW: "dim", Kind.GONE: "dim"}


def lines(
    screen: Console, matrix: Matrix, found: Sequence[Difference] | None, against: str, is_baseline: bool
) -> Iterator[Text]:
    from rich.text import Text

    def text(content: str, style: str = "") -> Text:
        return Text().append(visible(content, screen.encoding), style)  # no base style: what follows has its own

    bad = [(cell, one) for cell in matrix.cells for one in cell.report.results if one.outcome in BAD]
    for cell, one in bad[:_SHOWN]:
        line = text(f"{one.outcome} {cell.row} × {cell.program}: ", STYLES[one.outcome])
        yield line.append_text(text(f"{one.id}: {one.summary}"))
    if len(bad) > _SHOWN:
        yield text(f"and {len(bad) - _SHOWN} more; --json, --html have them", "dim")
    if bad:
        yield text("")
    for program, said in _told(floors(matrix)):
        yield text(f"{program} ", "bold").append_text(text(said))
    if found is not None:
        yield text("")
        yield text(f"compared with {against}: {sentence(found)}", "bold")
        for difference in found[:_SHOWN]:
            names = ", ".join(difference.ids[:3])
            place = f"{difference.row} × {difference.program} {names}".rstrip()
            line = text(f"{difference.kind:8}", _KIND_STYLES[difference.kind])
            yield line.append_text(text(f"{place}: {difference.summary}"))
    yield text("")
    yield _last_line(screen, matrix, found, is_baseline)


def _told(found: Sequence[Floor]) -> Iterator[tuple[str, str]]:
    """Program with what was measured of it."""
    for phrase, floor in together(found):
        beside = f" (documented: {floor.documented}; {floor.beside})" if floor.beside else ""
        altered = f"; lab kernels: {floor.altered}" if floor.altered else ""
        where = f" on a machine with {floor.variation}" if floor.variation else ""
        yield floor.program, f"{phrase}{where}: {floor.text}{beside}{altered}"


def _last_line(screen: Console, matrix: Matrix, found: Sequence[Difference] | None, is_baseline: bool) -> Text:
    from rich.text import Text

    outcome, said = headline(matrix)
    if is_baseline:
        outcome = Outcome.FAIL if worse(found or ()) else Outcome.PASS
        said = f"{sentence(found or ())} compared with the baseline; {said}"
    marks = ASCII_MARKS if screen.options.ascii_only else MARKS
    kept = f", {matrix.reused} of {len(matrix.cells)} kept from before" if matrix.reused else ""
    line = f"{marks[outcome]} {said}"
    text = Text().append(visible(line, screen.encoding), STYLES[outcome])
    return text.append(visible(f" · {duration(matrix.seconds)}{kept}", screen.encoding))
