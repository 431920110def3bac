"""Whole machines with cgroups laid out in every way: what verify finds, and the guide's attach failures on them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from harness.msp import codes
from harness.report import Outcome, Result
from harness.vm.job import Job
from harness.vm.kernels import Kernel
from harness.vm.machine import Cgroup, Machine
from harness.vm.run import run

LAYOUTS = {
    Cgroup.V2: (Outcome.PASS, None),
    Cgroup.HYBRID: (Outcome.WARN, codes.CGROUP2_ELSEWHERE),
    Cgroup.V1: (Outcome.FAIL, codes.NO_CGROUP2_MOUNTED),
    Cgroup.NONE: (Outcome.FAIL, codes.NO_CGROUP2_MOUNTED),
}


def results(machine: Machine, *words: str) -> Mapping[str, Result]:
    return {result.id: result for result in run(machine, Job(words)).results}


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_layout_and_what_comes_of_it(kernel: Kernel, layout: Cgroup) -> None:
    machine = Machine(kernel, cgroup=layout)
    outcome, code = LAYOUTS[layout]
    found = results(machine, "verify", "--only", "preflight")["preflight.cgroup2"]
    assert (found.outcome, found.code) == (outcome, code.id if code else None)
    assert found.evidence["layout"] == {"v2": "unified", "hybrid": "hybrid", "v1": "legacy", "none": "none"}[layout]

    shown = results(machine, "reproduce", "attach-no-cgroup2", "attach-hybrid", "attach-tmpfs", "attach-v1")
    mounted = layout in (Cgroup.V2, Cgroup.HYBRID)
    for name in ("attach-hybrid", "attach-tmpfs", "attach-v1"):
        result = shown[f"reproduce.{name}"]
        assert result.outcome is (Outcome.PASS if mounted else Outcome.SKIP), result.summary
        assert mounted or "no cgroup2 is mounted" in result.summary
    missing = shown["reproduce.attach-no-cgroup2"]
    assert missing.outcome is Outcome.PASS, missing.summary
    assert missing.evidence["answer"] == "EBADF (Bad file descriptor)"
    if not mounted:  # the machine itself, as the agent finds it
        where = {Cgroup.V1: "tmpfs", Cgroup.NONE: "sysfs"}[layout]
        assert missing.evidence["did"] == f"BPF_LINK_CREATE on /sys/fs/cgroup ({where})"


@pytest.mark.parametrize("kernel", ["bookworm"], indirect=True)
def test_records_on_many_cpus(kernel: Kernel) -> None:
    """An LRU map with a free list for each processor drops records before it is full; ours is large enough for that.

    How early depends on which processors the clients run on: 128 to 160 of 200 with one or two, 72 to 128 with eight. A
    processor's list takes 128 entries at a time, so a third one may find none: on a host under load, 0 was seen.
    """
    found = results(Machine(kernel, cpus=8), "verify", "--only", "audit.capacity")
    kept = {id: result.evidence["all there with"] for id, result in found.items()}
    agents, ours = kept["audit.capacity.agent"], kept["audit.capacity.ours"]
    assert isinstance(agents, int)
    assert isinstance(ours, int)
    assert agents < 200 < ours
    assert 10 * agents <= ours
    assert found["audit.capacity.agent"].evidence["first lost within"]
