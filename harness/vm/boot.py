"""A cold boot: a kernel, its initramfs, memory, until the guest says that it is ready."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness.vm import initramfs, qemu
from harness.vm.guest import Guest
from harness.vm.machine import Machine
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
    kernel = machine.kernel
    if content is None:
        content = initramfs.initramfs(guest, kernel, {"cgroup": machine.cgroup})
    with qemu.memory("initramfs", content) as disk:
        arguments = [
            *qemu.hardware(machine, accelerator, guest.root),
            *(words or memory_words(machine)),
            "-kernel", str(kernel.vmlinux or kernel.image),
            "-initrd", f"/proc/self/fd/{disk}",
            "-append", " ".join(qemu.words(machine)),
        ]  # fmt: skip
        with qemu.start(arguments, (disk, *descriptors)) as running:
            yield running
