"""A Report for a person at a terminal, or at the end of a pipe.

First everything that was checked, by group; then, last, what needs attention with what to do about it; then one line
that says how it stands. rich does the terminal's part (width, colours, NO_COLOR) and is imported when it is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import IO, TYPE_CHECKING

from harness.report.model import Json, Outcome, Report, Result, exit_code
from harness.report.progress import Progress
from harness.report.text import counts, duration, facts, took, visible, visible_lines

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

NARROW = 70  # columns; below this a result takes two lines instead of a row of a table
FACTS, LINES, CHARACTERS = 8, 8, 400  # how much of the evidence is shown unless verbose

STYLES = {
    Outcome.PASS: "green",
    Outcome.FAIL: "bold red",
    Outcome.ERROR: "bold magenta",
    Outcome.WARN: "yellow",
    Outcome.SKIP: "cyan",
}
MARKS = {Outcome.PASS: "✓", Outcome.FAIL: "✗", Outcome.ERROR: "!", Outcome.WARN: "▲", Outcome.SKIP: "–"}
ASCII_MARKS = {Outcome.PASS: "+", Outcome.FAIL: "x", Outcome.ERROR: "!", Outcome.WARN: "*", Outcome.SKIP: "-"}
_ATTENTION = (Outcome.WARN, Outcome.ERROR, Outcome.FAIL)  # the worst last: a terminal is read from its bottom
_OUTCOME_WIDTH = len("✓ ERROR")


def console(stream: IO[str] | None = None, *, width: int | None = None) -> Console:
    """A rich console on the stream (stdout) that obeys NO_COLOR, COLUMNS, TERM and the stream's encoding.

    When it cannot write, OSError goes to the caller: BrokenPipeError when the reader went away.
    """
    from rich.console import Console

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            raise  # the BrokenPipeError during which rich calls this; its own way is to exit with 1

    return Screen(file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


def progress(console: Console, total: int, *, verbose: bool = False) -> Progress:
    """A context manager whose starting(id, title) and finished(result) the runner of the checks calls."""
    return Progress(console, total, verbose=verbose)


def show(console: Console, report: Report, verdict: str, *, verbose: bool = False) -> None:
    """Print the Report. The verdict is one short sentence about the whole; verbose shows all evidence of all results.

    Raises OSError as the stream does, when the console is one of console().
    """
    from rich.text import Text

    # The lines are laid out here: with rich's tables it takes four times as long.
    console.print(Text("\n").join(_Page(console, verbose).whole(report, verdict)), soft_wrap=True)


@dataclass(frozen=True)
class _Page:
    """How the parts of a Report look on one console: lines that are no wider than it."""

    console: Console
    verbose: bool

    def whole(self, report: Report, verdict: str) -> Iterator[Text]:
        yield from self.heading(report)
        widths = self.widths(report.results)
        for group, results in report.groups().items():
            yield self.text("")
            yield from self.rule(group, results)
            for result in results:
                yield from self.row(result, widths) if self.console.width >= NARROW else self.narrow_row(result)
                if self.verbose and result.outcome not in _ATTENTION:
                    yield from self.facts(result)
        attention = [result for outcome in _ATTENTION for result in report.results if result.outcome is outcome]
        if attention:
            yield self.text("")
            yield from self.rule("to look at", attention)
        for number, result in enumerate(attention):
            if number:
                yield self.text("")
            yield from self.details(result)
        yield self.text("")
        yield from self.verdict(report, verdict)

    def text(self, content: str, style: str = "") -> Text:
        from rich.text import Text

        # The style is a span and not the base, so that what is appended does not inherit it.
        return Text(overflow="fold").append(visible(content, self.console.encoding), style)

    def paragraph(self, content: str, style: str = "") -> Text:
        """Text whose own line breaks are kept."""
        from rich.text import Text

        return Text(overflow="fold").append("\n".join(visible_lines(content, self.console.encoding)), style)

    def columns(self, *cells: tuple[Text, int]) -> Iterator[Text]:
        """One row: each cell wrapped to its width in columns, with two spaces between the cells."""
        wrapped = [self.wrapped(cell, width) for cell, width in cells]
        for parts in zip_longest(*wrapped):
            line, missing = self.text(""), 0
            for part, (_, width) in zip(parts, cells, strict=True):
                if part is not None and part.plain:
                    line.append(" " * missing).append_text(part)
                    missing = -part.cell_len
                missing += width + 2
            yield line

    def wrapped(self, content: Text, width: int) -> Sequence[Text]:
        if content.cell_len <= width and "\n" not in content.plain:
            return [content]
        lines = content.wrap(self.console, max(width, 1))
        for line in lines:
            line.rstrip()
        return list(lines)

    def indented(self, content: Text, indent: int) -> Iterator[Text]:
        return self.columns((self.text(""), indent - 2), (content, self.console.width - indent))

    def heading(self, report: Report) -> Iterator[Text]:
        about = (f"msp-harness {report.harness_version}", report.target, f"kernel {report.kernel}", report.distribution)
        yield from self.wrapped(self.text(" · ".join(about), "bold"), self.console.width)
        if report.program:
            program = report.program if self.verbose else report.program[:19]
            yield from self.wrapped(self.text(f"program {program}", "dim"), self.console.width)

    def rule(self, group: str, results: Sequence[Result]) -> Iterator[Text]:
        """`redirect ──────── 2 passed, 1 failed`."""
        name, tally = self.text(group, "bold"), self.text(counts(list(results)), "dim")
        rule = "-" if self.console.options.ascii_only else "─"
        room = self.console.width - name.cell_len - tally.cell_len - 2
        line = name.append(" ").append(rule * max(room, 1), "dim").append(" ").append_text(tally)
        yield from self.wrapped(line, self.console.width)

    def widths(self, results: Sequence[Result]) -> tuple[int, int]:
        """Of the columns for ids and for seconds, the same in all groups."""
        seconds = max((len(took(result.seconds)) for result in results), default=1)
        longest = max((self.text(result.id).cell_len for result in results), default=1)
        return max(1, min(longest, (self.console.width - _OUTCOME_WIDTH - seconds) * 2 // 5)), seconds

    def row(self, result: Result, widths: tuple[int, int]) -> Iterator[Text]:
        id_width, seconds_width = widths
        seconds = took(result.seconds)
        room = self.console.width - _OUTCOME_WIDTH - id_width - seconds_width - 3 * 2
        yield from self.columns(
            (self.outcome(result.outcome), _OUTCOME_WIDTH),
            (self.text(result.id), id_width),
            (self.text(result.summary), room),
            (self.text(seconds and seconds.rjust(seconds_width), "dim"), seconds_width),
        )

    def narrow_row(self, result: Result) -> Iterator[Text]:
        line = self.outcome(result.outcome).append("  ").append_text(self.text(result.id))
        if seconds := took(result.seconds):
            line.append("  ").append_text(self.text(seconds, "dim"))
        yield from self.wrapped(line, self.console.width)
        yield from self.indented(self.text(result.summary), 4)

    def outcome(self, outcome: Outcome) -> Text:
        return self.text(f"{self.mark(outcome)} {outcome}", STYLES[outcome])

    def mark(self, outcome: Outcome) -> str:
        return (ASCII_MARKS if self.console.options.ascii_only else MARKS)[outcome]

    def details(self, result: Result) -> Iterator[Text]:
        head = self.outcome(result.outcome).append("  ").append_text(self.text(result.id, "bold"))
        yield from self.wrapped(head.append("  ").append_text(self.text(result.title, "dim")), self.console.width)
        yield from self.indented(self.paragraph(result.summary), 4)
        if self.verbose or result.outcome is not Outcome.WARN:  # a warning's sentence is enough until somebody asks
            yield from self.facts(result)
        for name, content, style in (
            ("to do", result.remedy, "bold"),
            ("guide", result.guide, ""),
            ("code", result.code, ""),
        ):
            if content:
                yield from self.labelled(self.text(name, "cyan"), self.paragraph(content, style), 4, len("to do"))

    def labelled(self, label: Text, content: Text, indent: int, width: int) -> Iterator[Text]:
        room = self.console.width - indent - width - 2
        yield from self.columns((self.text(""), indent - 2), (label, width), (content, room))

    def facts(self, result: Result) -> Iterator[Text]:
        """The evidence; unless verbose the beginning of it, without what was observed in this run only."""
        known: Mapping[str, Json] = {**result.evidence, **result.observed} if self.verbose else result.evidence
        rows = facts(known)
        shown = rows if self.verbose else rows[:FACTS]
        names = [self.text(name, "dim") for name, _ in shown]
        width = max(1, min(max((name.cell_len for name in names), default=0), self.console.width // 3))
        for name, (_, content) in zip(names, shown, strict=True):
            yield from self.labelled(name, self.paragraph(self.shortened(content)), 6, width)
        if len(shown) < len(rows):
            yield from self.indented(self.text(f"({len(rows) - len(shown)} more; -v shows all)", "dim"), 6)

    def shortened(self, content: str) -> str:
        """A long text's end, where a log says what went wrong, unless verbose."""
        if self.verbose:
            return content
        lines = content.rstrip("\n").split("\n")
        kept = [line if len(line) <= CHARACTERS else f"{line[:CHARACTERS]} … (-v shows all)" for line in lines[-LINES:]]
        if len(kept) < len(lines):
            kept.insert(0, f"(the last {len(kept)} of {len(lines)} lines; -v shows all)")
        return "\n".join(kept)

    def verdict(self, report: Report, verdict: str) -> Iterator[Text]:
        outcome, style = (Outcome.FAIL, "bold red") if exit_code(report) else (Outcome.PASS, "bold green")
        line = self.text(f"{self.mark(outcome)} {verdict}", style)
        line.append_text(self.text(f" · {counts(report)} · {duration(report.seconds)}"))
        yield from self.wrapped(line, self.console.width)
