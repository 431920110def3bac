"""Scripts as jobs, and what tests look at afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from harness.report import Outcome, Report, Result
from harness.vm.job import Job
from harness.vm.kernels import Kernel
from harness.vm.machine import Machine
from harness.vm.run import run

BEGIN = """
import os, pathlib, platform, time, uuid
from harness.kernel import cgroups
from harness.report import Outcome, Report, Result, json as format
def tell(**evidence):
    result = Result("script.ran", "A script", Outcome.PASS, "it ran", evidence)
    report = Report("a script", platform.release(), "", "", [result], "0", "", "", 0)
    pathlib.Path("report.json").write_text(format.dump(report))
"""


def script(machine: Kernel | Machine, text: str, *, fresh: bool = False, timeout: float | None = None) -> Report:
    """Run Python text in a guest; tell(…) makes the evidence of its Report."""
    job = Job(("python", "script.py"), {"script.py": (BEGIN + text).encode()}, fresh, timeout)
    return run(machine if isinstance(machine, Machine) else Machine(machine), job)


def evidence(report: Report) -> Mapping[str, object]:
    """What a script told."""
    assert [result.summary for result in report.results] == ["it ran"]
    return report.results[0].evidence


def failure(report: Report) -> Result:
    """The one Result of a guest that failed."""
    (result,) = report.results
    assert result.outcome is Outcome.ERROR
    assert result.remedy
    return result


def console(result: Result) -> str:
    """What a failed guest's console had last."""
    lines = result.observed["console"]
    assert isinstance(lines, list)
    return "\n".join(map(str, lines))


def qemus(parent: int) -> list[int]:
    """The QEMU processes that a process has started, itself or by others."""
    found = []
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        with suppress(OSError):  # it has just ended
            found += [int(child)] if "qemu" in Path(f"/proc/{child}/comm").read_text() else qemus(int(child))
    return found
