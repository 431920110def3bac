"""The box's disk: as the samples of images have it for a PC's BIOS, compressed."""

from __future__ import annotations

from pathlib import Path

from harness.command import run
from harness.image.sample import disk

LABEL = "box-root"
"""The file system's label: what fstab and the kernel's command line name the root by."""


def make(root: Path, image: Path, size: int) -> None:
    """Write a qcow2 image of a disk of size bytes with the files of root, which has a /boot/grub/grub.cfg.

    Raises HarnessError when a program is missing or the files do not fit.
    """
    raw = image.with_suffix(".raw")
    disk.bios(root, raw, disk.Layout(size, LABEL), modules=())
    compressed = ["-c", "-o", "compression_type=zstd"]
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *compressed, raw, image], timeout=600)
    raw.unlink()
