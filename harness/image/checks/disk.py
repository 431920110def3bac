"""disk.*: what Azure wants of the image itself, whatever lies on it.

Sources: learn.microsoft.com, "Prepare Linux for imaging in Azure" (fixed VHD, sizes in whole MiB, no LVM on the disk
of the system) and "Azure support for Generation 2 VMs"; the VHD specification 1.0 for the footer.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import PurePath

from harness.image import partitions
from harness.image.checks.question import Question, answers
from harness.image.image import Image
from harness.msp import guide
from harness.report import Json, Result

_MIB, _GIB, _TIB = 1 << 20, 1 << 30, 1 << 40
_LARGEST = 4095 * _GIB  # of a disk that a system starts from
_LARGEST_MBR = 2 * _TIB  # 32 bits of 512-byte sectors
_SHOWN = 20
_NAMES = {
    "vhd-fixed": "a fixed VHD",
    "vhd-dynamic": "a dynamic VHD",
    "vhdx": "a VHDX",
    "qcow2": "qcow2",
    "raw": "a raw disk",
}
_QEMU = {"vhd-dynamic": "vpc", "vhd-fixed": "vpc", "vhdx": "vhdx", "qcow2": "qcow2", "raw": "raw"}
_GENERATIONS = {
    "bios": "it boots from a BIOS: generation 1",
    "uefi": "it boots from UEFI: generation 2",
    "both": "it boots from a BIOS and from UEFI: generations 1 and 2",
}


def convert(image: Image) -> str:
    """The commands that make a fixed VHD of an image, of whole MiB."""
    disk = image.disk
    name, form = image.name, _QEMU.get(disk.format, "raw")
    target = f"{PurePath(name).with_suffix('')}-azure"
    if disk.virtual_size % _MIB == 0:
        options = "-O vpc -o subformat=fixed,force_size"
        return f"qemu-img convert -f {form} {options} {shlex.quote(name)} {shlex.quote(f'{target}.vhd')}"
    raw, size = shlex.quote(f"{target}.raw"), -(-disk.virtual_size // _MIB)
    return (
        f"qemu-img convert -f {form} -O raw {shlex.quote(name)} {raw} && qemu-img resize -f raw {raw} {size}M && "
        f"qemu-img convert -f raw -O vpc -o subformat=fixed,force_size {raw} {shlex.quote(f'{target}.vhd')}"
    )


def _format(image: Image, question: Question) -> Iterator[Result]:
    disk = image.disk
    evidence: dict[str, Json] = {"format": disk.format, "bytes": disk.size, "virtual size": disk.virtual_size}
    if disk.backing:
        evidence["backing files"] = list(disk.backing)
    if disk.format == "vhd-fixed":
        yield question.good("it is a fixed VHD, as Azure wants it", evidence)
    else:
        summary = f"it is {_NAMES.get(disk.format, disk.format)}; Azure takes a fixed VHD"
        yield question.doubt(summary, evidence, f"convert it: `{convert(image)}`")


def _whole(image: Image, question: Question) -> Iterator[Result]:
    """The footer, the partition table."""
    troubles = list(image.disk.troubles)
    if troubles:
        remedy = f"write it anew: `{convert(image)}`; or take it from its source again"
        yield question.bad("; ".join(troubles[:_SHOWN]), {"troubles": troubles}, remedy)
    elif image.disk.format.startswith("vhd"):
        yield question.good("the footer is valid: cookie, checksum, size")
    else:
        yield question.good("nothing is wrong with its headers")


def _size(image: Image, question: Question) -> Iterator[Result]:
    disk = image.disk
    evidence: dict[str, Json] = {"virtual size": disk.virtual_size, "past whole MiB": disk.virtual_size % _MIB}
    if not disk.virtual_size:
        yield question.unknown("the disk's size was not found out")
    elif disk.virtual_size > _LARGEST:
        summary = f"the disk has {disk.virtual_size / _GIB:.0f} GiB, and Azure starts from one of at most 4095 GiB"
        yield question.bad(summary, evidence, "make the disk smaller")
    elif disk.virtual_size % _MIB:
        summary = f"the disk has {disk.virtual_size} bytes, which are no whole MiB; Azure refuses such a VHD"
        tell = question.bad if disk.format.startswith("vhd") else question.doubt
        yield tell(summary, evidence, f"`{convert(image)}`")
    elif disk.table == "mbr" and disk.virtual_size > _LARGEST_MBR:
        summary = "a partition table of the MBR's kind reaches 2 TiB, and the disk is larger"
        yield question.doubt(summary, evidence, "use GPT")
    else:
        yield question.good(f"{disk.virtual_size // _MIB} MiB", evidence)


def _alignment(image: Image, question: Question) -> Iterator[Result]:
    found = [each for each in image.disk.partitions if each.kind != partitions.BIOS_BOOT]
    if not found:
        yield question.none("there are no partitions")
        return
    astray = [each for each in found if each.start % _MIB]
    evidence: dict[str, Json] = {"starts": {str(each.number): each.start for each in found}}
    if astray:
        summary = f"partition {astray[0].number} begins at byte {astray[0].start}, which is no whole MiB"
        more = f", and {len(astray) - 1} others do" if len(astray) > 1 else ""
        yield question.doubt(summary + more, evidence, "partition with `parted -a optimal`: it is slower otherwise")
    else:
        yield question.good("every partition begins at a whole MiB", evidence)


def _generation(image: Image, question: Question) -> Iterator[Result]:
    disk = image.disk
    evidence: dict[str, Json] = {"table": disk.table, "firmware": disk.firmware}
    esp = any(each.kind in (partitions.ESP, partitions.MBR_ESP) for each in disk.partitions)
    evidence["EFI system partition"] = esp
    if disk.firmware in _GENERATIONS:
        yield question.good(_GENERATIONS[disk.firmware], evidence)
    elif not image.systems or "/" in image.unseen:
        yield question.unknown(
            f"what boots was not looked at: {image.unseen.get('/', 'no system was found')}", evidence
        )
    elif not disk.table:
        summary = "it has no partition table and no boot code: neither a BIOS nor UEFI starts it"
        yield question.bad(summary, evidence, "put the file system into a partition and install a boot loader there")
    else:
        summary = "neither a BIOS nor UEFI finds anything to start: no boot code, no EFI/BOOT/BOOTX64.EFI"
        remedy = "in the image, `grub-install` for its disk (generation 1) or its EFI system partition (generation 2)"
        yield question.bad(summary, evidence, remedy)


def _lvm(image: Image, question: Question) -> Iterator[Result]:
    if image.disk.lvm:
        summary = "it has logical volumes (LVM), from which Azure advises on a system's disk"
        remedy = "use plain partitions: two disks with volumes of one name meet when a VM is repaired beside another"
        yield question.doubt(summary, remedy=remedy)
    else:
        yield question.good("no logical volumes")


def _encryption(image: Image, question: Question) -> Iterator[Result]:
    found = list(image.disk.encrypted)
    evidence: dict[str, Json] = {"encrypted": found}
    remedy = "give the image unencrypted: Azure encrypts at rest by itself, and a VM by Azure Disk Encryption later"
    if not found:
        yield question.good("nothing on it is encrypted")
    elif "the image" in found:
        yield question.bad("the image itself is encrypted, which Azure does not take", evidence, remedy)
    elif not image.systems:
        yield question.unknown(f"{', '.join(found[:_SHOWN])}: encrypted, and no key is asked for", evidence, remedy)
    else:
        summary = f"{', '.join(found[:_SHOWN])}: encrypted; nobody types a passphrase when a VM starts"
        yield question.doubt(summary, evidence, remedy)


FORMAT = Question("disk.format", "Form of the image", guide.NEW_VM_LINUX)
ASKED = (
    (FORMAT, _format),
    (Question("disk.whole", "Footer and partition table"), _whole),
    (Question("disk.size", "Size of the disk"), _size),
    (Question("disk.alignment", "Where partitions begin"), _alignment),
    (Question("disk.generation", "Generation of VM that it boots on", guide.NEW_VM_LINUX), _generation),
    (Question("disk.lvm", "Logical volumes"), _lvm),
    (Question("disk.encryption", "Encryption"), _encryption),
)


def disk(image: Image) -> Iterator[Result]:
    """Azure's rules for the disk of an image."""
    if image.disk.is_disk:
        yield from answers(image, ASKED)
    else:
        yield FORMAT.none(f"it is no disk but a root file system ({image.disk.format}): Azure's rules are for disks")
