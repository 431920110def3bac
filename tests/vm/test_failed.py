"""Guests that fail, each for real: one Result, the cause in its summary, the console beside it."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.vm import guest, limits
from harness.vm.guest import Guest
from harness.vm.job import Job
from harness.vm.kernels import Kernel
from harness.vm.limits import Limit
from harness.vm.machine import Cgroup, Machine
from harness.vm.run import run
from tests.vm.script import console, evidence, failure, qemus, script


@pytest.fixture(autouse=True)
def no_qemu_is_left() -> None:
    assert qemus(os.getpid()) == []


def test_a_panic(kernel: Kernel) -> None:
    found = failure(script(kernel, "pathlib.Path('/proc/sysrq-trigger').write_text('c')"))
    assert found.id == "guest.panic"
    assert "the kernel panicked: sysrq triggered crash" in found.summary
    assert "Call Trace" in console(found)


def test_a_job_that_never_ends(kernel: Kernel) -> None:
    found = failure(script(kernel, "print('begun', file=__import__('sys').stderr)\ntime.sleep(1000)", timeout=8))
    assert found.id == "guest.hang"
    assert "8 s (--timeout)" in found.summary
    assert found.observed["stderr"] == ["begun"]


def test_a_full_disk(kernel: Kernel) -> None:
    text = "file = open('/tmp/large', 'wb')\nwhile True: file.write(bytes(1 << 20)); file.flush()"
    found = failure(script(kernel, text))
    assert found.id == "guest.disk"
    assert "/tmp" in found.summary


def test_no_memory(kernel: Kernel) -> None:
    found = failure(script(kernel, "held = []\nwhile True: held.append(bytearray(16 << 20))"))
    assert found.id == "guest.memory"
    assert "the kernel killed 1" in found.summary


def test_a_command_without_a_report(kernel: Kernel) -> None:
    found = failure(run(Machine(kernel), Job(("verify", "--only", "nonsense"))))
    assert found.id == "guest.report"
    assert "ended with status 2" in found.summary
    assert "no check is named nonsense" in found.summary


def test_a_guest_that_loses_its_ports(kernel: Kernel) -> None:
    text = (
        "for device in pathlib.Path('/sys/bus/virtio/drivers/virtio_console').glob('virtio*'):\n"
        "    (device / 'driver' / 'unbind').write_text(device.name)\n"
        "time.sleep(1000)"
    )
    found = failure(script(kernel, text, timeout=10))
    assert found.id in ("guest.ended", "guest.hang")


def test_a_guest_that_loses_its_console_still_answers(kernel: Kernel) -> None:
    text = "pathlib.Path('/sys/bus/platform/drivers/serial8250/unbind').write_text('serial8250')\n"
    text += "tell(bound=os.path.exists('/sys/bus/platform/drivers/serial8250/serial8250'))"
    assert evidence(script(kernel, text)) == {"bound": False}


def test_a_file_that_is_no_kernel(kernel: Kernel, tmp_path: Path) -> None:
    file = tmp_path / "vmlinuz"
    file.write_bytes(b"no kernel" * 1000)
    found = failure(run(Machine(replace(kernel, image=file, vmlinux=None, digest="sha256:none")), Job(("verify",))))
    assert found.id == "guest.start"
    assert "bzImage" in str(found.remedy)


def test_a_kernel_that_says_nothing(kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code is gone: it ends in a triple fault, or goes round in circles."""
    assert kernel.vmlinux
    content = bytearray(kernel.vmlinux.read_bytes())
    content[1 << 20 : 8 << 20] = bytes(7 << 20)
    file = tmp_path / "vmlinux"
    file.write_bytes(content)
    monkeypatch.setattr(limits, "boot", lambda machine, by: Limit(8, "a test"))
    found = failure(run(Machine(replace(kernel, vmlinux=file, digest="sha256:broken")), Job(("verify",))))
    assert found.id == "guest.start"
    assert "nothing came from it" in found.summary or "triple fault" in found.summary


@pytest.mark.parametrize(
    ("without", "told"),
    [("virtio_blk", "no /dev/vda"), ("virtio_console", "virtio_console is missing")],
)
def test_a_module_is_missing(kernel: Kernel, without: str, told: str, tmp_path: Path) -> None:
    modules = tmp_path / "modules"
    shutil.copytree(kernel.modules, modules)
    table = (modules / "modules.dep").read_text()
    (modules / "modules.dep").write_text("".join(line for line in table.splitlines(True) if without not in line))
    found = failure(run(Machine(replace(kernel, modules=modules, digest=f"sha256:{without}")), Job(("verify",))))
    assert found.id == "guest.start"
    assert told in found.summary
    assert without in str(found.remedy)


def test_a_root_that_is_damaged(kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "root"
    with empty.open("wb") as file:
        file.truncate(1 << 20)
    usual = guest.get()
    monkeypatch.setattr(guest, "get", lambda tell: Guest(empty, usual.busybox, "empty"))
    found = failure(run(Machine(kernel), Job(("verify",), fresh=True)))
    assert found.id == "guest.start"
    assert "the root cannot be mounted" in found.summary


def test_nothing_to_start(kernel: Kernel) -> None:
    found = failure(run(Machine(kernel, words=("rdinit=/nothing",)), Job(("verify",), fresh=True)))
    assert found.id == "guest.start"
    assert "the kernel found nothing to start: VFS: Unable to mount root fs" in found.summary


def test_a_kernel_without_v1_controllers(kernel: Kernel) -> None:
    """Told as that, and not as a verdict on a machine that was asked for and never was."""
    machine = Machine(kernel, cgroup=Cgroup.V1, words=("cgroup_no_v1=all",))
    found = failure(run(machine, Job(("verify",), fresh=True)))
    assert found.id == "guest.cgroup"
    assert "no v1 controllers" in found.summary
