"""The guide's failures on an older kernel: one whose verifier prints what the guide prints."""

from __future__ import annotations

import pytest

from harness.report import Outcome
from harness.vm.job import Job
from harness.vm.kernels import Kernel
from harness.vm.machine import Machine
from harness.vm.run import run

NEED_ANOTHER = {
    "guide-pid-tgid",
    "map-lsm",
    "load-lockdown",
    "attach-no-cgroup2-kernel",
    "attach-no-link",
    "attach-no-privilege",
}
"""Failures that neither this kernel nor 5.10 can have."""

NAMES = ("guide", "load", "attach", "map")


@pytest.mark.parametrize("kernel", ["bullseye"], indirect=True)
def test_failures_come_about_on_an_older_kernel(kernel: Kernel) -> None:
    report = run(Machine(kernel), Job(("reproduce", *NAMES)))
    assert [result.summary for result in report.results if result.outcome in (Outcome.FAIL, Outcome.ERROR)] == []
    found = {result.id.removeprefix("reproduce."): result for result in report.results}
    assert found["map-memlock"].outcome is Outcome.PASS  # 5.10 charges maps, which newer kernels do not
    assert "29 of 29" in found["guide-log"].summary  # the guide's log, line for line, without setting anything aside
    assert {name for name, result in found.items() if result.outcome is Outcome.SKIP} <= NEED_ANOTHER
