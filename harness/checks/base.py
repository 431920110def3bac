"""What a check is, what it works with, and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from harness.checks.options import matches
from harness.checks.results import error_result, timed
from harness.errors import HarnessError
from harness.lab.lab import Lab
from harness.lab.redirection import Redirection, redirect
from harness.lab.state import Run
from harness.program.attach import Way
from harness.program.load import Loaded
from harness.report import Outcome, Result


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
    remedy: str | None = None  # for a FAIL that has none of its own
    results: int = 1  # how many Results it gives, for the progress line


def perform(check: Check, environment: Environment) -> Iterator[Result]:
    """A check's Results as they come, with their seconds; an error on the way is a Result too."""
    for result in timed(check.name, check.title, lambda: check.function(environment), check.guide):
        needs_one = result.outcome is Outcome.FAIL and result.remedy is None
        yield replace(result, remedy=check.remedy) if needs_one else result


def perform_plainly(function: Function, environment: Environment) -> Iterator[Result]:
    """The Results of a check's function, up to an error."""
    try:
        yield from function(environment)
    except HarnessError as error:
        yield error_result("error", "", error)


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
