"""Machines: what can be varied, and what cannot be a machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.vm import job, limits, qemu
from harness.vm.job import Job
from harness.vm.kernels import Kernel
from harness.vm.machine import Cgroup, Machine, vary

KERNEL = Kernel("6.1.0", "a test", Path("vmlinuz"), Path("modules"), "sha256:" + "0" * 64, None)


def test_without_a_specification_it_is_the_machine_itself() -> None:
    assert vary(KERNEL, []) == [Machine(KERNEL)]
    assert Machine(KERNEL).variation == ""


def test_every_combination_once() -> None:
    machines = vary(KERNEL, ["cgroup=v2,hybrid,v2", "cpus=1,8"])
    assert [(machine.cgroup, machine.cpus) for machine in machines] == [
        (Cgroup.V2, 1), (Cgroup.V2, 8), (Cgroup.HYBRID, 1), (Cgroup.HYBRID, 8),
    ]  # fmt: skip
    assert [machine.variation for machine in machines] == ["", "cpus=8", "cgroup=hybrid", "cgroup=hybrid cpus=8"]


def test_security_modules_are_joined_by_a_plus() -> None:
    machines = vary(KERNEL, ["lsm=bpf+apparmor,"])
    assert [machine.lsm for machine in machines] == ["bpf,apparmor", ""]
    assert "lsm=bpf,apparmor" in qemu.words(machines[0])
    assert not [word for word in qemu.words(machines[1]) if word.startswith("lsm=")]


@pytest.mark.parametrize(
    "wrong",
    [
        "cgroup",
        "cgroup=v3",
        "color=red",
        "cpus=0",
        "cpus=many",
        "cpus=65",
        "memory=10",
        "memory=-1",
        "lsm=a b",
        "=",
        "",
    ],
)
def test_what_makes_no_sense_is_refused(wrong: str) -> None:
    with pytest.raises(HarnessError):
        vary(KERNEL, [wrong])


@pytest.mark.parametrize("name", ["/etc/passwd", "../object", "a/../../b", ""])
def test_a_file_of_a_job_lies_in_its_directory(name: str) -> None:
    with pytest.raises(HarnessError, match="no relative path"):
        Job(("verify",), {name: b""})
    assert job.Job(("verify",), {"object/a.o": b""}).files


class TestLimits:
    """From measured boots, and never without any."""

    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MSP_HARNESS_CACHE", str(tmp_path))

    def test_a_kernel_that_was_never_measured_has_more_time(self) -> None:
        unmeasured = limits.boot(Machine(KERNEL), "tcg")
        assert "never measured" in f"{unmeasured}"
        limits.remember(Machine(KERNEL), "tcg", 5)
        limits.remember(Machine(KERNEL), "tcg", 4)
        measured = limits.boot(Machine(KERNEL), "tcg")
        assert measured.seconds < unmeasured.seconds
        assert "5.0 s" in f"{measured}"  # the slowest

    def test_a_slow_machine_gives_more(self) -> None:
        limits.remember(Machine(KERNEL), "tcg", 5)
        before = limits.job(Machine(KERNEL), "tcg", ["verify"]).seconds
        limits.remember(Machine(KERNEL), "tcg", 50)
        assert limits.job(Machine(KERNEL), "tcg", ["verify"]).seconds == 10 * before
        assert limits.measured(Machine(KERNEL), "kvm") == []  # another machine in truth

    @pytest.mark.parametrize("content", ["", "{", "7", '["x"]', "[null]", "[-1, 1e9]", '{"a": 1}'])
    def test_a_damaged_file_is_no_measure(self, content: str) -> None:
        limits.remember(Machine(KERNEL), "tcg", 5)
        limits._place(Machine(KERNEL), "tcg").write_text(content)
        assert limits.measured(Machine(KERNEL), "tcg") == []
        assert limits.boot(Machine(KERNEL), "tcg").seconds > 0
