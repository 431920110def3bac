"""From what a check saw to its Results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from harness.errors import HarnessError, errno_text
from harness.report import Json, Outcome, Result


@dataclass(frozen=True)
class Findings:
    """What speaks against a PASS; collected while a check looks on."""

    problems: list[str] = field(default_factory=list)

    def expect(self, holds: bool, problem: str) -> bool:
        if not holds:
            self.problems.append(problem)
        return holds

    def result(
        self,
        name: str,
        title: str,
        good: str,
        *,
        remedy: str | None = None,
        evidence: Mapping[str, Json] | None = None,
        observed: Mapping[str, Json] | None = None,
        **more: Any,
    ) -> Result:
        """PASS with the sentence `good` when nothing speaks against it, else FAIL with all that does."""
        outcome = Outcome.FAIL if self.problems else Outcome.PASS
        summary = "; ".join(self.problems) or good
        needed = remedy if self.problems else None
        return Result(name, title, outcome, summary, evidence or {}, observed or {}, needed, **more)


def timed(
    name: str, title: str, function: Callable[[], Iterator[Result]], guide: str | None = None
) -> Iterator[Result]:
    """Run a generator of Results: fill in seconds and the guide's heading, and turn HarnessError into ERROR."""
    results = function()
    while True:
        started = time.monotonic()
        try:
            result = next(results)
        except StopIteration:
            return
        except (HarnessError, OSError) as error:
            result = error_result(name, title, error)
            yield replace(result, guide=guide, seconds=time.monotonic() - started)
            return
        yield replace(result, guide=result.guide or guide, seconds=time.monotonic() - started)


def error_result(name: str, title: str, error: HarnessError | OSError) -> Result:
    """ERROR: the harness could not find out, and why."""
    if isinstance(error, OSError):
        error = HarnessError("run this check", errno_text(error.errno or 0), errno=error.errno or 0)
    evidence = {"detail": error.detail} if error.detail else {}
    return Result(name, title, Outcome.ERROR, f"could not find out: {error}", {}, evidence, error.remedy)
