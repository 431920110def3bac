"""Kernels from every source start, and give verdicts: the same kernel by other ways is the same kernel."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.command import run as run_command
from harness.errors import HarnessError
from harness.report import Outcome
from harness.vm import spec
from harness.vm.guest import Guest
from harness.vm.job import Job
from harness.vm.kernels import Kernel
from harness.vm.machine import Machine
from harness.vm.modules import TABLES
from harness.vm.run import run
from tests.unit.vm import made, rpms


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """With another cache, for the time of resolving: guests are kept where they always are."""
    with monkeypatch.context() as patch:
        patch.setenv("MSP_HARNESS_CACHE", str(tmp_path / "cache"))
        yield patch


def files_of(kernel: Kernel) -> dict[str, bytes]:
    """As a package has them."""
    tree = f"lib/modules/{kernel.release}"
    modules = {
        f"{tree}/{path.relative_to(kernel.modules)}": path.read_bytes()
        for path in sorted(kernel.modules.rglob("*"))
        if path.is_file() and (path.suffix == ".ko" or path.name in TABLES)
    }
    return {f"boot/vmlinuz-{kernel.release}": kernel.image.read_bytes(), **modules}


def verified(kernel: Kernel) -> None:
    """The kernel boots, and programs load, attach and redirect on it."""
    report = run(Machine(kernel), Job(("verify", "--quick", "--only", "load", "--only", "attach"), fresh=True))
    assert report.kernel == kernel.release
    assert report.target.startswith(kernel.origin)
    assert [result for result in report.results if result.outcome is not Outcome.PASS] == []


def test_a_kernel_from_rpms(kernel: Kernel, elsewhere: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Split as Fedora and its kin do, packed by rpmbuild from the files of a real kernel."""
    core, _ = rpms.halves(tmp_path / "rpms", files_of(kernel))
    found = spec.resolve(str(core), allow_unsigned=True)
    elsewhere.undo()
    assert (found.release, found.digest) == (kernel.release, kernel.digest)
    verified(found)


@pytest.mark.parametrize("form", ["vmlinuz", "vmlinux"])
def test_a_kernel_from_an_image(form: str, kernel: Kernel, elsewhere: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made.write(tmp_path / "tree", files_of(kernel))
    image = tmp_path / "image"
    shutil.copyfile(kernel.image if form == "vmlinuz" else kernel.vmlinux or kernel.image, image)
    found = spec.resolve(f"{image},modules={tmp_path / 'tree'}")
    elsewhere.undo()
    if form == "vmlinuz":
        assert found.digest == kernel.digest  # and that kernel boots
    else:
        verified(found)


SYSTEM = {
    "etc/os-release": b'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian"\nNAME=Debian\n',
    "etc/debian_version": b"12.1\n",
    "etc/hostname": b"test\n",
    "etc/fstab": b"/dev/sda1 / ext4 defaults 0 1\n/dev/sdz9 /boot ext4 defaults 0 1\n",
    "bin/sh": b"",
    "var/empty": b"",
}
MENU = "set default=0\nmenuentry 'Debian' {{\n\tlinux /boot/vmlinuz-{release} root=/dev/sda1\n}}\n"


def disk(place: Path, booted: Kernel, other: str) -> Path:
    """A disk with a partition, a system with two kernels, and GRUB's menu, which boots one of them."""
    files = {f"usr/{name}" if name.startswith("lib/") else name: content for name, content in files_of(booted).items()}
    files |= {f"boot/vmlinuz-{other}": made.bzimage(release=other), f"usr/lib/modules/{other}/modules.builtin": b""}
    menu = MENU.format(release=booted.release).encode()
    tree = made.write(place / "system", {**SYSTEM, **files, "boot/grub/grub.cfg": menu})
    (tree / "lib").symlink_to("usr/lib")
    raw = place / "disk.raw"
    with raw.open("wb") as file:
        file.truncate(160 << 20)
    run_command(["sfdisk", "-q", raw], stdin="label: dos\nstart=2048, type=83\n")
    run_command(["mke2fs", "-q", "-t", "ext4", "-E", "offset=1048576", "-d", tree, raw, "155M"], timeout=120)
    return raw


@pytest.mark.slow(reason="libguestfs' appliance takes 20 to 60 s under TCG, the first time longer")
@pytest.mark.skipif(shutil.which("guestfish") is None, reason="needs guestfish")
def test_the_kernel_that_a_disk_boots(kernel: Kernel, elsewhere: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for kind in ("appliance", "appliance-kernels"):  # are kept where they always are
        (tmp_path / "cache" / "vm").mkdir(parents=True, exist_ok=True)
        (tmp_path / "cache" / "vm" / kind).symlink_to(kernel.image.parents[2] / kind)
    raw = disk(tmp_path, kernel, "99.1.0-newer")
    if shutil.which("qemu-img"):
        run_command(["qemu-img", "convert", "-O", "qcow2", raw, tmp_path / "disk.qcow2"])
        raw = tmp_path / "disk.qcow2"
    found = spec.resolve(str(raw))
    assert (found.release, found.digest) == (kernel.release, kernel.digest)
    assert found.origin.startswith(f"{raw.name}:/boot/vmlinuz-{kernel.release} sha256:")
    with pytest.raises(HarnessError, match=r"it has no virtio_pci"):
        spec.resolve(f"{raw},kernel=99.1.0-newer")
    elsewhere.undo()
    verified(found)


@pytest.mark.slow(reason="each kernel is fetched, and booted under TCG")
@pytest.mark.parametrize(
    "kernel",
    ["bullseye/6.1", "bookworm:generic", "bookworm/6.12", "bookworm-backports", "trixie-backports", "forky", "sid"],
    indirect=True,
)
def test_kernels_of_other_suites(kernel: Kernel, guest_image: Guest) -> None:
    verified(kernel)
