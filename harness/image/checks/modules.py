"""modules.*: the drivers that a VM on Azure needs, of the kernel that boots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.image import initramfs, kernels
from harness.image.checks.question import Question, answers
from harness.image.image import Image
from harness.image.modules import Modules, modules
from harness.msp import guide, image_codes
from harness.report import Json, Outcome, Result


@dataclass(frozen=True)
class Driver:
    """A module, the option that has it, what it is for, and what its lack is. machine: only there."""

    name: str
    option: str
    use: str
    lacking: Outcome = Outcome.FAIL
    machine: str = ""


DRIVERS = (
    Driver("hv_vmbus", "CONFIG_HYPERV", "the bus of all devices of Hyper-V"),
    Driver("hv_storvsc", "CONFIG_HYPERV_STORAGE", "disks and the provisioning disk"),
    Driver("hv_netvsc", "CONFIG_HYPERV_NET", "the network"),
    Driver("hv_utils", "CONFIG_HYPERV_UTILS", "time, shut-down and key-value pairs, by which cloud-init tells Azure"),
    Driver("sd_mod", "CONFIG_BLK_DEV_SD", "SCSI disks"),
    Driver("sr_mod", "CONFIG_BLK_DEV_SR", "the provisioning disk, which is a CD"),
    Driver("udf", "CONFIG_UDF_FS", "the file system of the provisioning disk: ovf-env.xml with MSP's setting is on it"),
    Driver("isofs", "CONFIG_ISO9660_FS", "a provisioning disk that is ISO 9660", Outcome.WARN),
    Driver("ata_piix", "CONFIG_ATA_PIIX", "the CD of generation 1 machines", Outcome.WARN, "x86_64"),
    Driver("pci_hyperv", "CONFIG_PCI_HYPERV", "PCI: NVMe disks and accelerated networking", Outcome.WARN),
    Driver("nvme", "CONFIG_BLK_DEV_NVME", "NVMe disks of newer sizes", Outcome.WARN),
    Driver("mana", "CONFIG_MICROSOFT_MANA", "the network adapter of newer sizes", Outcome.WARN),
    Driver("mlx5_core", "CONFIG_MLX5_CORE", "accelerated networking", Outcome.WARN),
)
"""Sources: Azure's requirements for Linux images, and what cloud-init's Azure datasource mounts (udf, iso9660)."""


def _drivers(image: Image, question: Question) -> Iterator[Result]:
    found = kernels.kernels(image)
    if not found.default:
        yield question.none("there is no kernel")
        return
    has = modules(image, found)
    machine = image.system.get("arch", "x86_64")
    for driver in DRIVERS:
        if driver.machine in ("", machine):
            yield _driver(Question(f"modules.{driver.name}", f"Driver {driver.name}", question.guide), driver, has)


def _driver(question: Question, driver: Driver, has: Modules) -> Result:
    where = has.has(driver.name, driver.option)
    evidence: dict[str, Json] = {
        "where": where or None,
        driver.option: has.config.get(driver.option),
        "kernel": has.release,
    }
    forbidden = has.forbidden.get(driver.name)
    if not where:
        summary = f"{has.release} has no {driver.name}: {driver.use}"
        code = image_codes.NO_AZURE_DRIVER
        if driver.lacking is Outcome.FAIL:
            return question.bad(summary, evidence, code=code)
        return question.doubt(summary, evidence, f"use a kernel that has it ({driver.option})")
    if forbidden and where != "built in":
        evidence["forbidden by"] = forbidden
        summary = f"{driver.name} is there and is not loaded by itself: {forbidden}; it is for {driver.use}"
        remedy = "take that line out, and make the initramfs anew"
        if driver.lacking is Outcome.FAIL:
            return question.bad(summary, evidence, remedy, image_codes.NO_AZURE_DRIVER)
        return question.doubt(summary, evidence, remedy)
    return question.good(f"{where}: {driver.use}", evidence)


_IN_INITRAMFS = ("hv_vmbus", "hv_storvsc", "sd_mod")
_MAKE = "make it anew: update-initramfs -u -k all, or dracut --regenerate-all --force"
_LACK = image_codes.NO_AZURE_DRIVER


def _initramfs(image: Image, question: Question) -> Iterator[Result]:
    found = kernels.kernels(image)
    if not found.default:
        return
    has = modules(image, found)
    options = {driver.name: driver.option for driver in DRIVERS}
    loaded = [name for name in _IN_INITRAMFS if has.has(name, options[name]) not in ("", "built in")]
    if not loaded:
        yield question.good("what finds the root disk is built into the kernel")
        return
    evidence: dict[str, Json] = {"needed in it": list(loaded)}
    image_of = found.releases[found.default]
    if image_of.lower().endswith(".efi"):
        yield question.none(f"it is within {image_of} and was not looked into; --boot shows whether it finds its disk")
        return
    path = initramfs.path(image, found)
    if path is None:
        lack = f"{', '.join(loaded)} are modules: the root disk is not found"
        yield question.bad(f"there is no initramfs of {found.default}, and {lack}", evidence, _MAKE, _LACK)
        return
    only = _only_of_this_machine(image)
    if path in image.initramfs:
        yield _contents(question, path, loaded, image.initramfs[path], only)
    elif path in image.unseen:
        why = image.unseen[path]
        yield question.unknown(f"could not find out whether {path} has {', '.join(loaded)}: {why}", evidence)
    elif only:
        summary = f"{path} may lack {', '.join(loaded)}: {only} takes the drivers of the machine that made it"
        yield question.doubt(summary, evidence | {"set": only}, _name(loaded))
    else:
        why = "is in a form that is not read here (lz4, lzo?); --boot shows whether it finds its disk"
        yield question.none(f"{path} {why}", evidence)


def _contents(question: Question, path: str, loaded: Sequence[str], inside: frozenset[str], only: str) -> Result:
    lacking = [name for name in loaded if name not in inside]
    evidence: dict[str, Json] = {"needed in it": list(loaded), "lacking": list(lacking), "modules in it": len(inside)}
    if not lacking:
        return question.good(f"{path} has {', '.join(loaded)}", evidence)
    summary = f"{path} has no {', no '.join(lacking)}: the root disk is not found on Azure"
    if only:
        evidence["set"] = only
        summary += f"; {only} takes the drivers of the machine that made it"
    return question.bad(summary, evidence, _name(loaded), _LACK)


def _name(modules: Sequence[str]) -> str:
    words = " ".join(modules)
    return f'name them: add_drivers+=" {words} " for dracut, /etc/initramfs-tools/modules for Debian\'s; {_MAKE}'


def _only_of_this_machine(image: Image) -> str:
    """The setting by which an initramfs has only the drivers of the machine where it was made, unless it names ours."""
    text = image.tree.text("/etc/initramfs-tools/initramfs.conf") or ""
    extra = image.tree.files("/etc/initramfs-tools/conf.d")
    modes = [line.strip() for part in [text, *extra.values()] for line in part.splitlines()
             if line.strip().startswith("MODULES=")]  # fmt: skip
    named = "\n".join(image.tree.files("/etc/dracut.conf.d").values()) + (image.tree.text("/etc/dracut.conf") or "")
    if (
        modes
        and modes[-1] == "MODULES=dep"
        and "hv_storvsc" not in (image.tree.text("/etc/initramfs-tools/modules") or "")
    ):
        return "MODULES=dep in /etc/initramfs-tools"
    if 'hostonly="yes"' in named.replace("'", '"') and "hv_storvsc" not in named:
        return 'hostonly="yes" in /etc/dracut.conf.d'
    return ""


ASKED = (
    (Question("modules.drivers", "Drivers of Azure", guide.NEW_VM_LINUX), _drivers),
    (Question("modules.initramfs", "Initramfs", guide.NEW_VM_LINUX), _initramfs),
)


def drivers(image: Image) -> Iterator[Result]:
    """What a VM on Azure needs of the kernel's modules."""
    yield from answers(image, ASKED)
