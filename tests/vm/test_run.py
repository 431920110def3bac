"""Jobs that end as they should, from a saved guest and from a cold boot, and guests that fail."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.report import Outcome, Report, Result
from harness.vm.job import Job
from harness.vm.kernels import Kernel
from harness.vm.machine import Cgroup, Machine
from harness.vm.run import run

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import datetime, json, os, pathlib, platform, time, uuid
from harness.kernel import cgroups
from harness.report import Outcome, Report, Result, json as format
def tell(**evidence):
    result = Result("script.ran", "A script", Outcome.PASS, "it ran", evidence)
    report = Report("a script", platform.release(), "", "", [result], "0", "", "", 0)
    pathlib.Path("report.json").write_text(format.dump(report))
"""


def script(kernel: Kernel | Machine, text: str, *, fresh: bool = False, timeout: float | None = None) -> Report:
    """Run Python text in a guest; tell(…) makes the evidence of its Report."""
    machine = kernel if isinstance(kernel, Machine) else Machine(kernel)
    job = Job(("python", "script.py"), {"script.py": (SCRIPT + text).encode()}, fresh, timeout)
    return run(machine, job)


def evidence(report: Report) -> Mapping[str, object]:
    assert [result.summary for result in report.results] == ["it ran"]
    return report.results[0].evidence


def failure(report: Report) -> Result:
    """The one Result of a guest that failed."""
    assert len(report.results) == 1
    assert report.results[0].outcome is Outcome.ERROR
    assert report.results[0].remedy
    return report.results[0]


def console(result: Result) -> str:
    lines = result.observed["console"]
    assert isinstance(lines, list)
    return "\n".join(map(str, lines))


def qemus(parent: int) -> list[int]:
    """The QEMU processes that a process has started."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(child) for child in children if "qemu" in Path(f"/proc/{child}/comm").read_text()]


def test_resumed_and_booted_guests_say_the_same(kernel: Kernel) -> None:
    def said(report: Report) -> list[tuple[str, Outcome]]:
        return [(result.id, result.outcome) for result in report.results]

    job = Job(("verify", "--quick"))
    resumed, booted = run(Machine(kernel), job), run(Machine(kernel), Job(job.arguments, fresh=True))
    assert "resumed" in resumed.target
    assert "booted" in booted.target
    assert said(resumed) == said(booted)
    assert {outcome for _, outcome in said(resumed)} == {Outcome.PASS}


LEAVE = """
pathlib.Path("/tmp/left").write_text("")
pathlib.Path("/sys/fs/cgroup/left").mkdir()
pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40001")
pathlib.Path("/sys/fs/bpf/left").mkdir()
os.environ["LEFT"] = "1"
"""
LOOK = """
ports = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
found = [path for path in ("/tmp/left", "/sys/fs/cgroup/left", "/sys/fs/bpf/left") if os.path.exists(path)]
tell(found=found, ports=ports, jobs=len(list(pathlib.Path("/tmp").glob("job-*"))), environment="LEFT" in os.environ)
"""


def test_no_job_sees_what_another_left(kernel: Kernel) -> None:
    left = script(kernel, LEAVE + LOOK)
    assert len(evidence(left)["found"]) == 3  # type: ignore[arg-type]
    assert evidence(left)["ports"] == ["40000", "40001"]
    seen = evidence(script(kernel, LOOK))
    assert seen["found"] == []
    assert seen["ports"] != ["40000", "40001"]
    assert (seen["jobs"], seen["environment"]) == (1, False)


def test_copies_have_the_time_and_randomness_of_their_own(kernel: Kernel) -> None:
    text = "import random; tell(now=time.time(), random=[uuid.uuid4().hex, random.random(), os.urandom(8).hex()])"
    first, second = (evidence(script(kernel, text)) for _ in range(2))
    assert abs(float(str(second["now"])) - time.time()) < 60
    assert all(a != b for a, b in zip(first["random"], second["random"], strict=True))  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("layout", "root", "found"),
    [
        (Cgroup.V2, "cgroup2", "unified"),
        (Cgroup.HYBRID, "tmpfs", "hybrid"),
        (Cgroup.V1, "tmpfs", "legacy"),
        (Cgroup.NONE, "nothing", "none"),
    ],
)
def test_layouts_of_cgroups(kernel: Kernel, layout: Cgroup, root: str, found: str) -> None:
    text = "here = cgroups.layout()\n"
    text += "tell(name=here.name, root=here.configured_root_type, v2=[str(mount.point) for mount in here.cgroup2])"
    told = evidence(script(Machine(kernel, cgroup=layout), text, fresh=True))
    assert (told["name"], told["root"]) == (found, root)
    assert told["v2"] == {"v2": ["/sys/fs/cgroup"], "hybrid": ["/sys/fs/cgroup/unified"]}.get(layout, [])
