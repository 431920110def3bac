"""Boots that end as they should, and boots that do not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.vm import qemu
from harness.vm.guest import Guest
from harness.vm.kernels import Kernel


def qemus(parent: int) -> list[int]:
    """The QEMU processes that a process has started."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(child) for child in children if "qemu" in Path(f"/proc/{child}/comm").read_text()]


def test_output_and_status_come_home(kernel: Kernel, guest_image: Guest) -> None:
    script = 'echo "$GREETING from $(uname -r)"; echo warning >&2; exit 7'
    ended = qemu.boot(kernel, guest_image, qemu.Job(["sh", "-c", script], {"GREETING": "it's me"}))
    assert (ended.status, ended.stdout, ended.stderr) == (7, f"it's me from {kernel.release}\n", "warning\n")
    assert ended.accelerator in ("kvm", "tcg")
    assert qemus(os.getpid()) == []


def test_what_a_guest_writes_is_lost(kernel: Kernel, guest_image: Guest) -> None:
    before = guest_image.root.stat().st_mtime_ns
    script = "test ! -e /left && echo text > /left && sync && test -e /left"
    assert [qemu.boot(kernel, guest_image, qemu.Job(["sh", "-c", script])).status for _ in range(2)] == [0, 0]
    assert guest_image.root.stat().st_mtime_ns == before


def test_a_panic_is_told_with_the_console(kernel: Kernel, guest_image: Guest) -> None:
    job = qemu.Job(["sh", "-c", "echo c > /proc/sysrq-trigger"])
    with pytest.raises(HarnessError, match="the kernel panicked: sysrq triggered crash") as raised:
        qemu.boot(kernel, guest_image, job)
    assert "Call Trace" in raised.value.detail
    assert qemus(os.getpid()) == []


def test_a_guest_without_its_root_is_told(kernel: Kernel, guest_image: Guest, tmp_path: Path) -> None:
    empty = tmp_path / "root"
    with empty.open("wb") as file:
        file.truncate(1 << 20)
    with pytest.raises(HarnessError, match="ended and told no exit status") as raised:
        qemu.boot(kernel, Guest(empty, guest_image.busybox), qemu.Job(["true"]))
    assert "guest: the root cannot be mounted" in raised.value.detail


def test_a_guest_that_hangs_is_ended(kernel: Kernel, guest_image: Guest) -> None:
    with pytest.raises(HarnessError, match="had not ended after 1 s"):
        qemu.boot(kernel, guest_image, qemu.Job(["sleep", "1000"], timeout=1))
    assert qemus(os.getpid()) == []


def test_qemu_ends_with_whoever_started_it(kernel: Kernel, guest_image: Guest) -> None:
    """Also when that is killed."""
    code = (
        "from harness.vm import guest, qemu, spec\n"
        "qemu.boot(spec.resolve('bookworm'), guest.get(), qemu.Job(['sleep', '1000']))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    try:
        deadline = time.monotonic() + 60
        while not (started := qemus(parent.pid)):
            assert time.monotonic() < deadline
            assert parent.poll() is None
            time.sleep(0.05)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    for pid in started:
        deadline = time.monotonic() + 10
        while Path(f"/proc/{pid}/cmdline").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not Path(f"/proc/{pid}/cmdline").exists()
