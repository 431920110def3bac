"""A cold boot: a kernel, its initramfs, memory, until the guest says that it is ready."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness.vm import initramfs, qemu
from harness.vm.guest import Guest
from harness.vm.machine import KVM, Machine
from harness.vm.qemu import Running


def memory_words(machine: Machine, file: Path | None = None, *, shared: bool = False) -> list[str]:
    """The guest's memory: anonymous, or a file that it writes to (shared) or is copied from as it is written to."""
    size = f"id=ram,size={machine.memory}M"
    backend = (
        f"memory-backend-ram,{size}"
        if file is None
        else f"memory-backend-file,{size},mem-path={file},share={'on' if shared else 'off'}"
    )
    return ["-m", str(machine.memory), "-object", backend]


def arguments(machine: Machine, guest: Guest, accelerator: str, initial: Path, words: Sequence[str] = ()) -> list[str]:
    """QEMU's words for a boot; initial is the initramfs, words are further ones, among them the memory's."""
    kernel = machine.kernel
    return [
        *qemu.hardware(machine, accelerator, *guest.drives),
        *(words or memory_words(machine)),
        "-kernel", str(kernel.vmlinux or kernel.image),
        "-initrd", str(initial),
        "-append", " ".join(qemu.words(machine)),
    ]  # fmt: skip


def initial(machine: Machine, guest: Guest, *, write_down: bool = False) -> bytes:
    """The initramfs of a guest that serves jobs; or writes down its interpreter, and does nothing else."""
    return initramfs.initramfs(guest, machine.kernel, {"cgroup": machine.cgroup, "write_down": write_down})


@contextmanager
def cold(
    machine: Machine,
    guest: Guest,
    accelerator: str,
    words: Sequence[str] = (),
    descriptors: Sequence[int] = (),
    content: bytes | None = None,
) -> Iterator[Running]:
    """Boot; words and descriptors are further ones for QEMU, among them the memory's; content: another initramfs."""
    with qemu.memory("initramfs", initial(machine, guest) if content is None else content) as disk:
        line = arguments(machine, guest, accelerator, Path(f"/proc/self/fd/{disk}"), words)
        with qemu.start(line, (disk, *descriptors), huge_pages=accelerator == KVM) as running:
            yield running
