"""From a distribution's packages to what a guest boots, with packages made here; the real ones are in test_verify."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.command import run
from harness.errors import HarnessError
from harness.vm import kernels
from harness.vm.kernels import Kernel

RELEASE = "9.9.0-test"
MODULE = "lib/modules/9.9.0-test/kernel/{}"
BUILT_IN = "kernel/fs/ext4/ext4.ko\nkernel/drivers/char/virtio_console.ko\n"

Files = Mapping[str, str]


class Packages:
    """An apt with these packages: what each depends on, and its files."""

    def __init__(self, place: Path, packages: Mapping[str, tuple[str, Files]]):
        self._place = place
        self._packages = packages

    def show(self, name: str) -> Mapping[str, str]:
        return {"Depends": self._packages[name][0], "Version": "1"}

    def download(self, name: str, place: Path) -> Path:
        tree = self._place / name
        for path, content in self._packages[name][1].items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(content)
        control = tree / "DEBIAN" / "control"
        control.parent.mkdir(parents=True, exist_ok=True)
        control.write_text(f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: a test\n")
        place.mkdir(exist_ok=True)
        run(["dpkg-deb", "--root-owner-group", "-b", tree, place / f"{name}.deb"])
        return place / f"{name}.deb"


def module(depends: str = "") -> str:
    return f"\0license=GPL\0depends={depends}\0"


def fetched(tmp_path: Path, packages: Mapping[str, tuple[str, Files]]) -> Kernel:
    place = tmp_path / "entry"
    place.mkdir()
    apt = Packages(tmp_path / "packages", packages)
    kernels._fetch(apt, next(iter(packages)), "suite package 1", place)  # type: ignore[arg-type]
    return Kernel.at(place)


MODULES = {
    MODULE.format("virtio_pci.ko"): module("virtio_ring,virtio-core"),
    MODULE.format("virtio_ring.ko"): module("virtio-core"),
    MODULE.format("virtio-core.ko"): module(),
    MODULE.format("virtio_blk.ko"): module("virtio_ring"),
    MODULE.format("soundcard.ko"): module(),
    f"lib/modules/{RELEASE}/modules.builtin": BUILT_IN,
}


def test_one_package(tmp_path: Path) -> None:
    image = f"linux-image-{RELEASE}"
    kernel = fetched(tmp_path, {image: ("kmod", {f"boot/vmlinuz-{RELEASE}": "vmlinuz", **MODULES})})
    assert (kernel.release, kernel.origin) == (RELEASE, "suite package 1")
    assert kernel.image.read_text() == "vmlinuz"
    there = {path.name for path in kernel.modules.rglob("*.ko")}
    assert there == {"virtio_pci.ko", "virtio_ring.ko", "virtio-core.ko", "virtio_blk.ko"}  # and no sound card


def test_a_split_kernel_is_put_together(tmp_path: Path) -> None:
    names = {part: f"linux-{part}-{RELEASE}" for part in ("image", "binary", "modules", "base")}
    usr = {f"usr/{path}": content for path, content in MODULES.items()}
    kernel = fetched(
        tmp_path,
        {
            names["image"]: (", ".join(f"{names[part]} (= 1)" for part in ("base", "binary", "modules")), {}),
            names["binary"]: ("", {f"usr/lib/modules/{RELEASE}/vmlinuz": "vmlinuz"}),
            names["modules"]: (names["base"], usr),
            names["base"]: ("", {f"usr/lib/modules/{RELEASE}/modules.builtin": BUILT_IN}),
        },
    )
    assert kernel.image.read_text() == "vmlinuz"
    assert (kernel.modules / "kernel" / "virtio_blk.ko").exists()


@pytest.mark.parametrize("name", ["virtio_blk", "virtio_pci"])
def test_a_kernel_that_no_guest_can_start_on_is_refused(name: str, tmp_path: Path) -> None:
    files = {path: content for path, content in MODULES.items() if name not in path}
    with pytest.raises(HarnessError, match=f"it has no {name}"):
        fetched(tmp_path, {f"linux-image-{RELEASE}": ("", {f"boot/vmlinuz-{RELEASE}": "", **files})})


def test_packages_without_a_kernel_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="0 images and 0 trees"):
        fetched(tmp_path, {f"linux-image-{RELEASE}": ("", {"usr/share/doc/README": ""})})


def test_modules_are_loaded_after_what_they_depend_on(tmp_path: Path) -> None:
    tree = tmp_path / "modules"
    tree.mkdir()
    (tree / "modules.dep").write_text("k/c.ko: k/b.ko k/a.ko\nk/b.ko: k/a.ko\nk/a.ko:\nk/other.ko:\n")
    kernel = Kernel(RELEASE, "", tmp_path, tree, "sha256:", None)
    assert [path.name for path in kernel.load_order(["c"])] == ["a.ko", "b.ko", "c.ko"]
