"""A boot of a kernel with the guest under QEMU: a command runs in it, and its output and exit status come home."""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from harness import interruption
from harness.command import text
from harness.errors import HarnessError
from harness.kernel import packages, processes
from harness.vm.guest import PORTS, Archive, Guest, initramfs
from harness.vm.kernels import Kernel

BINARY = "qemu-system-x86_64"
CONSOLE_LINES = 60  # of the console, in an error's detail
STDERR_LINES = 10  # of the job's stderr, there
_KVM_SECONDS = 20  # a working KVM needs one; one that does not work may hang
_PANIC = re.compile(r"Kernel panic - not syncing: (.*)")
_ALIVE = "guest: alive"
_KERNEL_WORDS = "console=ttyS0 quiet loglevel=4 panic=-1 no_timer_check cryptomgr.notests"


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
    ends without having told an exit status. Nothing is left behind, also when this process is killed: QEMU ends with
    it, and whatever the two share is memory.
    """
    accelerator = usable_accelerator(kernel, guest)
    attempted = f"run `{shlex.join(job.command)}` on {kernel.release} in a guest ({accelerator})"
    with ExitStack() as stack:
        ports = {name: stack.enter_context(_memory(name)) for name in PORTS}
        words = [word for name, number in ports.items() for word in _port(name, number)]
        begin = time.monotonic()
        console, happened = _run(
            kernel,
            accelerator,
            initramfs(guest, kernel, job.command, job.environment),
            [*_disk(guest), *words],
            job,
            list(ports.values()),
        )
        seconds = time.monotonic() - begin
        said = {name: _content(number) for name, number in ports.items()}
    status = said["status"].strip()
    if happened or not status.isdecimal():
        panic = _PANIC.search(console)
        happened = f"the kernel panicked: {panic[1]}" if panic else happened or "it ended and told no exit status"
        last = [*console.splitlines()[-CONSOLE_LINES:], *said["stderr"].splitlines()[-STDERR_LINES:]]
        raise HarnessError(attempted, happened, "its last lines say more (-v)", detail="\n".join(last))
    return Ended(int(status), said["stdout"], said["stderr"], console, accelerator, seconds)


@functools.cache
def usable_accelerator(kernel: Kernel, guest: Guest) -> str:
    """kvm where this kernel really starts under it, else tcg. A /dev/kvm that is there may not run a guest."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    archive = Archive()
    archive.file("init", f"#!/bin/busybox sh\necho '{_ALIVE}'\n/bin/busybox poweroff -f\n".encode(), mode=0o755)
    archive.copy("bin/busybox", guest.busybox)
    console, failed = _run(kernel, "kvm", archive.finished(), [], Job((), timeout=_KVM_SECONDS))
    return "kvm" if not failed and _ALIVE in console else "tcg"


@contextmanager
def _memory(name: str, content: bytes = b"") -> Iterator[int]:
    """A file without a name, which QEMU opens by its number and which ends with its last user."""
    number = os.memfd_create(name)
    try:
        with open(number, "wb", closefd=False) as file:
            file.write(content)
        yield number
    finally:
        os.close(number)


def _content(number: int) -> str:
    with open(number, "rb", closefd=False) as file:
        file.seek(0)
        return text(file.read()).replace("\r\n", "\n")


def _port(name: str, number: int) -> list[str]:
    """A virtio-serial port whose output goes to an open file."""
    chardev = ["-chardev", f"file,id={name},path=/proc/self/fd/{number}"]
    return [*chardev, "-device", f"virtserialport,chardev={name},name={name}"]


def _disk(guest: Guest) -> list[str]:
    # snapshot: what the guest writes goes to a file that has no name any more.
    drive = f"file={guest.root},format=raw,if=none,id=root,snapshot=on,cache=unsafe"
    devices = ("virtio-serial-pci", "virtio-rng-pci", "virtio-blk-pci,drive=root")
    return ["-drive", drive, *(word for device in devices for word in ("-device", device))]


def _run(
    kernel: Kernel, accelerator: str, initial: bytes, devices: Sequence[str], job: Job, opened: Sequence[int] = ()
) -> tuple[str, str]:
    """Run QEMU to its end: what the console printed; and what went wrong with QEMU, or nothing."""
    binary = shutil.which(BINARY)
    if binary is None:
        raise HarnessError("boot a kernel", f"there is no {BINARY}", packages.install_hint([packages.QEMU]))
    with _memory("initramfs", initial) as disk, _memory("console") as console, _memory("qemu") as errors:
        command = [
            binary, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-machine", "q35", "-accel", accelerator, "-cpu", "host" if accelerator == "kvm" else "max",
            "-m", str(job.memory), "-smp", str(job.cpus),
            "-kernel", str(kernel.image), "-initrd", f"/proc/self/fd/{disk}", "-append", _KERNEL_WORDS,
            "-serial", f"file:/proc/self/fd/{console}", *devices,
        ]  # fmt: skip
        parent = os.getpid()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            pass_fds=(disk, console, *opened),
            preexec_fn=lambda: processes.die_with_parent(parent),
        )
        try:
            status = process.wait(job.timeout)
        except subprocess.TimeoutExpired:
            return _content(console), f"the guest had not ended after {job.timeout:g} s"
        finally:
            process.kill()
            process.wait()
        interruption.check()
        said = _content(errors).strip().splitlines() or ["nothing on stderr"]
        return _content(console), f"QEMU ended with status {status}: {said[-1]}" if status else ""
