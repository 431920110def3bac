"""A Report as GitHub's Markdown: for a job summary, or to be pasted into a ticket."""

from __future__ import annotations

import re

from harness.report.model import Outcome, Report, Result
from harness.report.text import counts, duration, facts, took, visible, visible_lines

MARKS = {Outcome.PASS: "✅", Outcome.FAIL: "❌", Outcome.ERROR: "💥", Outcome.WARN: "⚠️", Outcome.SKIP: "⏭️"}
_ATTENTION = (Outcome.FAIL, Outcome.ERROR, Outcome.WARN)  # the worst first: a page is read from its top
_LONGEST = 60  # lines of one fact: GitHub refuses a summary of more than 1 MiB, and a verifier log may have 100,000

_SPECIAL = re.compile(r"[\\`*\[\]<>&|#~!$]|(?<![^\W_])_|_(?![^\W_])")
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def render(report: Report, verdict: str) -> str:
    """The headline, a table of all results, and the details of what failed, erred or warns; ends with a newline."""
    lines = [f"## {_headline_mark(report)} {escape(verdict)}", ""]
    lines += [f"**{counts(report)}** in {duration(report.seconds)} · {_about(report)}", ""]
    lines += ["| | check | found | time |", "|---|---|---|---:|"]
    lines += [_row(result) for result in report.results]
    lines += [""]
    for outcome in _ATTENTION:
        for result in report.results:
            if result.outcome is outcome:
                lines += details(result)
    return "\n".join(lines)


def escape(text: str) -> str:
    """The text on one line such that Markdown shows it as it is, in a paragraph, a heading or a table's cell."""
    return _SPECIAL.sub(lambda found: _ENTITIES.get(found.group(), "\\" + found.group()), visible(text).strip())


def code(text: str) -> str:
    """The text on one line as code. In a table a bar must be escaped even there, which is done."""
    text = visible(text).strip().replace("|", r"\|")
    if not text:
        return ""
    fence = _longer_than_in(text, at_least=1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}"


def _longer_than_in(text: str, at_least: int) -> str:
    return "`" * max([at_least, *(len(run) + 1 for run in re.findall("`+", text))])


def _headline_mark(report: Report) -> str:
    worst = next((o for o in (Outcome.FAIL, Outcome.ERROR) if report.count(o)), Outcome.PASS)
    return MARKS[worst]


def _about(report: Report) -> str:
    about = f"{escape(report.target)} · kernel {escape(report.kernel)} · {escape(report.distribution)}"
    about += f" · msp-harness {escape(report.harness_version)}"
    return f"{about} · program {escape(report.program)}" if report.program else about


def _row(result: Result) -> str:
    mark = f"{MARKS[result.outcome]} {result.outcome}"
    return f"| {mark} | {code(result.id)} | {escape(result.summary)} | {took(result.seconds)} |"


def details(result: Result, level: int = 3) -> list[str]:
    """A Result whole, under a heading of this level, with its evidence to be opened."""
    lines = [f"{'#' * level} {MARKS[result.outcome]} {result.outcome} {escape(result.id)}: {escape(result.title)}", ""]
    lines += [f"**Found:** {escape(result.summary)}", ""]
    for name, text in (("What to do", result.remedy), ("In the guide", result.guide), ("Code", result.code)):
        if text:
            found = visible_lines(text)
            lines += (
                [f"**{name}:** {escape(found[0])}", ""] if len(found) == 1 else [f"**{name}:**", "", *_block(found)]
            )
    rows = facts({**result.evidence, **result.observed})
    if rows:
        body = [line for name, text in rows for line in _fact(name, text)]
        lines += ["<details><summary>evidence</summary>", "", *_block(body), "</details>", ""]
    return lines


def _block(lines: list[str]) -> list[str]:
    """The lines as they are, such that commands can be copied."""
    fence = _longer_than_in("\n".join(lines), at_least=3)
    return [f"{fence}text", *lines, fence, ""]


def _fact(name: str, text: str) -> list[str]:
    lines = visible_lines(text)
    if len(lines) == 1:
        return [f"{visible(name)}: {lines[0]}"]
    left_out = len(lines) - _LONGEST
    if left_out > 0:  # the end of a log says what went wrong
        lines = [f"(the first {left_out} lines are left out; the JSON report has them)", *lines[-_LONGEST:]]
    return [f"{visible(name)}:", *(f"  {line}" for line in lines)]
