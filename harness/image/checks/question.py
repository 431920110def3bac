"""A question to an image, and the Results that answer it; what was not read is an ERROR, whoever asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.checks.inspect_contents import visible
from harness.image.image import Image
from harness.image.reading import Unread
from harness.msp.codes import Code
from harness.report import Json, Outcome, Result

_LONGEST = 2_000  # characters of a summary: names in it are a stranger's
READ_IT = "look whether the image is whole; `msp-harness image check --boot IMAGE` shows what it really does"


@dataclass(frozen=True)
class Question:
    """One thing asked: the id and title of its Results, and the guide's heading for it."""

    id: str
    title: str
    guide: str | None = None

    def case(self, name: str, title: str = "") -> Question:
        """The same for one case: `kernel.config` becomes `kernel.config.CGROUP_BPF`."""
        return Question(f"{self.id}.{name}", title or self.title, self.guide)

    def good(self, summary: str, evidence: Mapping[str, Json] | None = None) -> Result:
        return self._result(Outcome.PASS, summary, evidence, None, None)

    def bad(
        self, summary: str, evidence: Mapping[str, Json] | None = None, remedy: str = "", code: Code | None = None
    ) -> Result:
        """FAIL; the remedy is the code's where none is given."""
        return self._result(Outcome.FAIL, summary, evidence, remedy, code)

    def doubt(
        self, summary: str, evidence: Mapping[str, Json] | None = None, remedy: str = "", code: Code | None = None
    ) -> Result:
        """WARN: it may do harm, or is not as it should be."""
        return self._result(Outcome.WARN, summary, evidence, remedy, code)

    def unknown(self, reason: str, evidence: Mapping[str, Json] | None = None, remedy: str = READ_IT) -> Result:
        """ERROR: it could not be found out."""
        return self._result(Outcome.ERROR, reason, evidence, remedy, None)

    def none(self, reason: str, evidence: Mapping[str, Json] | None = None) -> Result:
        """SKIP: there is nothing to ask."""
        return self._result(Outcome.SKIP, reason, evidence, None, None)

    def _result(
        self,
        outcome: Outcome,
        summary: str,
        evidence: Mapping[str, Json] | None,
        remedy: str | None,
        code: Code | None,
    ) -> Result:
        return Result(
            self.id,
            self.title,
            outcome,
            visible(summary)[:_LONGEST],
            evidence or {},
            remedy=remedy or (code.remedy if code else None),
            guide=self.guide or (code.guide if code else None),
            code=code.id if code else None,
        )


Answer = Callable[[Image, Question], Iterator[Result]]
Asked = tuple[Question, Answer]


def answers(image: Image, asked: Sequence[Asked]) -> Iterator[Result]:
    """The Results of each question in its order. One that raises is an ERROR and ends nothing."""
    for question, answer in asked:
        try:
            yield from answer(image, question)
        except Unread as unread:
            yield question.unknown(str(unread))
        except Exception as error:  # a stranger's files led a check astray: the others still have their say
            yield question.unknown(f"the check itself failed: {type(error).__name__}: {error}"[:500])
