"""A Report for a person at a terminal, or at the end of a pipe.

First everything that was checked, by group; then, last, what needs attention with what to do about it; then one line
that says how it stands. rich does the terminal's part (width, colours, NO_COLOR) and is imported when it is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from harness.report.model import Json, Outcome, Report, Result, exit_code
from harness.report.progress import Progress
from harness.report.text import counts, duration, facts, visible, visible_lines

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

NARROW = 70  # columns; below this a result takes two lines instead of a row of a table
FACTS, LINES, CHARACTERS = 8, 8, 400  # how much of the evidence is shown unless verbose

_STYLES = {
    Outcome.PASS: "green",
    Outcome.FAIL: "bold red",
    Outcome.ERROR: "bold magenta",
    Outcome.WARN: "yellow",
    Outcome.SKIP: "cyan",
}
_PADDING = re.compile(r" +((?:\x1b\[0m)?)$", re.MULTILINE)
_MARKS = {Outcome.PASS: "✓", Outcome.FAIL: "✗", Outcome.ERROR: "!", Outcome.WARN: "▲", Outcome.SKIP: "–"}
_ASCII_PADDING = re.compile(r" +((?:\x1b\[0m)?)$", re.MULTILINE)
_MARKS = {Outcome.PASS: "+", Outcome.FAIL: "x", Outcome.ERROR: "!", Outcome.WARN: "*", Outcome.SKIP: "-"}
_ATTENTION = (Outcome.WARN, Outcome.ERROR, Outcome.FAIL)  # the worst last: a terminal is read from its bottom
_OUTCOME_WIDTH = len("✓ ERROR")


def console(stream: IO[str] | None = None, *, width: int | None = None) -> Console:
    """A rich console on the stream (stdout) that obeys NO_COLOR, COLUMNS, TERM and the stream's encoding."""
    from rich.console import Console

    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


def progress(console: Console, total: int, *, verbose: bool = False) -> Progress:
    """A context manager whose starting(id, title) and finished(result) the runner of the checks calls."""
    return Progress(console, total, verbose=verbose)


def show(console: Console, report: Report, verdict: str, *, verbose: bool = False) -> None:
    """Print the Report. The verdict is one short sentence about the whole; verbose shows all evidence of all results.

    Raises OSError as the stream does: a reader that went away is BrokenPipeError, a full disk ENOSPC.
    """
    # rich would answer a closed pipe by SystemExit(1), so what it renders is written here. It also pads lines.
    with console.capture() as captured:
        for part in _Page(console, verbose).whole(report, verdict):
            console.print(part)
    console.file.write(_PADDING.sub(r"\1", captured.get()))
    console.file.flush()


@dataclass(frozen=True)
class _Page:
    """How the parts of a Report look on one console."""

    console: Console
    verbose: bool

    def whole(self, report: Report, verdict: str) -> Iterator[RenderableType]:
        yield from self.heading(report)
        widths = self.widths(report.results)
        for group, results in report.groups().items():
            yield self.text("")
            yield self.group_line(group, results)
            yield from self.group(results, widths)
        for outcome in _ATTENTION:
            for result in report.results:
                if result.outcome is outcome:
                    yield self.text("")
                    yield from self.details(result)
        yield self.text("")
        yield self.verdict(report, verdict)

    def text(self, content: str, style: str = "") -> Text:
        from rich.text import Text

        return Text(visible(content, self.console.encoding), style=style, overflow="fold")

    def lines(self, content: str, style: str = "") -> Text:
        from rich.text import Text

        return Text("\n".join(visible_lines(content, self.console.encoding)), style=style, overflow="fold")

    def grid(self, *columns: int | None, indent: int = 0) -> Table:
        """A table without lines, with columns of these widths; None takes what is left."""
        from rich.table import Table

        table = Table.grid(padding=(0, 2, 0, 0), expand=True)
        table.pad_edge = False
        if indent:
            table.add_column(width=indent - 2 if indent > 2 else 0)
        for width in columns:
            table.add_column(width=width, ratio=None if width else 1, overflow="fold")
        return table

    def heading(self, report: Report) -> Iterator[Text]:
        about = (f"msp-harness {report.harness_version}", report.target, f"kernel {report.kernel}", report.distribution)
        yield self.text(" · ".join(about), "bold")
        if report.program:
            yield self.text(f"program {report.program if self.verbose else report.program[:19]}", "dim")

    def group_line(self, group: str, results: Sequence[Result]) -> Text:
        """`redirect ──────── 2 passed, 1 failed`."""
        name, tally = self.text(group, "bold"), self.text(counts(list(results)), "dim")
        rule = "-" if self.console.options.ascii_only else "─"
        room = self.console.width - name.cell_len - tally.cell_len - 2
        return name.append(" ").append(rule * max(room, 1), "dim").append(" ").append_text(tally)

    def group(self, results: Sequence[Result], widths: tuple[int, int]) -> Iterator[RenderableType]:
        if self.console.width < NARROW:
            for result in results:
                yield from self.narrow(result)
                yield from self.evidence_of_quiet(result)
            return
        table = self.row_grid(*widths)
        for result in results:
            self.add_row(table, result)
            if self.verbose:
                yield table
                yield from self.evidence_of_quiet(result)
                table = self.row_grid(*widths)
        if not self.verbose:
            yield table

    def row_grid(self, id_width: int, seconds_width: int) -> Table:
        table = self.grid(_OUTCOME_WIDTH, id_width, None, seconds_width)
        table.columns[-1].justify = "right"
        return table

    def widths(self, results: Sequence[Result]) -> tuple[int, int]:
        """Of the columns for ids and for seconds, the same in all groups."""
        seconds = max((len(duration(result.seconds)) for result in results), default=1)
        longest = max((self.text(result.id).cell_len for result in results), default=1)
        return max(1, min(longest, (self.console.width - _OUTCOME_WIDTH - seconds) * 2 // 5)), seconds

    def add_row(self, table: Table, result: Result) -> None:
        quiet = "" if result.outcome is not Outcome.PASS else "dim"
        cells = (self.text(result.id), self.text(result.summary), self.text(duration(result.seconds), quiet))
        table.add_row(self.outcome(result.outcome), *cells)

    def narrow(self, result: Result) -> Iterator[RenderableType]:
        first = self.outcome(result.outcome).append("  ").append_text(self.text(result.id))
        yield first.append("  ").append_text(self.text(duration(result.seconds), "dim"))
        table = self.grid(None, indent=4)
        table.add_row("", self.text(result.summary))
        yield table

    def outcome(self, outcome: Outcome) -> Text:
        marks = _ASCII_MARKS if self.console.options.ascii_only else _MARKS
        return self.text(f"{marks[outcome]} {outcome}", _STYLES[outcome])

    def evidence_of_quiet(self, result: Result) -> Iterator[RenderableType]:
        """With verbose, what is known about a result that does not get its details at the end."""
        if self.verbose and result.outcome not in _ATTENTION:
            yield from self.facts(result)

    def details(self, result: Result) -> Iterator[RenderableType]:
        head = self.outcome(result.outcome).append("  ").append_text(self.text(result.id, "bold"))
        yield head.append("  ").append_text(self.text(result.title, "dim"))
        table = self.grid(None, indent=4)
        table.add_row("", self.lines(result.summary))
        yield table
        yield from self.facts(result)
        rows = (("to do", result.remedy, "bold"), ("guide", result.guide, ""), ("code", result.code, ""))
        advice = self.grid(5, None, indent=4)
        for name, content, style in rows:
            if content:
                advice.add_row("", self.text(name, "cyan"), self.lines(content, style))
        if advice.row_count:
            yield advice

    def facts(self, result: Result) -> Iterator[RenderableType]:
        known: Mapping[str, Json] = {**result.evidence, **result.observed} if self.verbose else result.evidence
        rows = [(name, self.shortened(text)) for name, text in facts(known)]
        shown = rows if self.verbose else rows[:FACTS]
        if not shown:
            return
        longest = max(self.text(name).cell_len for name, _ in shown)
        table = self.grid(max(1, min(longest, self.console.width // 3)), None, indent=6)
        for name, content in shown:
            table.add_row("", self.text(name, "dim"), self.lines(content))
        if len(shown) < len(rows):
            table.add_row("", "", self.text(f"({len(rows) - len(shown)} more; -v shows all)", "dim"))
        yield table

    def shortened(self, content: str) -> str:
        """A long text's end, where a log says what went wrong, unless verbose."""
        if self.verbose:
            return content
        lines = content.rstrip("\n").split("\n")
        kept = [line if len(line) <= CHARACTERS else f"{line[:CHARACTERS]} … (-v shows all)" for line in lines[-LINES:]]
        if len(kept) < len(lines):
            kept.insert(0, f"(the last {len(kept)} of {len(lines)} lines; -v shows all)")
        return "\n".join(kept)

    def verdict(self, report: Report, verdict: str) -> Text:
        outcome = Outcome.FAIL if exit_code(report) else Outcome.PASS
        marks = _ASCII_MARKS if self.console.options.ascii_only else _MARKS
        line = self.text(f"{marks[outcome]} {verdict}", "bold green" if outcome is Outcome.PASS else "bold red")
        return line.append_text(self.text(f" · {counts(report)} · {duration(report.seconds)}", "not bold default"))
