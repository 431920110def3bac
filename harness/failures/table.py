"""The table of failures: every one of the guide that a kernel can have, in the order of the guide."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from harness.errors import HarnessError
from harness.failures.applied import APPLIED
from harness.failures.applied_order import ORDER
from harness.failures.attach_conflicts import CONFLICTS
from harness.failures.attach_targets import TARGETS
from harness.failures.guide_stream import GUIDE
from harness.failures.key_failures import KEYS
from harness.failures.model import Failure
from harness.failures.privileges import PRIVILEGES
from harness.failures.refusals import REFUSALS

FAILURES: tuple[Failure, ...] = (*GUIDE, *REFUSALS, *PRIVILEGES, *TARGETS, *CONFLICTS, *APPLIED, *ORDER, *KEYS)

ALL = "all"


def catalogue() -> tuple[Failure, ...]:
    """Every failure, with its name, title, place in the guide, code and what it needs of a kernel."""
    return FAILURES


def chosen(names: Sequence[str]) -> list[Failure]:
    """The failures of these names, in the table's order; `all` or no name stands for every one.

    A name may be the beginning of several, up to a dash: `attach` for all of attach-….
    Raises HarnessError for a name that is nobody's, with the nearest.
    """
    if not names or ALL in names:
        return list(FAILURES)
    for name in names:
        if not any(_named(name, failure) for failure in FAILURES):
            near = difflib.get_close_matches(name, [failure.name for failure in FAILURES], 3, 0.5)
            remedy = f"did you mean {', '.join(near)}?" if near else "`reproduce --list` shows every name"
            raise HarnessError(f"reproduce {name!r}", "there is no failure of that name", remedy)
    return [failure for failure in FAILURES if any(_named(name, failure) for name in names)]


def _named(name: str, failure: Failure) -> bool:
    return failure.name == name or failure.name.startswith(name + "-")
