"""The table of the checks of `msp-harness verify`, and what of it a user asked for."""

from __future__ import annotations

from collections.abc import Sequence

from harness.checks import attach, audit, chain, loading, preflight, redirect, removal, selftest
from harness.checks.base import Check, selected
from harness.checks.options import Options, matches, with_census, with_self_test
from harness.msp import guide

_EXPLAIN = "`msp-harness verify --explain` shows the link of the chain that breaks"
_AUDIT = "a proxy that trusts these records may answer the wrong client: use a kernel on which they are right"
_REMOVAL = "`bpftool cgroup tree` and `bpftool link` show what is still attached, and who holds it"

CHECKS: Sequence[Check] = (
    Check("load", "Programs and maps are in the kernel", loading.loaded, guide.LOAD_FAILED, results=3),
    Check("attach", "Ways of attaching", attach.ways, guide.ATTACH_FAILED, results=4),
    Check("attach.path", "What others attached on the path", attach.neighbours, guide.ATTACH_FAILED),
    Check(
        "redirect",
        "The three endpoints are redirected",
        redirect.redirected,
        guide.NOT_APPLIED,
        remedy=_EXPLAIN,
        results=3,
    ),
    Check("untouched", "What must not be redirected", redirect.untouched, guide.NOT_APPLIED, results=6),
    Check("authorization", "Who may ask what, end to end", redirect.authorized, guide.NOT_APPLIED, results=6),
    Check("audit", "Records name the right client", audit.audited, guide.NOT_APPLIED, remedy=_AUDIT, results=6),
    Check(
        "removal", "What is taken away stops at once", removal.removed, guide.NOT_APPLIED, remedy=_REMOVAL, results=5
    ),
    Check("chain", "The chain of proof (--explain shows it)", chain.chain, guide.NOT_APPLIED, results=3),
    Check("audit.capacity", "Connects at once until a record is lost", audit.capacity, slow=True, results=2),
)
"""The table of checks, in the order in which they run. preflight comes before, the census and the self-test after."""

BEFORE = (("preflight", "What this machine and kernel have"),)
AFTER = (
    ("census", "How some thirty kinds of client fare (left out by --quick)"),
    ("selftest", "Broken programs are caught (with --self-test)"),
)


def names() -> list[tuple[str, str]]:
    """Every check's name and title, in the order in which they run."""
    return [*BEFORE, *((check.name, check.title) for check in CHECKS), *AFTER]


def unknown(only: Sequence[str]) -> list[str]:
    """The words of --only that no check answers to."""
    known = [name for name, _ in names()]
    return [word for word in only if not any(matches(word, name) or matches(name, word) for name in known)]


def expected(options: Options) -> int:
    """About how many Results there will be, for the progress line."""
    count = sum(check.results for check in selected(CHECKS, options.only, options.quick))
    count += preflight.RESULTS if not options.only else 0
    if with_census(options):
        from harness.checks.census_rows import ROWS  # what --quick does not need, it does not wait for

        count += len(ROWS)
    return count + (len(selftest.FAULTS) if with_self_test(options) else 0)
