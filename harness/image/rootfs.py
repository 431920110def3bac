"""A root file system that is no disk: a directory, a tar archive, an OCI layout, or what `docker save` wrote.

It is unpacked onto a scratch disk in the appliance, and there alone; then it is read as any system is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from harness.errors import HarnessError
from harness.image import initramfs, layers, pack, stream, system
from harness.image.contents import contents
from harness.image.image import Disk, Image, Package
from harness.image.source import Source
from harness.image.tree import Tree
from harness.vm import scratch
from harness.vm.appliance import SYSROOT, Appliance, quoted

_SIZE = 24 << 30  # bytes of the scratch disk, which is sparse
_NAMES = 1 << 20  # inodes of it
_PLACE = ".msp-unpacked"
_DEVICE = "/dev/sda"
# libguestfs knows no system without one of these; that of a container may have neither.
_STAND_IN = f"[ -e {SYSROOT}/etc/fstab ] || [ -e {SYSROOT}/etc/hosts ] || : >{SYSROOT}/etc/hosts"


def read(
    source: Source, tell: Callable[[str], object], also: Callable[[Appliance, Image], object] = lambda *mounted: None
) -> Image:
    """also is called while the system is mounted.

    Raises HarnessError where there is no root file system in it, or it is damaged.
    """
    with scratch.directory("image") as work:
        disk = work / "root.raw"
        with disk.open("wb") as file:
            file.truncate(_SIZE)
        tell(f"starting libguestfs' appliance for {source.path.name}")
        with Appliance(disk, "raw", writable=True, name=source.path.name) as appliance:
            options = f"-q -F -t ext4 -O ^has_journal -E lazy_itable_init=1,root_owner=0:0 -N {_NAMES}"
            appliance.shell(f"mke2fs {options} $disk")
            appliance.ask(f"mount {_DEVICE} /")
            tell("unpacking it there")
            unseen = _filled(appliance, source, work)
            form = unseen.pop("", source.format)
            image = _of(appliance, source, form, unseen, tell)
            also(appliance, image)
            return image


def _filled(appliance: Appliance, source: Source, work: Path) -> dict[str, str]:
    """Fill the mounted disk. What could not be unpacked; under no name, the format where it turned out another."""
    unseen: dict[str, str] = {}
    if source.format == "directory":
        appliance.shell(f"rm -rf {SYSROOT}/lost+found")
        _told(unseen, stream.unpack(appliance, work, lambda target: pack.write(source.path, target, unseen), "/"))
        return unseen
    appliance.ask(f"mkdir /{_PLACE}")
    if source.format == "oci":
        whole = stream.unpack(
            appliance, work, lambda target: pack.write(source.path, target, unseen, everything=True), f"/{_PLACE}"
        )
    else:
        whole = stream.unpack(appliance, work, stream.copying(source.path), f"/{_PLACE}")
    _told(unseen, whole)
    names = appliance.ask(f"ls /{_PLACE}")
    appliance.shell(f"rm -rf {SYSROOT}/lost+found")
    if layers.is_image(names):
        for complaint in layers.merge(appliance, _PLACE):
            unseen["layers"] = complaint
        unseen[""] = "oci"
        appliance.shell(f"rm -rf {SYSROOT}/{_PLACE}")
    else:
        appliance.shell(f"cd {SYSROOT}/{_PLACE} && find . -mindepth 1 -maxdepth 1 -exec mv -t {SYSROOT} {{}} + ; cd /")
        appliance.shell(f"rm -rf {SYSROOT}/{_PLACE}")
    return unseen


def _told(unseen: dict[str, str], complaint: str) -> None:
    if complaint:
        unseen["archive"] = complaint


def _of(
    appliance: Appliance, source: Source, form: str, unseen: dict[str, str], tell: Callable[[str], object]
) -> Image:
    tell("reading its files")
    found = contents(appliance)
    tree = _without(found.tree, unseen)
    unseen |= found.unseen
    if not tree.is_directory("/etc") and not tree.is_directory("/usr"):
        happened = unseen.get("archive") or "there is no root file system in it: it has neither /etc nor /usr"
        raise HarnessError(f"read {source.path.name}", happened)
    appliance.shell(_STAND_IN)
    appliance.ask("umount-all")
    tell("looking for the system's description and packages")
    packages: dict[str, Package] = {}
    words: dict[str, str] = {}
    told: tuple[str, ...] = ()
    for root in system.roots(appliance)[0][:1]:
        words = system.description(appliance, root)
        unseen |= system.mount(appliance, {"/": root})
        packages = system.packages(appliance.ask(f"-inspect-list-applications2 {quoted(root)}"))
        told = (f"/: {system.title(words)}",)
    if not words:
        unseen["system"] = "libguestfs knows no such system"
    if not packages:
        unseen["packages"] = "libguestfs finds no packages"
    image = Image(str(source.path), Disk(form, source.size), tree, packages, words, told, unseen)
    return initramfs.looked_into(image, appliance)


def _without(tree: Tree, unseen: Mapping[str, str]) -> Tree:
    """The tree without the contents that could not be read on this side already."""
    found = {path: entry for path in unseen if (entry := tree.entry(path)) is not None and entry.data is not None}
    return tree.with_entries({path: replace(entry, data=None) for path, entry in found.items()}) if found else tree
