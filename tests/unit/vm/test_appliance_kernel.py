"""Which kernel libguestfs' appliance has, and in which form."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.vm import appliance_kernel
from tests.unit.vm import made


@pytest.fixture(autouse=True)
def boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> Path:
    """A host's /boot and /lib/modules; nothing is fetched."""
    places = tmp_path / "boot", tmp_path / "modules"
    for place in places:
        place.mkdir()
    monkeypatch.setattr(appliance_kernel, "_BOOT", places[0])
    monkeypatch.setattr(appliance_kernel, "_MODULES", places[1])
    monkeypatch.setattr(appliance_kernel, "_fetched", lambda: pytest.fail("a kernel was fetched"))
    return places[0]


def install(boot: Path, release: str, image: bytes, *, modules: bool = True, changed: int = 1) -> Path:
    path = boot / f"vmlinuz-{release}"
    path.write_bytes(image)
    os.utime(path, (changed, changed))
    if modules:
        tree = boot.parent / "modules" / release
        tree.mkdir(exist_ok=True)
        (tree / "modules.dep").touch()
    return path


def test_the_hosts_own_is_given_unpacked(boot: Path) -> None:
    packed = install(boot, made.RELEASE, made.bzimage())
    found = appliance_kernel.unpacked()
    assert found.image.read_bytes() == made.elf()
    assert (found.release, found.modules) == (made.RELEASE, boot.parent / "modules" / made.RELEASE)
    assert appliance_kernel.packed().image == packed


def test_the_newest_that_can_be_used(boot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(boot, "9.1.0", made.bzimage(release="9.1.0"), changed=1)
    install(boot, "9.2.0", made.bzimage(release="9.2.0"), changed=2)
    install(boot, "9.3.0", made.bzimage(release="9.3.0"), changed=3, modules=False)
    unreadable = install(boot, "9.4.0", made.bzimage(release="9.4.0"), changed=4)
    monkeypatch.setattr(os, "access", lambda path, mode: path != unreadable)
    assert appliance_kernel.packed().release == "9.2.0"


@pytest.mark.parametrize("image", [b"no kernel", made.bzimage(made.elf(pvh=False)), made.bzimage()[:-900]])
def test_one_that_cannot_be_unpacked_stays_as_it_is(boot: Path, image: bytes) -> None:
    packed = install(boot, made.RELEASE, image)
    assert appliance_kernel.unpacked().image == packed


def test_another_image_of_the_same_release_is_unpacked_anew(boot: Path) -> None:
    install(boot, made.RELEASE, made.bzimage(), changed=1)
    first = appliance_kernel.unpacked()
    install(boot, made.RELEASE, made.bzimage(made.elf() + b"another"), changed=2)
    second = appliance_kernel.unpacked()
    assert second.image.read_bytes() == made.elf() + b"another"
    assert first.name != second.name


def test_without_one_of_the_host_it_is_fetched(boot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = appliance_kernel.Kernel(install(boot, "1", b"", modules=False), "1", boot)
    monkeypatch.setattr(appliance_kernel, "_fetched", lambda: fetched)
    assert appliance_kernel.packed() == fetched
