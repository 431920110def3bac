"""The table of the checks of `msp-harness verify`, and what of it a user asked for."""

from __future__ import annotations

from collections.abc import Sequence

from harness.checks import attach, audit, chain, loading, preflight, redirect, removal, selftest
from harness.checks.base import Check, selected
from harness.checks.names import TITLES
from harness.checks.options import Options, with_census, with_self_test
from harness.msp import guide

_EXPLAIN = "`msp-harness verify --explain` shows the link of the chain that breaks"
_AUDIT = "a proxy that trusts these records may answer the wrong client: use a kernel on which they are right"
_REMOVAL = "`bpftool cgroup tree` and `bpftool link` show what is still attached, and who holds it"

CHECKS: Sequence[Check] = (
    Check("load", TITLES["load"], loading.loaded, guide.LOAD_FAILED, results=3),
    Check("attach", TITLES["attach"], attach.ways, guide.ATTACH_FAILED, results=4),
    Check("attach.path", TITLES["attach.path"], attach.neighbours, guide.ATTACH_FAILED),
    Check(
        "redirect",
        TITLES["redirect"],
        redirect.redirected,
        guide.NOT_APPLIED,
        remedy=_EXPLAIN,
        results=3,
    ),
    Check("untouched", TITLES["untouched"], redirect.untouched, guide.NOT_APPLIED, results=6),
    Check("authorization", TITLES["authorization"], redirect.authorized, guide.NOT_APPLIED, results=6),
    Check("audit", TITLES["audit"], audit.audited, guide.NOT_APPLIED, remedy=_AUDIT, results=6),
    Check("removal", TITLES["removal"], removal.removed, guide.NOT_APPLIED, remedy=_REMOVAL, results=5),
    Check("chain", TITLES["chain"], chain.chain, guide.NOT_APPLIED, results=3),
    Check("audit.capacity", TITLES["audit.capacity"], audit.capacity, slow=True, results=2),
)
"""The table of checks, in the order in which they run. preflight comes before, the census and the self-test after."""


def expected(options: Options) -> int:
    """About how many Results there will be, for the progress line."""
    count = sum(check.results for check in selected(CHECKS, options.only, options.quick))
    count += preflight.RESULTS if not options.only else 0
    if with_census(options):
        from harness.checks.census_rows import ROWS  # what --quick does not need, it does not wait for

        count += len(ROWS)
    return count + (len(selftest.FAULTS) if with_self_test(options) else 0)
