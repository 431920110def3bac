"""Each lab kernel has its failure and no other; lab:base has none, and there verify says what it says elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from harness.msp import mask
from harness.report import Outcome, Result
from harness.vm import everywhere
from harness.vm.job import Job
from harness.vm.kernels import Kernel
from harness.vm.machine import Machine
from harness.vm.run import run

BUILDS = "builds {}, half a minute of compiling after lab:base"

OWN = {
    "lab:no-pid-tgid": "guide-pid-tgid",
    "lab:no-cgroup-link": "attach-no-link",
    "lab:no-cgroup2": "attach-no-cgroup2-kernel",
    "lab:lockdown": "load-lockdown",
}
FAST = ("lab:no-pid-tgid", "lab:no-cgroup-link")


def _kernels(*names: str) -> list[object]:
    return [
        name if name in FAST else pytest.param(name, marks=pytest.mark.slow(reason=BUILDS.format(name)))
        for name in names
    ]


def results(machine: Machine, *words: str) -> Mapping[str, Result]:
    return {result.id: result for result in run(machine, Job(words)).results}


def reproduced(kernel: Kernel, *names: str) -> Mapping[str, Result]:
    found = results(Machine(kernel), "reproduce", *names)
    return {id.removeprefix("reproduce."): result for id, result in found.items()}


@pytest.mark.parametrize("kernel", ["lab:base"], indirect=True)
def test_base_verifies_like_any_kernel(kernel: Kernel) -> None:
    found = results(Machine(kernel), "verify", "--quick")
    assert [f"{id}: {result.summary}" for id, result in found.items() if result.outcome is not Outcome.PASS] == []
    assert {id.partition(".")[0] for id in found} >= {"load", "attach", "redirect", "authorization", "audit", "removal"}


@pytest.mark.parametrize("kernel", ["lab:base"], indirect=True)
def test_base_has_none_of_the_failures(kernel: Kernel) -> None:
    """The negative control: what the others show is theirs."""
    found = reproduced(kernel, *OWN.values(), "attach-no-privilege", "map-lsm")
    assert {name: result.outcome for name, result in found.items()} == dict.fromkeys(found, Outcome.SKIP)
    assert len(found) == len(OWN) + 2


@pytest.mark.parametrize("kernel", _kernels(*OWN), indirect=True)
def test_a_lab_kernel_has_its_failure_and_no_other_ones(kernel: Kernel) -> None:
    name = kernel.origin.partition(" ")[0]
    found = reproduced(kernel, *OWN.values())
    assert {each: result.outcome for each, result in found.items()} == {
        each: Outcome.PASS if each == OWN[name] else Outcome.SKIP for each in OWN.values()
    }


@pytest.mark.parametrize("kernel", ["lab:no-pid-tgid"], indirect=True)
def test_the_guides_log_line_for_line(kernel: Kernel) -> None:
    """Nothing set aside but what the mask names: the same lines, in the same order, and no other between them."""
    evidence = reproduced(kernel, "guide-pid-tgid")["guide-pid-tgid"].evidence
    assert evidence["lines that differ, and why"] == []
    side, log = evidence["side by side"], evidence["log"]
    assert isinstance(side, list)
    assert isinstance(log, str)
    assert len(side) == 29
    assert all(str(line).startswith("  ") for line in side)
    ours = [mask.masked(line) for line in log.splitlines()]
    assert ours[:29] == [mask.masked(str(line)[2:]) for line in side]
    assert ours[29:31] == ["17: (85) call bpf_get_current_pid_tgid#14", "unknown func bpf_get_current_pid_tgid#14"]


@pytest.mark.parametrize("kernel", ["lab:no-pid-tgid"], indirect=True)
def test_verify_finds_the_cause(kernel: Kernel) -> None:
    found = results(Machine(kernel), "verify", "--quick")["preflight.kernel"]
    assert (found.outcome, found.blocking) == (Outcome.FAIL, True)
    assert "bpf_get_current_pid_tgid in connect4 (mainline from 5.7)" in found.summary


@pytest.mark.parametrize("kernel", ["lab:no-cgroup-link"], indirect=True)
def test_redirection_holds_without_links(kernel: Kernel) -> None:
    found = results(Machine(kernel), "verify", "--quick", "--only", "preflight.kernel,load,attach,redirect")
    assert found["preflight.kernel"].outcome is Outcome.WARN
    assert "BPF_LINK_CREATE" in found["preflight.kernel"].summary
    assert {result.outcome for id, result in found.items() if id.startswith("redirect.")} == {Outcome.PASS}


@pytest.mark.parametrize("kernel", _kernels("lab:memlock"), indirect=True)
def test_a_limit_of_a_page_refuses_maps(kernel: Kernel) -> None:
    found = results(Machine(kernel), "verify", "--only", "preflight")["preflight.memlock"]
    assert found.outcome is Outcome.WARN
    assert "4096 B" in found.summary
    assert "EPERM" in found.summary


@pytest.mark.slow(reason="boots six kernels, five of them built here")
def test_every_failure_of_ebpf_is_had_on_some_kernel(kernel: Kernel) -> None:
    """What SKIP was on this machine's kernel is PASS on another, and the Result says where."""
    here = [Result(f"reproduce.{name}", name, Outcome.SKIP, "left out", {"why not here": "-"}) for name in (
        *OWN.values(), "map-memlock", "map-lsm", "attach-no-privilege")]  # fmt: skip
    told: list[str] = []
    found = list(everywhere.on_all_kernels(here, told.append))
    assert [f"{result.id}: {result.summary}" for result in found if result.outcome is not Outcome.PASS] == []
    assert all(str(result.evidence["kernel"]).startswith(("lab:", "bullseye", "trixie")) for result in found)
    assert told
