"""An image read in libguestfs' appliance: its disk, its system, names, contents and packages, and what was not seen."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.command import run
from harness.errors import HarnessError
from harness.image import initramfs, partitions, rootfs, source, system
from harness.image.contents import contents
from harness.image.device import Device
from harness.image.image import Disk, Image, Package
from harness.image.source import Source
from harness.image.tree import Tree
from harness.vm import scratch
from harness.vm.appliance import Appliance, quoted

Tell = Callable[[str], object]

_ESP = (partitions.ESP, partitions.MBR_ESP)
_ESP_PLACES = ("/boot/efi", "/efi")
_LOADERS = re.compile(r"/(boot/efi|efi|boot)/EFI/([^/]+)/([^/]+)\.EFI", re.IGNORECASE)
_VENDOR_LOADERS = ("shim*", "grub*", "systemd-boot*", "bootx64", "bootaa64")


Also = Callable[[Appliance, Image], object]


def quiet(line: str) -> None:
    """Tell nobody."""


def nothing_else(appliance: Appliance, image: Image) -> None:
    """An image is read, and no more."""


def read(
    name: str, *, allow_backing: bool = False, root: str = "", tell: Tell = quiet, also: Also = nothing_else
) -> Image:
    """Read an image; it is opened for reading only. Raises HarnessError where it is none, or cannot be read at all.

    root names the system to look at where there are several ("/dev/sda2"); without it, nothing is guessed: the systems
    are told, and unseen says why the tree is empty. So it is with a disk that is encrypted or has no system.
    allow_backing: let a qcow2 image have its content in other local files too. also: what else is to be done with the
    image while the appliance has its system mounted.
    """
    found = source.identify(name, allow_backing=allow_backing)
    if not found.qemu:
        return rootfs.read(found, tell, also)
    if found.encryption:
        troubles = (*found.troubles, f"the image itself is encrypted: {found.encryption}")
        disk = Disk(found.format, found.size, found.virtual_size, encrypted=("the image",), troubles=troubles)
        return Image(name, disk, Tree({}), unseen={"/": "the image is encrypted, and no key is asked for"})
    with scratch.directory("image") as work:
        file, form = _opened(found, work)
        tell(f"starting libguestfs' appliance for {found.path.name}")
        with Appliance(file, form, name=found.path.name) as appliance:
            image = of(appliance, found, name, root, tell)
            also(appliance, image)
            return image


def _opened(found: Source, work: Path) -> tuple[Path, str]:
    """What the appliance is given: the image, or an overlay that says what QEMU would guess wrong of a VHD.

    QEMU takes a VHD's size from its cylinders, heads and sectors, which make less of it; a fixed one's footer is none
    of the disk.
    """
    file = {"driver": "file", "filename": str(found.path.absolute())}
    if found.format == "vhd-fixed":
        told: Mapping[str, object] = {"driver": "raw", "size": found.virtual_size // 512 * 512, "file": file}
    elif found.format == "vhd-dynamic":
        told = {"driver": "vpc", "force_size_calc": "current_size", "file": file}
    else:
        return found.path.absolute(), found.qemu
    overlay = work / "overlay.qcow2"
    backing = ["-F", str(told["driver"]), "-b", f"json:{json.dumps(told)}"]
    run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, overlay])
    return overlay, "qcow2"


def of(appliance: Appliance, found: Source, name: str, root: str, tell: Tell) -> Image:
    """The image that an appliance has been started for."""
    tell("looking for operating systems on it")
    roots, complaint = system.roots(appliance)
    device = Device(appliance)  # by now its first blocks are in the appliance's cache
    table = partitions.table(device.read)
    described = {each: system.description(appliance, each) for each in roots}
    told = tuple(f"{each}: {system.title(words)}" for each, words in described.items())
    unseen = dict.fromkeys(device.encrypted, "it is encrypted, and no key is asked for")
    if root and root not in described:
        happened = f"{', '.join(told) or 'no system'} is what libguestfs finds on it"
        raise HarnessError(f"read the system {root} of {found.path.name}", happened)
    seen = System()
    if not roots:
        unseen["/"] = "there is no operating system on it that libguestfs knows" + (complaint and f": {complaint}")
    elif len(roots) > 1 and not root:
        unseen["/"] = f"there are {len(roots)} systems on it ({'; '.join(told)}): name one with root=DEVICE"
    else:
        seen = _system(appliance, root or roots[0], table, tell)
    size = found.virtual_size or device.size
    disk = Disk(
        found.format,
        found.size,
        size,
        table.kind,
        table.partitions,
        _firmware(table, seen.tree),
        device.lvm,
        device.encrypted,
        (*found.troubles, *table.troubles, *_outside(table, size)),
        found.chain,
    )
    words = described.get(root or roots[0], {}) if roots and "/" not in unseen else {}
    image = Image(name, disk, seen.tree, seen.packages, words, told, {**unseen, **seen.unseen})
    return initramfs.looked_into(image, appliance)


@dataclass(frozen=True)
class System:
    """What was read of one system."""

    tree: Tree = field(default_factory=lambda: Tree({}))
    packages: Mapping[str, Package] = field(default_factory=dict)
    unseen: Mapping[str, str] = field(default_factory=dict)


def _system(appliance: Appliance, root: str, table: partitions.Table, tell: Tell) -> System:
    """The system on a root device, which stays mounted."""
    mounts = system.mounts(appliance, root)
    unseen = system.mount(appliance, mounts)
    if "/" in unseen:
        return System(unseen=unseen)
    unseen |= _mount_esp(appliance, table, mounts)
    tell("reading its files")
    found = contents(appliance)
    packages = system.packages(appliance.ask(f"-inspect-list-applications2 {quoted(root)}"))
    if not packages:
        unseen["packages"] = "libguestfs finds no packages"
    return System(found.tree, packages, {**unseen, **found.unseen})


def _mount_esp(appliance: Appliance, table: partitions.Table, mounts: Mapping[str, str]) -> dict[str, str]:
    """The EFI system partition where the system has its place, although its fstab may not name it."""
    found = next((each.number for each in table.partitions if each.kind in _ESP), 0)
    device = f"/dev/sda{found}"
    if not found or device in mounts.values():
        return {}
    places = (each for each in _ESP_PLACES if each not in mounts and appliance.ask(f"-is-dir {each}") == ["true"])
    place = next(places, "")
    return system.mount(appliance, {place: device}) if place else {}


def _firmware(table: partitions.Table, tree: Tree) -> str:
    """bios, uefi, both, or nothing: by what each finds to boot."""
    uefi = any(each.kind in _ESP for each in table.partitions) and any(
        found and any(fnmatch.fnmatch(found.group(3).lower(), each) for each in _VENDOR_LOADERS)
        for path, _ in tree.below("/")
        if (found := _LOADERS.fullmatch(path))
    )
    return "both" if uefi and table.bios else "uefi" if uefi else "bios" if table.bios else ""


def _outside(table: partitions.Table, size: int) -> list[str]:
    return [
        f"partition {each.number} ends at byte {each.start + each.size}, past the disk's end at {size}"
        for each in table.partitions
        if each.start + each.size > size
    ]
