"""Disks made of a directory, without a loop device and without a mount: those that a PC's BIOS boots, and UEFI's.

BIOS (generation 1): 512-byte sectors; the master boot record with GRUB's first stage, GRUB's core image from sector 1
on (the place where its first stage looks by itself), and from 1 MiB on the one partition, ext4.
UEFI (generation 2): a GPT with a FAT partition that holds GRUB as the program that a firmware looks for by itself,
and one with ext4.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.command import run
from harness.errors import HarnessError
from harness.kernel import packages

MIB = 1 << 20
SECTOR = 512

_BOOT_IMAGE = Path("/usr/lib/grub/i386-pc/boot.img")
_EFI_MODULES = Path("/usr/lib/grub/x86_64-efi")
_BOOT_CODE = 440  # bytes of the record before the disk's signature and the partition table
_CORE_MODULES = ("biosdisk", "part_msdos", "ext2", "linux", "normal", "configfile")
_MENU_MODULES = ("search", "search_label", "test", "echo")
_LINUX, _ACTIVE = 0x83, 0x80  # type and state of a partition
# One by one, since the defaults of a newer mke2fs are beyond GRUB and old kernels.
_FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,flex_bg,sparse_super,large_file,huge_file,"
    "dir_nlink,extra_isize"
)
_ESP_SECTORS = 32 * MIB // SECTOR
_GPT_END = MIB  # bytes kept free for the second table at the end
_EARLY = "search --no-floppy --label {label} --set=root\nset prefix=($root)/boot/grub\n"


@dataclass(frozen=True)
class Layout:
    """A disk to make: size in bytes, the root file system's label, and where the first partition begins (a sector)."""

    size: int
    label: str
    start: int = MIB // SECTOR
    loader: bool = True


def bios(root: Path, raw: Path, layout: Layout, modules: tuple[str, ...] = _MENU_MODULES) -> None:
    """Write a raw disk with the files of root, which has a /boot/grub/grub.cfg, for a PC's BIOS.

    Raises HarnessError when a program is missing or the files do not fit.
    """
    _require(_BOOT_IMAGE, packages.GRUB)
    core = raw.with_suffix(".core")
    _empty(raw, layout.size)
    _ext4(root, raw, layout, layout.start, layout.size // SECTOR)
    prefix = ["-p", "(hd0,msdos1)/boot/grub"]
    run(["grub-mkimage", "-O", "i386-pc", "-o", core, *prefix, *_CORE_MODULES, *modules])
    if core.stat().st_size > (layout.start - 1) * SECTOR:
        raise HarnessError("make a disk", f"GRUB's core image has {core.stat().st_size} bytes, too many for its place")
    code = _BOOT_IMAGE.read_bytes()[:_BOOT_CODE] if layout.loader else bytes(_BOOT_CODE)
    with raw.open("r+b") as disk:
        disk.write(code + bytes(6) + partition_table(layout.size, layout.start))
        if layout.loader:
            disk.write(core.read_bytes())
    core.unlink()


def partition_table(size: int, start: int = MIB // SECTOR) -> bytes:
    """The last 66 bytes of a master boot record: one partition of Linux's from start to the end, and the signature."""
    beyond = b"\xfe\xff\xff"  # cylinder, head and sector: none, the sector numbers count
    entry = struct.pack("<B3sB3sII", _ACTIVE, beyond, _LINUX, beyond, start, size // SECTOR - start)
    return entry + bytes(3 * len(entry)) + b"\x55\xaa"


def uefi(root: Path, raw: Path, layout: Layout) -> None:
    """The same for UEFI. Raises HarnessError likewise."""
    _require(_EFI_MODULES / "linux.mod", packages.GRUB_EFI)
    _empty(raw, layout.size)
    begin, end = layout.start + _ESP_SECTORS, (layout.size - _GPT_END) // SECTOR
    table = (
        "label: gpt\nfirst-lba: 34\n"
        f"start={layout.start}, size={_ESP_SECTORS}, type=uefi, name=esp\n"
        f"start={begin}, size={end - begin}, type=linux, name=root\n"
    )
    run(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", raw], stdin=table)
    _ext4(root, raw, layout, begin, end)
    volume, early, program = (raw.with_suffix(end) for end in (".esp", ".early", ".efi"))
    early.write_text(_EARLY.format(label=layout.label))
    modules = ("part_gpt", "ext2", "fat", "linux", "normal", "configfile", *_MENU_MODULES)
    run(["grub-mkimage", "-O", "x86_64-efi", "-o", program, "-p", "/boot/grub", "-c", early, *modules])
    _empty(volume, _ESP_SECTORS * SECTOR)
    quiet = os.environ | {"MTOOLS_SKIP_CHECK": "1"}  # it knows disks by their heads and tracks
    run(["mformat", "-i", volume, "-T", str(_ESP_SECTORS), "-h", "64", "-s", "32", "::"], environment=quiet)
    run(["mmd", "-i", volume, "::EFI", "::EFI/BOOT"], environment=quiet)
    if layout.loader:
        run(["mcopy", "-i", volume, program, "::EFI/BOOT/BOOTX64.EFI"], environment=quiet)
    with raw.open("r+b") as disk, volume.open("rb") as part:
        disk.seek(layout.start * SECTOR)
        shutil.copyfileobj(part, disk, MIB)
    for path in (volume, early, program):
        path.unlink()


def _require(file: Path, need: str) -> None:
    if not file.exists():
        raise HarnessError("make a disk", f"there is no {file}", packages.install_hint([need]))


def _empty(raw: Path, size: int) -> None:
    with raw.open("wb") as disk:
        disk.truncate(size)


def _ext4(root: Path, raw: Path, layout: Layout, start: int, end: int) -> None:
    """A file system with the files of root between two sectors of the disk."""
    features = ["-O", _FEATURES, "-E", f"offset={start * SECTOR},root_owner=0:0", "-L", layout.label]
    kilobytes = (end - start) * SECTOR // 1024
    run(["mke2fs", "-q", "-t", "ext4", *features, "-d", root, raw, f"{kilobytes}k"], timeout=300)


def _qemu(*options: str) -> Callable[[Path, Path], None]:
    def convert(raw: Path, target: Path) -> None:
        run(["qemu-img", "convert", "-f", "raw", *options, raw, target], timeout=600)

    return convert


FORMATS: Mapping[str, Callable[[Path, Path], object]] = {
    "qcow2": _qemu("-O", "qcow2"),
    "raw": lambda raw, target: raw.replace(target),
    "vhd-fixed": _qemu("-O", "vpc", "-o", "subformat=fixed,force_size"),
    "vhd-dynamic": _qemu("-O", "vpc", "-o", "subformat=dynamic,force_size"),
    "vhdx": _qemu("-O", "vhdx", "-o", "subformat=dynamic"),
}
"""What a raw disk is made into. force_size: else a VHD's size is rounded to what a BIOS of old could count."""
