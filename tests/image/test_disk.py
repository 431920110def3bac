"""disk.*: each rule is kept by one image and broken by another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.image.checks.disk import convert, disk
from harness.image.image import Disk, Image, Partition
from harness.image.tree import Tree
from harness.report import Outcome
from tests.image.headers import LINUX, MIB

GOOD = Disk("vhd-fixed", 30 * MIB + 512, 30 * MIB, "gpt", (Partition(1, MIB, 8 * MIB, LINUX),), "uefi")
LUKS = {"/": "no system"}


def outcomes(found: Disk, *, systems: tuple[str, ...] = ("/dev/sda1: debian",), unseen: dict[str, str] | None = None,
             ) -> dict[str, Outcome]:  # fmt: skip
    image = Image("a disk.img", found, Tree({}), systems=systems, unseen=unseen or {})
    return {each.id: each.outcome for each in disk(image)}


def test_a_good_disk_passes_all() -> None:
    assert set(outcomes(GOOD).values()) == {Outcome.PASS}


@pytest.mark.parametrize(
    ("check", "changes", "outcome"),
    [
        ("format", {"format": "vhd-dynamic"}, Outcome.WARN),
        ("format", {"format": "vhdx"}, Outcome.WARN),
        ("format", {"format": "qcow2"}, Outcome.WARN),
        ("format", {"format": "raw"}, Outcome.WARN),
        ("whole", {"troubles": ("the VHD's footer has a wrong checksum",)}, Outcome.FAIL),
        ("size", {"virtual_size": 30 * MIB + 512}, Outcome.FAIL),
        ("size", {"virtual_size": 30 * MIB + 512, "format": "vhd-dynamic"}, Outcome.FAIL),
        ("size", {"virtual_size": 30 * MIB + 512, "format": "qcow2"}, Outcome.WARN),
        ("size", {"virtual_size": 4096 << 30}, Outcome.FAIL),
        ("size", {"virtual_size": 3 << 40, "table": "mbr"}, Outcome.WARN),
        ("size", {"virtual_size": 0}, Outcome.ERROR),
        ("alignment", {"partitions": (Partition(1, 63 * 512, MIB, "83"),)}, Outcome.WARN),
        ("alignment", {"partitions": ()}, Outcome.SKIP),
        ("generation", {"firmware": ""}, Outcome.FAIL),
        ("generation", {"firmware": "", "table": ""}, Outcome.FAIL),
        ("lvm", {"lvm": True}, Outcome.WARN),
        ("encryption", {"encrypted": ("/dev/sda2",)}, Outcome.WARN),
        ("encryption", {"encrypted": ("the image",)}, Outcome.FAIL),
    ],
)
def test_each_rule_broken(check: str, changes: dict[str, object], outcome: Outcome) -> None:
    found = outcomes(replace(GOOD, **changes))  # type: ignore[arg-type]
    assert found[f"disk.{check}"] is outcome
    others = {name: each for name, each in found.items() if name != f"disk.{check}" and each is not Outcome.PASS}
    assert not others.keys() - {"disk.format"}


def test_what_was_not_read_is_no_verdict() -> None:
    found = outcomes(replace(GOOD, firmware="", encrypted=("/dev/sda1",)), systems=(), unseen=LUKS)
    assert found["disk.generation"] is Outcome.ERROR
    assert found["disk.encryption"] is Outcome.ERROR


@pytest.mark.parametrize("firmware", ["bios", "uefi", "both"])
def test_each_firmware_is_a_generation(firmware: str) -> None:
    assert outcomes(replace(GOOD, firmware=firmware))["disk.generation"] is Outcome.PASS


@pytest.mark.parametrize("form", ["directory", "tar", "oci"])
def test_a_root_file_system_has_no_disk(form: str) -> None:
    assert outcomes(Disk(form)) == {"disk.format": Outcome.SKIP}


def test_the_commands_to_convert() -> None:
    image = Image("my disk.qcow2", replace(GOOD, format="qcow2"), Tree({}))
    assert convert(image) == (
        "qemu-img convert -f qcow2 -O vpc -o subformat=fixed,force_size 'my disk.qcow2' 'my disk-azure.vhd'"
    )
    odd = Image("d.raw", replace(GOOD, format="raw", virtual_size=30 * MIB + 1), Tree({}))
    assert "qemu-img resize -f raw d-azure.raw 31M" in convert(odd)


def test_backing_files_are_told() -> None:
    found = next(disk(Image("x", replace(GOOD, backing=("/base.qcow2",)), Tree({}))))
    assert found.evidence["backing files"] == ["/base.qcow2"]
