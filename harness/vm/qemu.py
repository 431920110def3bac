"""A boot of a kernel with the guest under QEMU: a command runs in it, and its output and exit status come home."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness import interruption
from harness.command import run, text
from harness.errors import HarnessError
from harness.kernel import packages, processes
from harness.vm.guest import PORTS, Archive, Guest, initramfs
from harness.vm.kernels import Kernel

BINARY = "qemu-system-x86_64"
CONSOLE_LINES = 30  # of the console, in an error's detail
_KVM_SECONDS = 20  # a working KVM needs one; one that does not work may hang
_ALIVE = "guest: alive"


@dataclass(frozen=True)
class Job:
    """A command for a guest. timeout is in seconds from exec of QEMU to its end."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 300
    memory: int = 1024  # MiB
    cpus: int = 2


@dataclass(frozen=True)
class Ended:
    """What came home: the command's exit status and output, the console, and by what QEMU ran the guest's code."""

    status: int
    stdout: str
    stderr: str
    console: str
    accelerator: str
    seconds: float


def boot(kernel: Kernel, guest: Guest, job: Job) -> Ended:
    """Boot, run the job, and wait for the end.

    Raises HarnessError with the console's last lines when QEMU cannot run, when the guest does not end in time, or
    ends without having told an exit status. No QEMU is left behind, also when this process is killed.
    """
    accelerator = usable_accelerator(kernel, guest)
    attempted = f"run `{' '.join(job.command)}` on {kernel.release} in a guest ({accelerator})"
    with tempfile.TemporaryDirectory(prefix="msp-harness-vm-") as name:
        place = Path(name)
        (place / "initramfs").write_bytes(initramfs(guest, kernel, job.command, job.environment))
        ports = [
            word
            for port in PORTS
            for word in (
                "-chardev", f"file,id={port},path={place / port}",
                "-device", f"virtserialport,chardev={port},name={port}",
            )
        ]  # fmt: skip
        # snapshot: what the guest writes goes to a file that is deleted already.
        disk = f"file={guest.root},format=raw,if=none,id=root,snapshot=on,cache=unsafe"
        devices = ["-device", "virtio-serial-pci", "-device", "virtio-rng-pci", "-device", "virtio-blk-pci,drive=root"]
        begin = time.monotonic()
        happened = _qemu(
            kernel, accelerator, place, ["-drive", disk, *devices, *ports], job.memory, job.cpus, job.timeout
        )
        seconds = time.monotonic() - begin
        console = _read(place / "console")
        status = _read(place / "status").strip()
        if happened or not status.isdecimal():
            happened = happened or "it ended without having told an exit status"
            detail = "\n".join([*console.splitlines()[-CONSOLE_LINES:], *_read(place / "stderr").splitlines()[-10:]])
            raise HarnessError(attempted, happened, "its console's last lines say why", detail=detail)
        return Ended(int(status), _read(place / "stdout"), _read(place / "stderr"), console, accelerator, seconds)


def _read(path: Path) -> str:
    return text(path.read_bytes()).replace("\r\n", "\n") if path.exists() else ""


@functools.cache
def usable_accelerator(kernel: Kernel, guest: Guest) -> str:
    """kvm where this kernel really starts under it, else tcg. A /dev/kvm that is there may not run a guest."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    archive = Archive()
    archive.file("init", f"#!/bin/busybox sh\necho '{_ALIVE}'\n/bin/busybox poweroff -f\n".encode(), mode=0o755)
    archive.copy("bin/busybox", guest.busybox)
    with tempfile.TemporaryDirectory(prefix="msp-harness-vm-") as name:
        place = Path(name)
        (place / "initramfs").write_bytes(archive.finished())
        failed = _qemu(kernel, "kvm", place, [], 256, 1, _KVM_SECONDS)
        return "kvm" if not failed and _ALIVE in _read(place / "console") else "tcg"


def _qemu(
    kernel: Kernel, accelerator: str, place: Path, devices: Sequence[str], memory: int, cpus: int, timeout: float
) -> str:
    """Run QEMU to its end, the console going to place; what went wrong with it, or nothing."""
    binary = shutil.which(BINARY)
    if binary is None:
        raise HarnessError("boot a kernel", f"there is no {BINARY}", packages.install_hint([packages.QEMU]))
    words = "console=ttyS0 quiet loglevel=4 panic=-1 no_timer_check cryptomgr.notests"
    command = [
        binary, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-machine", "q35", "-accel", accelerator, "-cpu", "host" if accelerator == "kvm" else "max",
        "-m", str(memory), "-smp", str(cpus),
        "-kernel", str(kernel.image), "-initrd", str(place / "initramfs"), "-append", words,
        "-serial", f"file:{place / 'console'}", *devices,
    ]  # fmt: skip
    parent = os.getpid()
    with (place / "qemu").open("wb") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            preexec_fn=lambda: processes.die_with_parent(parent),
        )
    try:
        status = process.wait(timeout)
    except subprocess.TimeoutExpired:
        return f"the guest had not ended after {timeout:g} s"
    finally:
        process.kill()
        process.wait()
    interruption.check()
    said = _read(place / "qemu").strip().splitlines()
    return f"QEMU ended with status {status}: {said[-1] if said else 'nothing on stderr'}" if status else ""


def version() -> str:
    """QEMU's own first line."""
    return text(run([BINARY, "--version"]).stdout).splitlines()[0]
