"""The machine that Azure would give an image: firmware, DMI, disk, CD and NIC, on QEMU.

QEMU has no VMBus disks and NICs, so they are virtio's: an image whose initramfs has none of virtio's drivers starts its
kernel here and finds no disk, which is told. Disk and CD are SCSI, as on Azure: sda and sr0.
"""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.command import run
from harness.errors import HarnessError
from harness.image.azure.deployment import ASSET_TAG, Deployment
from harness.kernel import packages
from harness.vm import qemu
from harness.vm.qemu import Ends, Monitor, Running

BIOS, UEFI = "bios", "uefi"
"""Generation 1 and generation 2."""

_DRIVERS = {"qcow2": "qcow2", "raw": "raw", "vhd-fixed": "vpc", "vhd-dynamic": "vpc", "vhdx": "vhdx"}
"""QEMU's name of each format of harness.image.image.Disk."""

_FIRMWARE = (
    Path("/usr/share/OVMF/OVMF_CODE_4M.fd"),  # Debian, Ubuntu
    Path("/usr/share/OVMF/OVMF_CODE.fd"),
    Path("/usr/share/edk2/ovmf/OVMF_CODE.fd"),  # Fedora, RHEL
    Path("/usr/share/edk2/x64/OVMF_CODE.4m.fd"),  # Arch
    Path("/usr/share/qemu/ovmf-x86_64-code.bin"),  # SUSE
)


_REFUSAL_SECONDS = 2.0
"""For a QEMU that refuses its words to end, which takes milliseconds."""


@dataclass(frozen=True)
class Hardware:
    """memory in MiB. accelerator: kvm or tcg."""

    firmware: str = BIOS
    memory: int = 1024
    cpus: int = 1
    accelerator: str = "tcg"


def overlay(image: Path, format: str, place: Path) -> Path:
    """A disk in this directory that shows the image and takes every write. Raises HarnessError."""
    driver = _DRIVERS.get(format)
    if driver is None:
        raise HarnessError(f"boot {image.name}", f"{format} is no format of a disk")
    below: dict[str, object] = {"driver": driver, "file": {"driver": "file", "filename": str(image.resolve())}}
    if driver == "vpc":
        below["force_size_calc"] = "current_size"  # Azure goes by the footer's current size, never by its geometry
    disk = place / "disk.qcow2"
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", f"json:{json.dumps(below)}", "-F", driver, disk])
    return disk


def arguments(hardware: Hardware, deployment: Deployment, disk: Path, media: int, tap: int, place: Path) -> list[str]:
    """QEMU's words; media and tap are descriptors that it inherits."""
    board = "q35" if hardware.firmware == UEFI else "pc"
    return [
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",  # it runs a stranger
        "-machine", board, "-accel", hardware.accelerator, "-cpu", qemu.model(hardware.accelerator),
        "-smp", str(hardware.cpus), "-m", str(hardware.memory), "-rtc", "base=utc",
        *_smbios(deployment, hardware.firmware), *_firmware(hardware.firmware, place),
        "-device", "virtio-rng-pci",
        "-device", "virtio-scsi-pci,id=scsi",
        "-drive", f"file={disk},format=qcow2,if=none,id=disk,cache=unsafe,discard=unmap",
        "-device", "scsi-hd,drive=disk,bus=scsi.0,bootindex=0",
        "-drive", f"file=/proc/self/fd/{media},format=raw,if=none,id=media,readonly=on",
        "-device", "scsi-cd,drive=media,bus=scsi.0",
        "-netdev", f"tap,id=net,fd={tap}",
        "-device", f"virtio-net-pci,netdev=net,mac={deployment.mac},romfile=",
    ]  # fmt: skip


def _smbios(deployment: Deployment, firmware: str) -> list[str]:
    """As Azure fills the tables in: in generation 1 the first three parts of the VM's id have their bytes reversed."""
    identity = uuid.UUID(deployment.vm_id)
    if firmware == BIOS:
        identity = uuid.UUID(bytes=identity.bytes_le)
    vendor = "manufacturer=Microsoft Corporation"
    return [
        "-smbios", f"type=1,{vendor},product=Virtual Machine,uuid={identity}",
        "-smbios", f"type=2,{vendor},product=Virtual Machine",
        "-smbios", f"type=3,{vendor},asset={ASSET_TAG}",
    ]  # fmt: skip


def _firmware(firmware: str, place: Path) -> list[str]:
    if firmware == BIOS:
        return []  # SeaBIOS, which QEMU brings along
    for code in _FIRMWARE:
        name = code.name.replace("CODE", "VARS").replace("code", "vars")
        if code.exists() and code.with_name(name).exists():
            variables = place / "variables.fd"
            variables.write_bytes(code.with_name(name).read_bytes())
            return [
                "-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={code}",
                "-drive", f"if=pflash,unit=1,format=raw,file={variables}",
            ]  # fmt: skip
    raise HarnessError("boot a machine of generation 2", "there is no OVMF", packages.install_hint([packages.OVMF]))


@dataclass
class Plugged:
    """A machine that is on, with its monitor."""

    running: Running
    monitor: Monitor

    def console(self) -> str:
        return self.running.output("console")

    def ended(self) -> bool:
        return self.running.ended() is not None

    def press_power(self) -> None:
        """What a person does at the machine's button; nothing where it has ended already."""
        try:
            self.monitor.ask("system_powerdown")
        except (HarnessError, OSError):
            return


def _monitor(running: Running, ours: socket.socket) -> Monitor:
    try:
        return Monitor(Ends.of(ours))
    except (HarnessError, OSError) as error:
        running.ended(_REFUSAL_SECONDS)
        said = running.output("qemu").strip()
        happened = said.splitlines()[-1] if said else "its monitor is gone"
        raise HarnessError("start QEMU for the image", happened, detail=said) from error


@contextmanager
def power_on(
    hardware: Hardware, deployment: Deployment, disk: Path, media: bytes, tap: int, place: Path
) -> Iterator[Plugged]:
    """Start the machine; at the end of the with block it is off. Takes the tap device's descriptor over."""
    words, theirs, ours = qemu.monitor()
    try:
        with theirs, qemu.memory("media", media) as cd:
            command = [*arguments(hardware, deployment, disk, cd, tap, place), *words]
            started = qemu.start(command, (cd, tap, theirs.fileno()))
            running = started.__enter__()
    finally:
        os.close(tap)
    try:
        with ours:
            yield Plugged(running, _monitor(running, ours))
    finally:
        started.__exit__(None, None, None)
