"""A disk that a PC boots, made of a directory, without a loop device and without a mount.

512-byte sectors: the master boot record with GRUB's first stage, GRUB's core image from sector 1 on (the place where
its first stage looks by itself), and from 1 MiB on the one partition, ext4.
"""

from __future__ import annotations

import struct
from pathlib import Path

from harness.command import run
from harness.errors import HarnessError
from harness.kernel import packages

MIB = 1 << 20
LABEL = "box-root"
"""The file system's label: what fstab and the kernel's command line name the root by."""

_SECTOR = 512
_START = MIB // _SECTOR  # the partition's first sector
_BOOT_IMAGE = Path("/usr/lib/grub/i386-pc/boot.img")
_BOOT_CODE = 440  # bytes of the record before the disk's signature and the partition table
_CORE_MODULES = ("biosdisk", "part_msdos", "ext2", "linux", "normal", "configfile")
_LINUX, _ACTIVE = 0x83, 0x80  # type and state of a partition
# One by one, since the defaults of a newer mke2fs are beyond GRUB and old kernels.
_FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,flex_bg,sparse_super,large_file,huge_file,"
    "dir_nlink,extra_isize"
)


def make(root: Path, image: Path, size: int) -> None:
    """Write a qcow2 image of a disk of size bytes with the files of root, which has a /boot/grub/grub.cfg.

    Raises HarnessError when a program is missing or the files do not fit.
    """
    if not _BOOT_IMAGE.exists():
        raise HarnessError("make a disk", f"there is no {_BOOT_IMAGE}", packages.install_hint([packages.GRUB]))
    raw, core = image.with_suffix(".raw"), image.with_suffix(".core")
    with raw.open("wb") as disk:
        disk.truncate(size)
    features = ["-O", _FEATURES, "-E", f"offset={MIB},root_owner=0:0", "-L", LABEL]
    run(["mke2fs", "-q", "-t", "ext4", *features, "-d", root, raw, f"{(size - MIB) // 1024}k"], timeout=300)
    run(["grub-mkimage", "-O", "i386-pc", "-o", core, "-p", "(hd0,msdos1)/boot/grub", *_CORE_MODULES])
    if core.stat().st_size > MIB - _SECTOR:
        raise HarnessError("make a disk", f"GRUB's core image has {core.stat().st_size} bytes, too many for its place")
    with raw.open("r+b") as disk:
        disk.write(_BOOT_IMAGE.read_bytes()[:_BOOT_CODE] + bytes(6) + partition_table(size))
        disk.write(core.read_bytes())
    compressed = ["-c", "-o", "compression_type=zstd"]
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *compressed, raw, image], timeout=600)
    raw.unlink()
    core.unlink()


def partition_table(size: int) -> bytes:
    """The last 66 bytes of a master boot record: one partition of Linux's from 1 MiB to the end, and the signature."""
    beyond = b"\xfe\xff\xff"  # cylinder, head and sector: none, the sector numbers count
    entry = struct.pack("<B3sB3sII", _ACTIVE, beyond, _LINUX, beyond, _START, size // _SECTOR - _START)
    return entry + bytes(3 * len(entry)) + b"\x55\xaa"
