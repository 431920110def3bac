"""What a rule is, and what it finds.

A rule is a small function over typed facts. It says what it needs, what it may conclude, how sure it can be at most,
and which things of the guide it takes up; the first of these is its place. Rules are rows of tables (diagnose.rules).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from harness.diagnose.facts import Fact, Source
from harness.msp.codes import Code
from harness.verifier.explanation import Ask as Ask

if TYPE_CHECKING:
    from harness.diagnose.case import Case


class Sure(StrEnum):
    """How sure a conclusion is. CERTAIN: the evidence shows it. LIKELY: it fits, and nothing speaks against it.
    POSSIBLE: one of several that the evidence leaves open."""

    CERTAIN = "certain"
    LIKELY = "likely"
    POSSIBLE = "possible"


class Role(StrEnum):
    """What a conclusion is in the whole: a cause; a symptom, which a cause explains; a contradiction of the evidence;
    a note on a setting or a risk; or that all is well."""

    CAUSE = "cause"
    SYMPTOM = "symptom"
    CONTRADICTION = "contradiction"
    NOTE = "note"
    HEALTHY = "healthy"


@dataclass(frozen=True, slots=True)
class Because:
    """A piece of evidence and what it shows; source None: something that is not in the evidence."""

    shows: str
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule concluded. sure, role, place and rule are the rule's own where the function leaves them out."""

    code: Code
    summary: str
    because: tuple[Because, ...] = ()
    sure: Sure | None = None
    role: Role | None = None
    steps: tuple[str, ...] = ()  # what to do, in order; the code's remedy where empty
    asks: tuple[Ask, ...] = ()  # what would make it surer, or rule it out
    place: str = ""  # of the guide
    rule: str = ""
    answers: str = ""  # "message" of the failure, for comparing: the agent's own words

    @property
    def remedy(self) -> tuple[str, ...]:
        return self.steps or (self.code.remedy,)


Need = tuple[type[Fact], ...]
"""Any one of these kinds of facts will do."""


@dataclass(frozen=True)
class Rule:
    """A row of the table."""

    id: str
    title: str
    look: Callable[[Case], Iterable[Finding]]
    needs: Sequence[Need]
    concludes: Sequence[Code]
    covers: Sequence[str]  # ids of msp.guide_walk; the first is the rule's place
    sure: Sure = Sure.CERTAIN
    role: Role = Role.CAUSE

    @property
    def place(self) -> str:
        return self.covers[0] if self.covers else ""

    def missing(self, present: frozenset[type[Fact]]) -> list[Need]:
        """The needs that no fact meets."""
        return [need for need in self.needs if present.isdisjoint(need)]


def need_text(need: Need) -> str:
    return " or ".join(kind.__name__ for kind in need)


@dataclass(frozen=True)
class Tried:
    """What became of a rule: not tried for want of facts, tried without a finding, or its findings."""

    rule: Rule
    lacks: Sequence[Need] = ()
    findings: Sequence[Finding] = field(default_factory=tuple)

    @property
    def result(self) -> str:
        if self.lacks:
            return "not tried: no " + ", no ".join(need_text(need) for need in self.lacks)
        return ", ".join(finding.code.id for finding in self.findings) or "does not apply"


def because(fact: Fact | Source, shows: str) -> Because:
    return Because(shows, fact if isinstance(fact, Source) else fact.source)
