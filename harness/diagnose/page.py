"""What a page says, in the order of reading, for all renderers: verdict, evidence, what to do, what is missing.

Texts are plain. Quotes are a stranger's: each renderer makes them visible (report.text) and escapes them its own way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from harness.diagnose.rule import Because, Finding, Role, Sure
from harness.diagnose.verdict import Kind, Verdict
from harness.msp.guide_walk import items, position
from harness.report.model import Outcome

OUTCOMES = {
    Kind.HEALTHY: Outcome.PASS,
    Kind.NOTE: Outcome.WARN,
    Kind.CAUSE: Outcome.FAIL,
    Kind.CANNOT_TELL: Outcome.ERROR,
}
WORDS = {
    Kind.HEALTHY: "nothing wrong",
    Kind.NOTE: "not a fault",
    Kind.CAUSE: "cause found",
    Kind.CANNOT_TELL: "cannot tell",
}
_LONGEST = 150  # characters of a quote
_MOST_NOTES = 8


@dataclass(frozen=True)
class Quote:
    """A line of the evidence: where it stands, its text, what it shows."""

    place: str
    text: str
    shows: str


@dataclass(frozen=True)
class Cause:
    """One finding, ready to be shown."""

    code: str
    title: str
    sure: str
    summary: str
    guide: str
    line: int | None  # of the guide
    quotes: Sequence[Quote]
    steps: Sequence[str]


@dataclass(frozen=True)
class Page:
    kind: Kind
    outcome: Outcome
    word: str
    code: str
    title: str
    sure: str
    summary: str
    main: Cause | None
    others: Sequence[Cause]
    contradictions: Sequence[Cause]
    also: Sequence[Cause]
    asks: Sequence[tuple[str, str]]  # the command, what its answer would tell
    read: str  # how much was read
    notes: Sequence[str]  # what was left out, and why


def page(verdict: Verdict) -> Page:
    main = verdict.best
    sure = "" if verdict.kind in (Kind.HEALTHY, Kind.CANNOT_TELL) else verdict.sure.value
    rest = verdict.findings[1:]
    if verdict.kind is Kind.CANNOT_TELL:  # candidates: none is the main one, and all are in the guide's order
        main, rest = None, sorted(verdict.findings, key=lambda row: position(row.place))
        if len(rest) == 1:
            main, rest = rest[0], []
    lead = verdict.contradictions[0] if not verdict.findings and verdict.contradictions else None
    documents = verdict.evidence.documents
    return Page(
        kind=verdict.kind,
        outcome=OUTCOMES[verdict.kind],
        word=WORDS[verdict.kind],
        code=verdict.code.id,
        title=verdict.code.title,
        sure=sure,
        summary=verdict.summary,
        main=_cause(main) if main else _cause(lead) if lead else None,
        others=[_cause(row) for row in rest],
        contradictions=[_cause(row) for row in verdict.contradictions if row is not lead],
        also=[replace(_cause(row), steps=()) if row.role is Role.SYMPTOM else _cause(row) for row in verdict.also],
        asks=[(ask.command, f"{ask.asks} {_tells(ask.decides)}") for ask in verdict.asks],
        read=f"{_count(len(documents), 'document')}, {_count(len(verdict.evidence.facts), 'fact')}",
        notes=_notes(verdict),
    )


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _tells(decides: str) -> str:
    return f"(Tells {decides}.)" if decides[:1].islower() else f"({decides}.)"


def _cause(finding: Finding) -> Cause:
    item = items().get(finding.place)
    return Cause(
        code=finding.code.id,
        title=finding.code.title,
        sure="" if finding.role is Role.HEALTHY else (finding.sure or Sure.POSSIBLE).value,
        summary=finding.summary,
        guide=item.breadcrumb if item and finding.role is not Role.HEALTHY else "",
        line=item.line if item else None,
        quotes=_quotes(finding),
        steps=() if finding.role is Role.HEALTHY else finding.remedy,
    )


def _quotes(finding: Finding) -> list[Quote]:
    """The evidence, with what one line shows in several ways told once."""
    found: dict[tuple[str, str], Quote] = {}
    for number, row in enumerate(finding.because):
        one = quote(row)
        key = (one.place, one.text) if one.place else ("", str(number))
        old = found.get(key)
        found[key] = one if old is None else Quote(one.place, one.text, f"{old.shows}; {one.shows}")
    return list(found.values())


def quote(row: Because) -> Quote:
    if row.source is None:
        return Quote("", "", row.shows)
    return Quote(str(row.source), _shortened(row.source.text), row.shows)


_COMMANDS = re.compile(
    r"(?:sudo|az|sc|systemctl|journalctl|ls|df|curl|echo|ss|date|findmnt|grep|bpftool|cat|mount|uname|tail|type|dir|"
    r"powershell|azure-proxy-agent|msp-harness) "
)


def pieces(text: str) -> list[tuple[bool, str]]:
    """A sentence of ours as (whether it is code, text): what stands between backticks, or the whole of a command."""
    parts = text.split("`")
    if _COMMANDS.match(text) and not text.endswith("."):
        return [(True, text)]
    return [(bool(number % 2), part) for number, part in enumerate(parts)] if len(parts) % 2 else [(False, text)]


def _shortened(text: str) -> str:
    """One line, its beginning and its end: a verifier log says at its end why."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 55]} … {line[-50:]}"


def _notes(verdict: Verdict) -> list[str]:
    rows = [f"{note.document}: {note.what} ({note.kind.value})" for note in verdict.evidence.notes]
    left = len(rows) - _MOST_NOTES
    return rows if left <= 0 else [*rows[:_MOST_NOTES], f"and {left} more"]


def why(verdict: Verdict) -> Iterator[str]:
    """The chain from evidence to verdict: each rule that found something, with its evidence; then the rest in short."""
    for one in verdict.tried:
        for finding in one.findings:
            yield f"{one.rule.id}: {one.rule.title}"
            for row in finding.because:
                at = f"{row.source}: " if row.source else ""
                text = f"`{_shortened(row.source.text)}`" if row.source else ""
                yield f"  {at}{text}{' -> ' if text else ''}{row.shows}"
            yield f"  => {finding.code.id} {finding.code.title} ({finding.sure}, {finding.role})"
    yield ""
    silent = [one for one in verdict.tried if not one.findings]
    yield f"Tried without a finding: {', '.join(one.rule.id for one in silent if not one.lacks) or 'none'}"
    yield "Not tried, for want of facts:"
    for one in silent:
        if one.lacks:
            yield f"  {one.rule.id}: {one.result.removeprefix('not tried: ')}"
    ranked = ", ".join(f"{row.code.id} ({row.sure})" for row in verdict.findings) or "none"
    yield f"Ranked: {ranked}"
    yield f"Verdict: {verdict.kind.value}: {verdict.code.id} {verdict.code.title}"
