"""Real systems of three suites, read in every form that a disk comes in: qcow2, fixed and dynamic VHD, VHDX, raw."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from harness.command import run
from harness.image import sample
from harness.image.checks.disk import disk
from harness.image.image import Image
from harness.image.read import read
from harness.report import Outcome
from tests.image.headers import needs_qemu_img
from tests.image.systems import needs_guestfish, state

pytestmark = [
    needs_guestfish,
    needs_qemu_img,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes the samples"),
    pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="needs mmdebstrap"),
    pytest.mark.slow(reason="each sample takes minutes to make, and its reading half a minute under TCG"),
]

# What Disk calls it: qemu-img's format and options.
FORMS = {
    "vhd-fixed": ("vpc", ["-o", "subformat=fixed,force_size"]),
    "vhd-dynamic": ("vpc", ["-o", "subformat=dynamic,force_size"]),
    "vhdx": ("vhdx", []),
    "raw": ("raw", []),
}


def is_read(image: Image, suite: str) -> None:
    assert suite in (image.tree.text("/etc/os-release") or "")
    assert image.system["distro"] == "debian"
    assert {"systemd", "cloud-init"} <= image.packages.keys()
    assert len(image.packages) > 100
    assert any(name.startswith("vmlinuz-") for name in image.tree.names("/boot"))
    (release,) = image.tree.names("/usr/lib/modules")
    assert image.tree.data(f"/usr/lib/modules/{release}/modules.builtin")
    assert image.tree.data(f"/boot/config-{release}")
    assert image.tree.text("/boot/grub/grub.cfg")
    python = next(each for each in image.tree.glob("/usr/lib/python3/dist-packages/cloudinit/*.py"))
    assert python
    assert image.tree.data("/usr/lib/python3/dist-packages/cloudinit/sources/DataSourceAzure.py")
    if suite != "trixie":  # systemd 256 and later have one hierarchy only, and no word of it
        places = ("/usr/lib/*/systemd", "/usr/lib/systemd")
        libraries = [path for place in places for path in image.tree.glob(f"{place}/libsystemd-shared-*.so")]
        assert any(b"default-hierarchy=" in (image.tree.data(each) or b"") for each in libraries)
    assert all(entry.data is None for path, entry in image.tree.below("/etc/ssh") if path.endswith("_key"))


@pytest.mark.parametrize("suite", ["bullseye", "bookworm", "trixie"])
def test_a_suite_is_read(suite: str) -> None:
    path = sample.good(suite)
    before = state(path)
    found = read(str(path))
    is_read(found, suite)
    assert found.tree.is_file("/usr/sbin/azure-proxy-agent")
    assert state(path) == before
    assert (found.disk.format, found.disk.firmware, found.disk.table) == ("qcow2", "bios", "mbr")
    outcomes = {each.id: each.outcome for each in disk(found)}
    assert outcomes.pop("disk.format") is Outcome.WARN
    assert set(outcomes.values()) == {Outcome.PASS}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_one_disk_is_read(form: str, tmp_path: Path) -> None:
    kind, options = FORMS[form]
    image = tmp_path / "image"
    run(["qemu-img", "convert", "-O", kind, *options, sample.good("bookworm"), image], timeout=600)
    found = read(str(image))
    is_read(found, "bookworm")
    assert (found.disk.format, found.disk.virtual_size) == (form, sample.SIZE)
    outcomes = {each.id: each.outcome for each in disk(found)}
    assert outcomes.pop("disk.format") is (Outcome.PASS if form == "vhd-fixed" else Outcome.WARN)
    assert set(outcomes.values()) == {Outcome.PASS}


def test_an_overlay_is_read_where_that_is_allowed(tmp_path: Path) -> None:
    base, overlay = sample.good("bookworm"), tmp_path / "overlay.qcow2"
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, overlay])
    before = state(overlay)
    found = read(str(overlay), allow_backing=True)
    is_read(found, "bookworm")
    assert found.disk.backing == (str(base),)
    assert state(overlay) == before
