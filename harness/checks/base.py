"""What a check is, what it works with, and how it is run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from harness.errors import HarnessError
from harness.lab.lab import Lab
from harness.lab.redirection import Redirection, redirect
from harness.lab.state import Run
from harness.program.attach import Way
from harness.program.load import Loaded
from harness.report import Json, Outcome, Result


@dataclass(frozen=True)
class Environment:
    """What the checks of a run work with: a lab, and the program as it was loaded."""

    run: Run
    lab: Lab
    loaded: Loaded
    audited: bool = True  # whether the loaded program completes audit records on this kernel
    way: Way = Way.LINK  # how it is attached where the way is not what is checked

    def redirect(self) -> AbstractContextManager[Redirection]:
        """The program at work in the lab, until the end of the with block."""
        return redirect(self.lab, self.loaded, self.way)


Function = Callable[[Environment], Iterator[Result]]


@dataclass(frozen=True)
class Check:
    """A row of the table of checks: its Results have ids that begin with its name."""

    name: str
    title: str
    function: Function
    guide: str | None = None
    slow: bool = False  # left out by --quick
    results: int = 1  # how many Results it gives, for the progress line


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


def perform(check: Check, environment: Environment) -> Iterator[Result]:
    """A check's Results as they come, with their seconds; an error on the way is a Result too."""
    yield from timed(check.name, check.title, lambda: check.function(environment), check.guide)


def perform_plainly(function: Function, environment: Environment) -> Iterator[Result]:
    """The Results of a check's function, up to an error."""
    try:
        yield from function(environment)
    except HarnessError as error:
        yield error_result("error", "", error)


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
        except HarnessError as error:
            result = error_result(name, title, error)
            yield replace(result, guide=guide, seconds=time.monotonic() - started)
            return
        yield replace(result, guide=result.guide or guide, seconds=time.monotonic() - started)


def error_result(name: str, title: str, error: HarnessError) -> Result:
    """ERROR: the harness could not find out, and why."""
    evidence = {"detail": error.detail} if error.detail else {}
    return Result(name, title, Outcome.ERROR, f"could not find out: {error}", {}, evidence, error.remedy)


def matches(word: str, name: str) -> bool:
    """Whether a word of --only asks for this id: the id itself, or what it begins with up to a dot."""
    return name == word or name.startswith(word + ".")


def selected(checks: Sequence[Check], only: Sequence[str], quick: bool) -> list[Check]:
    """The checks to run: those that give a Result that a word of `only` asks for, else all, less the slow ones."""
    if only:
        return [check for check in checks if any(_may_give(check, word, checks) for word in only)]
    return [check for check in checks if not (quick and check.slow)]


def _may_give(check: Check, word: str, checks: Sequence[Check]) -> bool:
    """`attach` and `attach.path` ask for the check of that name; `attach.link` for the nearest above it."""
    if matches(word, check.name):
        return True
    above = [other.name for other in checks if matches(other.name, word)]
    return bool(above) and check.name == max(above, key=len)
