"""A page on a terminal, as Markdown for a ticket, as JSON, as HTML."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from harness.diagnose.page import Cause, Page, page, pieces
from harness.diagnose.verdict import Verdict
from harness.report import markdown
from harness.report.model import Outcome
from harness.report.text import visible

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA = "msp-harness diagnosis 1"
_STYLES = {
    Outcome.PASS: "bold green",
    Outcome.WARN: "bold yellow",
    Outcome.FAIL: "bold red",
    Outcome.ERROR: "bold magenta",
}
_QUOTED = 44  # columns for where a quote stands


# --- a terminal ---------------------------------------------------------------------------------------------------


def show(console: Console, verdict: Verdict) -> None:
    """Print the page; a stranger's text is made visible, never obeyed. Raises OSError as the stream does."""
    from rich.text import Text

    one = page(verdict)

    def line(text: str = "", style: str = "", indent: int = 0) -> None:
        console.print(Text(" " * indent + visible(text), style), soft_wrap=True)

    def block(cause: Cause, indent: int) -> None:
        for row in cause.quotes:
            line(f"{row.place}: {row.text}" if row.place else row.shows, "", indent)
            if row.place:
                line(f"→ {row.shows}", "dim", indent + 2)

    line(f"{one.word.upper()}  {one.code}  {one.title}" + (f"  ({one.sure})" if one.sure else ""), _STYLES[one.outcome])
    line(one.summary)
    if one.main:
        if one.main.quotes:
            line()
            line("Evidence", "bold")
            block(one.main, 2)
        if one.main.steps:
            line()
            line("What to do", "bold")
            for number, step in enumerate(one.main.steps, 1):
                line(f"{number}. {step}", "", 2)
        if one.main.guide:
            line()
            line(f"Guide: {one.main.guide}" + (f" (line {one.main.line})" if one.main.line else ""), "dim")
    _more(one, line, block)


def _more(one: Page, line: Any, block: Any) -> None:
    """Other causes, contradictions, notes, what is missing, what was read."""
    for heading, rows in _groups(one):
        line()
        line(heading, "bold")
        for cause in rows:
            line(f"{cause.code} {cause.title}" + (f" ({cause.sure})" if cause.sure else ""), "", 2)
            line(cause.summary, "", 4)
            block(cause, 4)
            if cause.steps and heading != "Contradictions":
                line(f"To do: {cause.steps[0]}", "", 4)
    if one.asks:
        line()
        line("Missing: run this and send what it prints", "bold")
        for command, asks in one.asks:
            line(command, "", 2)
            line(asks, "dim", 4)
    line()
    line(f"Read: {one.read}.", "dim")
    for note in one.notes:
        line(note, "dim", 2)


def _groups(one: Page) -> Iterator[tuple[str, Sequence[Cause]]]:
    if one.others:
        yield ("Possible causes, in the guide's order" if one.main is None else "Other causes"), one.others
    if one.contradictions:
        yield "Contradictions", one.contradictions
    if one.also:
        yield "Also", one.also


# --- Markdown -----------------------------------------------------------------------------------------------------


def to_markdown(verdict: Verdict) -> str:
    """The page to paste into a ticket; ends with a newline. Nothing in it is obeyed as Markdown or HTML."""
    one = page(verdict)
    text, code = _prose, _code
    lines = [f"## {text(one.word.capitalize())}: {text(one.title)}", ""]
    lines += [f"`{one.code}`" + (f" · {one.sure}" if one.sure else ""), "", text(one.summary), ""]
    if one.main:
        lines += _markdown_quotes(one.main)
        if one.main.steps:
            lines += ["**What to do**", "", *(f"{n}. {_prose(step)}" for n, step in enumerate(one.main.steps, 1)), ""]
        if one.main.guide:
            lines += [f"**Guide:** {text(one.main.guide)}", ""]
    for heading, rows in _groups(one):
        lines += [f"**{heading}**", ""]
        for cause in rows:
            sure = f" ({cause.sure})" if cause.sure else ""
            lines.append(f"- `{cause.code}` {text(cause.title)}{sure}: {text(cause.summary)}")
            lines += [f"  - {code(row.place)}: {code(row.text)}" for row in cause.quotes if row.place]
        lines.append("")
    if one.asks:
        lines += ["**Missing:** run this and send what it prints", ""]
        lines += [f"- {code(command)}: {text(asks)}" for command, asks in one.asks]
        lines.append("")
    lines.append(f"Read: {text(one.read)}.")
    lines += [f"- {text(note)}" for note in one.notes]
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    """As code outside a table, where a bar stands for itself: commands are copied."""
    return markdown.code(text).replace(r"\|", "|")


def _prose(text: str) -> str:
    """A sentence, with what is code in it as code and everything else as text."""
    return "".join(_code(piece) if code else _edges(piece) for code, piece in pieces(text))


def _edges(text: str) -> str:
    """Escaped, with the blanks at its ends, which escape() takes away."""
    left, right = text[: len(text) - len(text.lstrip(" "))], text[len(text.rstrip(" ")) :]
    return left + markdown.escape(text) + right if text.strip() else text


def _markdown_quotes(cause: Cause) -> list[str]:
    if not cause.quotes:
        return []
    rows = []
    for row in cause.quotes:
        where = f"{_code(row.place)}: {_code(row.text)} " if row.place else ""
        rows.append(f"- {where}{'→ ' if where else ''}{_prose(row.shows)}")
    return ["**Evidence**", "", *rows, ""]


# --- JSON ---------------------------------------------------------------------------------------------------------


def to_json(verdict: Verdict) -> dict[str, Any]:
    """Everything, by the published schema (harness/diagnose/schema.json)."""
    one = page(verdict)
    return {
        "schema": SCHEMA,
        "verdict": one.kind.value,
        "code": one.code,
        "title": one.title,
        "sure": verdict.sure.value,
        "summary": one.summary,
        "causes": [_finding(row) for row in verdict.findings],
        "contradictions": [_finding(row) for row in verdict.contradictions],
        "also": [_finding(row) for row in verdict.also],
        "missing": [{"command": ask.command, "asks": ask.asks, "decides": ask.decides} for ask in verdict.asks],
        "read": {
            "documents": [
                {"name": row.name, "bytes": row.size, "kinds": list(row.kinds)} for row in verdict.evidence.documents
            ],
            "facts": len(verdict.evidence.facts),
            "notes": [
                {"kind": note.kind.value, "document": note.document, "what": note.what, "line": note.line}
                for note in verdict.evidence.notes
            ],
        },
        "tried": {row.rule.id: row.result for row in verdict.tried},
    }


def _finding(finding: Any) -> dict[str, Any]:
    from harness.msp.guide_walk import items

    item = items().get(finding.place)
    return {
        "code": finding.code.id,
        "title": finding.code.title,
        "sure": finding.sure.value,
        "role": finding.role.value,
        "summary": finding.summary,
        "rule": finding.rule,
        "guide": {"id": finding.place, "place": item.breadcrumb, "line": item.line} if item else None,
        "evidence": [
            {
                "document": row.source.document if row.source else None,
                "line": row.source.line if row.source else None,
                "text": row.source.text if row.source else None,
                "shows": row.shows,
            }
            for row in finding.because
        ],
        "steps": list(finding.remedy),
    }


def dump(verdict: Verdict) -> str:
    return json.dumps(to_json(verdict), indent=2, ensure_ascii=False) + "\n"


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of what dump() writes."""
    from importlib.resources import files

    found: dict[str, Any] = json.loads(files("harness.diagnose").joinpath("schema.json").read_text(encoding="utf-8"))
    return found


# --- HTML ---------------------------------------------------------------------------------------------------------


def to_html(verdict: Verdict) -> str:
    """One self-contained page without a script."""
    from harness.report import page as pages

    one = page(verdict)
    return pages.render("diagnosis.html", "harness.diagnose", page=one, groups=list(_groups(one)), pieces=pieces)
