"""The initramfs of the kernel that boots: which file it is, and which modules lie in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness.errors import HarnessError
from harness.image import kernels, reading
from harness.image.image import Image
from harness.image.kernels import Kernels
from harness.image.reading import Unread
from harness.image.tree import Kind
from harness.vm import archives, scratch
from harness.vm.appliance import Appliance

_LARGEST = 256 << 20  # bytes; a distribution's with all drivers has 100 MB
_NAMES = ("initrd.img-{}", "initramfs-{}.img", "initrd-{}", "initramfs-{}", "initrd.img-{}.img")


def path(image: Image, found: Kernels) -> str | None:
    """Where it lies; None where there is none, or the kernel has it within. Raises Unread where nobody looked."""
    beside = f"{found.releases[found.default].rpartition('/')[0]}/initrd"
    names = [f"/boot/{name.format(found.default)}" for name in _NAMES] + [beside]
    return next((name for name in names if reading.exists(image, name)), None)


def looked_into(image: Image, appliance: Appliance) -> Image:
    """The image with the modules in its initramfs, or why they are unknown; its system is mounted in the appliance.

    One in a form that is not known here is left as it is: nothing is wrong with it.
    """
    try:
        found = kernels.kernels(image)
        where = path(image, found) if found.default else None
    except Unread:
        return image
    entry = image.tree.entry(where) if where else None
    if where is None or entry is None or where in image.unseen:
        return image
    if entry.kind is not Kind.FILE or entry.size > _LARGEST:
        reason = f"it is no file of up to {_LARGEST >> 20} MiB"
        return replace(image, unseen={**image.unseen, where: reason})
    with scratch.directory("initramfs") as work:
        try:
            appliance.download(where, work / "initramfs", _LARGEST)
            return replace(image, initramfs={where: modules(work / "initramfs")})
        except archives.UnknownForm:
            return image
        except HarnessError as error:
            return replace(image, unseen={**image.unseen, where: error.happened})


def modules(file: Path) -> frozenset[str]:
    """The names of the modules in an initramfs. Raises HarnessError where it is damaged, UnknownForm among them."""
    names = (each.name.rpartition("/")[2] for each in archives.initramfs_files(file))
    return frozenset(name.partition(".ko")[0].replace("-", "_") for name in names if ".ko" in name)
