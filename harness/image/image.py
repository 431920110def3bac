"""What was read of an image: its disk and the systems on it. Checks are functions of this and of nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.image.tree import Tree


@dataclass(frozen=True)
class Partition:
    """One partition. start and size in bytes; kind is MBR's type byte in hex ("83") or GPT's type GUID, lower case."""

    number: int
    start: int
    size: int
    kind: str
    bootable: bool = False


@dataclass(frozen=True)
class Disk:
    """The container and what stands around the file systems. Sizes in bytes.

    format: qcow2, vhd-fixed, vhd-dynamic, vhdx, raw; or directory, tar, oci, for what is no disk (the rest is then
    empty). table: gpt, mbr, or nothing for a disk without partitions. firmware: bios, uefi, both, or nothing when what
    boots was not found. troubles: what is wrong with the container itself, a sentence each.
    """

    format: str
    size: int = 0
    virtual_size: int = 0
    table: str = ""
    partitions: Sequence[Partition] = ()
    firmware: str = ""
    lvm: bool = False
    encrypted: Sequence[str] = ()  # devices that are LUKS or BitLocker
    troubles: Sequence[str] = ()
    backing: Sequence[str] = ()  # the files in which the rest of an overlay's content is

    @property
    def is_disk(self) -> bool:
        return self.format not in ("directory", "tar", "oci")


@dataclass(frozen=True)
class Package:
    """An installed package, as dpkg or rpm names it; version with epoch and release."""

    name: str
    version: str


@dataclass(frozen=True)
class Image:
    """An image that was read.

    system is libguestfs's description of the operating system (type, distro, product_name, major_version,
    arch, package_format), empty where it knows none. systems counts the systems on it.
    initramfs: the names of the modules in that of the kernel that boots, by its path. unseen: what could not be read,
    with the reason: a check that needs it gives ERROR.
    """

    name: str
    disk: Disk
    tree: Tree
    packages: Mapping[str, Package] = field(default_factory=dict)
    system: Mapping[str, str] = field(default_factory=dict)
    systems: Sequence[str] = ()  # root devices with their product names, "/dev/sda1: Debian 12"
    unseen: Mapping[str, str] = field(default_factory=dict)  # path or device: reason
    initramfs: Mapping[str, frozenset[str]] = field(default_factory=dict)
