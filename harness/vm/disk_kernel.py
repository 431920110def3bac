"""The kernel of a disk image: found and copied out by libguestfs, in its appliance; the host mounts nothing."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from harness.errors import HarnessError
from harness.vm import archives, boot_menu, kernels, unpacked_kernel
from harness.vm.appliance import Appliance
from harness.vm.archives import File
from harness.vm.kernels import Kernel

_LARGEST_IMAGE = 256 << 20  # bytes of a vmlinuz
_LARGEST_TEXT = 1 << 20  # of grub.cfg
_NAME = re.compile(r"vmlinuz-([0-9][A-Za-z0-9.+~_-]{0,200})")
_ENTRIES = 64
_FLATTEN = "make one file of it with `qemu-img convert -O qcow2`"


def form(disk: Path) -> str:
    """The format of a disk image, as QEMU names it, by its content; nothing for what is no disk image."""
    size = disk.stat().st_size
    with disk.open("rb") as file:
        begin = file.read(0x1000)
        file.seek(max(0, size - 512))
        end = file.read(512)
    if begin.startswith(b"QFI\xfb"):
        return "qcow2"
    if begin.startswith(b"vhdxfile"):
        return "vhdx"
    if b"conectix" in (begin[:8], end[:8]):
        return "vpc"
    partitioned = begin[510:512] == b"\x55\xaa" and size > 1 << 20
    file_system = begin[0x438:0x43A] == b"\x53\xef" or begin.startswith(b"XFSB")
    return "raw" if partitioned or file_system else ""


def get(disk: Path, wanted: str = "") -> Kernel:
    """The kernel that a disk boots by default, or the wanted release. Raises HarnessError."""
    kind = form(disk)
    if kind == "qcow2":
        _alone(disk)
    status = disk.stat()
    state = f"{disk} {wanted} {status.st_ino} {status.st_size} {status.st_mtime_ns}"

    def make(place: Path) -> None:
        _copy_out(disk, kind, wanted, place)

    return kernels.kept(f"disk-{hashlib.sha256(state.encode()).hexdigest()[:16]}", make)


def _alone(disk: Path) -> None:
    """Refuse an image that names other files for QEMU to open (docs/interop/qcow2.txt): they are this machine's."""
    with disk.open("rb") as file:
        header = file.read(104)
    if len(header) < 72:
        raise HarnessError(f"read {disk.name}", "its qcow2 header is damaged")
    (backing,) = struct.unpack_from(">Q", header, 8)
    features = struct.unpack_from(">Q", header, 72)[0] if len(header) >= 80 and header[7] >= 3 else 0
    if backing:
        raise HarnessError(f"read {disk.name}", "it is an overlay: its content is in another file", _FLATTEN)
    if features & 4:
        raise HarnessError(f"read {disk.name}", "its data are in another file", _FLATTEN)


def _copy_out(disk: Path, kind: str, wanted: str, place: Path) -> None:
    with Appliance(disk, kind) as appliance:
        appliance.mount_system()
        copy_out(appliance, disk.name, wanted, place)


def copy_out(appliance: Appliance, disk: str, wanted: str, place: Path) -> None:
    """Fill an entry of the cache's kernels from the system that is mounted: its default kernel, or the wanted release.

    disk is the image's name. Raises HarnessError.
    """
    # Above kernel/, a list of directories may be long, and each name in it is a stranger's.
    trees = {name for name in appliance.names("/lib/modules") if _NAME.fullmatch(f"vmlinuz-{name}")}
    images = {found.group(1): name for name in appliance.names("/boot") if (found := _NAME.fullmatch(name))}
    paths = {release: f"/boot/{name}" for release, name in images.items()}
    for release in trees - paths.keys():
        if "vmlinuz" in appliance.names(f"/lib/modules/{release}"):
            paths[release] = f"/lib/modules/{release}/vmlinuz"
    if not paths:
        raise HarnessError(f"find the kernel of {disk}", "it has no /boot/vmlinuz-* and no /lib/modules/*/vmlinuz")
    release = wanted or _default(appliance, list(paths))
    if release not in paths:
        names = ", ".join(sorted(paths, key=boot_menu.version_key))
        raise HarnessError(f"find the kernel {release} of {disk}", f"it has {names}")
    if release not in trees:
        happened = f"it has no modules of {release} (/lib/modules/{release})"
        raise HarnessError(f"use the kernel of {disk}", happened, "name another with `,kernel=RELEASE`")
    image, tree = place / "image", place / "modules.tar"
    appliance.download(paths[release], image, _LARGEST_IMAGE)
    appliance.archive(f"/lib/modules/{release}", tree, archives.LARGEST)
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    target = place / "unpacked" / "boot" / f"vmlinuz-{release}"
    target.parent.mkdir(parents=True)
    image.rename(target)
    unpacked_kernel.collect(_renamed(archives.tar_files(tree), release), place / "unpacked", disk)
    tree.unlink()
    origin = f"{disk}:{paths[release]} sha256:{digest[:16]}"
    unpacked_kernel.finish(place / "unpacked", place, origin, "a local file: by its sha256 only")


def _renamed(files: Iterator[File], release: str) -> Iterator[File]:
    """The modules under the names that they have in a package; the tree's own vmlinuz is the image once more."""
    for file in files:
        name = file.name.removeprefix("./")
        if name != "vmlinuz":
            yield File(f"lib/modules/{release}/{name}", file.size, file.content)


def _default(appliance: Appliance, releases: list[str]) -> str:
    menus = ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg")
    environments = ("/boot/grub/grubenv", "/boot/grub2/grubenv")
    menu = next(filter(None, (appliance.text(path, _LARGEST_TEXT) for path in menus)), "")
    environment = next(filter(None, (appliance.text(path, _LARGEST_TEXT) for path in environments)), "")
    names = [name for name in appliance.names("/boot/loader/entries") if name.endswith(".conf")]
    place = "/boot/loader/entries"
    entries = {
        name.removesuffix(".conf"): appliance.text(f"{place}/{name}", _LARGEST_TEXT)
        for name in sorted(names)[-_ENTRIES:]
    }
    return boot_menu.default(releases, menu, environment, entries)
