"""One explanation: what a text means, with its stable code; as JSON, a Result, text for a ticket, on a console."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.msp.codes import Code
from harness.report.model import Json, Outcome, Result
from harness.report.text import visible

if TYPE_CHECKING:
    from rich.console import Console

_LONGEST = 300  # characters of a quoted line
_WIDTH = 100


@dataclass(frozen=True)
class Ask:
    """A question that is still open, or was answered."""

    command: str
    asks: str
    decides: str  # the cause, by code and title, and which answer speaks for it
    answer: str | None = None
    verdict: bool | None = None  # True: this is the cause; False: ruled out; None: open


@dataclass(frozen=True)
class Explanation:
    """What one message or log means. Texts are plain; quoted lines are a stranger's and are made visible when shown."""

    code: Code
    outcome: Outcome
    subject: str  # what it is about: "verifier log", "ebpfProgramStatus", "message"
    summary: str  # one sentence
    lines: Sequence[str] = field(default_factory=tuple)  # the one or two that matter
    required: str | None = None
    found: str | None = None
    causes: Sequence[str] = field(default_factory=tuple)
    remedy: str | None = None  # the code's own when None
    relaxed: str | None = None  # which kernels take what others refuse
    kernel: str | None = None  # mainline versions whose log has this form
    certain: Sequence[str] = field(default_factory=tuple)
    possible: Sequence[str] = field(default_factory=tuple)
    asks: Sequence[Ask] = field(default_factory=tuple)
    says: Mapping[str, str] = field(default_factory=dict)  # the kernel's own report, from 7.3
    row: str | None = None  # of the catalogue

    @property
    def help(self) -> str:
        return self.remedy or self.code.remedy


def to_json(explanation: Explanation) -> dict[str, Json]:
    """Everything, for --json; keys are stable."""
    return {
        "code": explanation.code.id,
        "title": explanation.code.title,
        "outcome": str(explanation.outcome),
        "subject": explanation.subject,
        "summary": explanation.summary,
        "lines": list(explanation.lines),
        "required": explanation.required,
        "found": explanation.found,
        "causes": list(explanation.causes),
        "remedy": explanation.help,
        "relaxed": explanation.relaxed,
        "kernel": explanation.kernel,
        "certain": list(explanation.certain),
        "possible": list(explanation.possible),
        "questions": [
            {
                "command": ask.command,
                "asks": ask.asks,
                "decides": ask.decides,
                "answer": ask.answer,
                "verdict": ask.verdict,
            }
            for ask in explanation.asks
        ],
        "kernel_says": dict(explanation.says),
        "row": explanation.row,
        "guide": explanation.code.guide,
    }


def to_result(explanation: Explanation, number: int = 1) -> Result:
    """As a Result, so that the common renderers show it. number tells several explanations of one text apart."""
    evidence = {name: value for name, value in to_json(explanation).items() if value not in (None, [], {}, "")}
    for name in ("code", "summary", "outcome", "remedy", "guide", "title"):
        evidence.pop(name, None)
    return Result(
        id=f"explain.{number}",
        title=f"{explanation.subject}: {explanation.code.title}",
        outcome=explanation.outcome,
        summary=explanation.summary,
        evidence=evidence,
        remedy=explanation.help,
        guide=explanation.code.guide,
        code=explanation.code.id,
    )


def to_results(explanations: Sequence[Explanation]) -> list[Result]:
    """All of one text, for a Report."""
    return [to_result(explanation, number) for number, explanation in enumerate(explanations, 1)]


def _quoted(line: str) -> str:
    text = visible(line)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def paragraphs(explanation: Explanation) -> list[tuple[str, list[str]]]:
    """(heading, lines) in the order of reading; headings are empty where the text speaks for itself."""
    rows: list[tuple[str, list[str]]] = [("", [explanation.summary])]
    rows.append(("Log", [f"  {_quoted(line)}" for line in explanation.lines]))
    rows.append(("Required", [explanation.required or ""]))
    rows.append(("Found", [explanation.found or ""]))
    rows.append(("The kernel says", [f"{name}: {text}" for name, text in explanation.says.items() if name != "At"]))
    rows.append(("Causes", [f"- {cause}" for cause in explanation.causes]))
    rows.append(("Certain", [f"- {text}" for text in explanation.certain]))
    rows.append(("Possible", [f"- {text}" for text in explanation.possible]))
    rows.append(("Kernel by the log's form", [explanation.kernel or ""]))
    rows.append(("Which kernels take it", [explanation.relaxed or ""]))
    rows.append(("Questions", [line for ask in explanation.asks for line in _ask_lines(ask)]))
    rows.append(("What to do", [explanation.help]))
    rows.append(("Guide", [explanation.code.guide or ""]))
    return [(heading, lines) for heading, lines in rows if any(lines)]


def _ask_lines(ask: Ask) -> list[str]:
    verdict = {True: "YES, this is it: ", False: "ruled out: ", None: ""}[ask.verdict]
    answer = f" (answer: {_quoted(ask.answer.strip() or 'nothing')})" if ask.answer is not None else ""
    return [f"- `{ask.command}`: {ask.asks}{answer}", f"    {verdict}{ask.decides}"]


def ticket(explanations: Sequence[Explanation]) -> str:
    """Plain text that can be pasted into a ticket: no colours, no control characters, ends with a line end."""
    blocks = []
    for explanation in explanations:
        lines = [f"[{explanation.code.id}] {explanation.code.title} ({explanation.subject})"]
        for heading, body in paragraphs(explanation):
            shown = ["  " + line if line.startswith("  ") else visible(line) for line in body]
            if not heading:
                lines += shown
            elif len(shown) == 1 and len(heading) + len(shown[0]) < _WIDTH and not shown[0].startswith(" "):
                lines.append(f"{heading}: {shown[0].removeprefix('- ')}")
            else:
                lines += [f"{heading}:", *shown]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def show(console: Console, explanations: Sequence[Explanation]) -> None:
    """Print on a rich console (report.console.console makes a safe one). Raises OSError as the stream does."""
    from rich.text import Text

    styles = {Outcome.FAIL: "bold red", Outcome.WARN: "yellow", Outcome.PASS: "green", Outcome.ERROR: "bold magenta"}
    for number, explanation in enumerate(explanations):
        if number:
            console.print()
        style = styles.get(explanation.outcome, "bold")
        console.print(Text.assemble((explanation.code.id, style), "  ", (explanation.code.title, "bold")))
        console.print(Text(explanation.subject, "dim"))
        for heading, body in paragraphs(explanation):
            if heading:
                console.print(Text(heading, "bold"))
            for line in body:
                console.print(Text(("  " if heading and not line.startswith("  ") else "") + visible(line)))
