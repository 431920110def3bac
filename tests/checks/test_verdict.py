"""The one sentence under a verification's report."""

from __future__ import annotations

import pytest

from harness.checks.recording import Recording
from harness.checks.verify import verdict
from harness.report import Outcome, Result


def result(name: str, outcome: Outcome, **more: object) -> Result:
    return Result(name, "", outcome, "why", **more)  # type: ignore[arg-type]


PASSED = [result(f"redirect.{endpoint}", Outcome.PASS) for endpoint in ("imds", "wireserver", "hostgaplugin")]


@pytest.mark.parametrize(
    ("results", "words"),
    [
        (PASSED, "redirection holds on"),
        ([result("chain.imds", Outcome.PASS)], "redirection holds on"),
        ([*PASSED, result("census.mapped", Outcome.WARN)], "redirection holds on"),
        ([*PASSED[1:], result("redirect.imds", Outcome.FAIL)], "does not hold on"),
        ([result("chain.imds", Outcome.FAIL)], "does not hold on"),
        ([result("load.plain", Outcome.FAIL)], "does not hold on"),
        ([*PASSED, result("audit.threads", Outcome.FAIL)], "not everything that belongs to it is right"),
        ([*PASSED, result("census", Outcome.ERROR)], "1 of 4 checks could not find out"),
        ([*PASSED, result("selftest.no-audit", Outcome.FAIL)], "cannot be trusted"),
        ([result("preflight.privileges", Outcome.FAIL, blocking=True)], "cannot run the verification"),
        ([result("load.maps", Outcome.PASS)], "redirection itself was not checked"),
        ([result("redirect.imds", Outcome.SKIP)], "redirection itself was not checked"),
    ],
)
def test_verdict(results: list[Result], words: str) -> None:
    assert words in verdict(Recording("t").report(results))
