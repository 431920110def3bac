"""From a kernel's files to an entry of the cache, and whether an entry is still whole."""

from __future__ import annotations

import gzip
import json
import lzma
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import zstandard

from harness.errors import HarnessError
from harness.vm import cache, kernels, modules, unpacked_kernel
from harness.vm.kernels import Kernel
from tests.unit.vm import made


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MSP_HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vm"


def kept(tmp_path: Path, files: Mapping[str, bytes], name: str = "one") -> Kernel:
    def make(work: Path) -> None:
        made.write(work / "unpacked", files)
        unpacked_kernel.finish(work / "unpacked", work, "a test", "nothing")

    return kernels.kept(name, make)


def test_what_an_entry_has(tmp_path: Path) -> None:
    kernel = kept(tmp_path, made.FILES)
    assert (kernel.release, kernel.origin, kernel.verified) == (made.RELEASE, "a test", "nothing")
    assert kernel.image.read_bytes() == made.bzimage()
    assert kernel.vmlinux is not None
    assert kernel.vmlinux.read_bytes() == made.elf()
    there = {path.name for path in kernel.modules.rglob("*.ko")}
    assert there == {"virtio_pci.ko", "virtio_ring.ko", "virtio-core.ko", "virtio_blk.ko"}  # and no sound card
    assert [path.name for path in kernel.load_order(["virtio_pci"])] == ["virtio_pci.ko"]
    assert not (kernel.image.parent / "unpacked").exists()


def test_a_kernel_without_pvh_says_why(tmp_path: Path) -> None:
    image = made.bzimage(made.elf(pvh=False))
    kernel = kept(tmp_path, {**made.FILES, f"boot/vmlinuz-{made.RELEASE}": image})
    assert kernel.vmlinux is None
    assert "PVH" in kernel.no_vmlinux


def test_the_digest_is_of_image_and_modules(tmp_path: Path) -> None:
    digest = kept(tmp_path, made.FILES).digest
    assert kept(tmp_path, made.FILES, "same").digest == digest
    other = {**made.FILES, f"boot/vmlinuz-{made.RELEASE}": made.bzimage(pack="xz")}
    changed = {**made.FILES, f"lib/modules/{made.RELEASE}/kernel/virtio_blk.ko": made.module()}
    assert len({digest, kept(tmp_path, other, "other").digest, kept(tmp_path, changed, "changed").digest}) == 3


@pytest.mark.parametrize("packing", ["xz", "gz", "zst"])
def test_packed_modules_are_unpacked(packing: str, tmp_path: Path) -> None:
    packers: dict[str, Callable[[bytes], bytes]] = {
        "xz": lzma.compress,
        "gz": gzip.compress,
        "zst": zstandard.ZstdCompressor().compress,
    }
    pack = packers[packing]
    files = {
        f"{name}.{packing}" if name.endswith(".ko") else name: pack(content) if name.endswith(".ko") else content
        for name, content in made.FILES.items()
    }
    kernel = kept(tmp_path, files)
    assert (kernel.modules / "kernel" / "virtio_blk.ko").read_bytes() == made.module("virtio_ring")


@pytest.mark.parametrize("name", ["virtio_blk", "virtio_pci"])
def test_a_kernel_that_no_guest_can_start_on_is_refused(name: str, tmp_path: Path) -> None:
    files = {path: content for path, content in made.FILES.items() if name not in path}
    with pytest.raises(HarnessError, match=f"it has no {name}"):
        kept(tmp_path, files)
    assert cache.entries(kernels.KIND) == []


def test_a_module_without_what_it_needs_is_refused(tmp_path: Path) -> None:
    files = {path: content for path, content in made.FILES.items() if "virtio-core" not in path}
    with pytest.raises(HarnessError, match="needs virtio_core, which is not there"):
        kept(tmp_path, files)


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (b"text", "no kernel"),
        (bytes(56) + b"ARM\x64" + bytes(100), "arm64"),
        (b"MZ" + bytes(600), "EFI program"),
        (made.bzimage(release="9.9.1"), f"the image is 9.9.1, the modules are of {made.RELEASE}"),
    ],
)
def test_what_is_no_image_of_this_kernel(image: bytes, why: str, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=why):
        kept(tmp_path, {**made.FILES, f"boot/vmlinuz-{made.RELEASE}": image})


def test_a_package_with_several_kernels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"several: 9.9.0-test, 9.9.1"):
        kept(tmp_path, {**made.FILES, "boot/vmlinuz-9.9.1": made.bzimage(release="9.9.1")})


def test_a_package_without_a_kernel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="no image in it"):
        kept(tmp_path, {"lib/modules/1/modules.builtin": b""})
    with pytest.raises(HarnessError, match=r"no modules of 9\.9\.0-test"):
        kept(tmp_path, {f"boot/vmlinuz-{made.RELEASE}": made.bzimage()})


def test_modules_are_loaded_after_what_they_depend_on(tmp_path: Path) -> None:
    tree = made.write(tmp_path, {"modules.dep": b"k/c.ko: k/b.ko k/a.ko\nk/b.ko: k/a.ko\nk/a.ko:\nk/other.ko:\n"})
    assert [path.name for path in modules.load_order(tree, ["c"])] == ["a.ko", "b.ko", "c.ko"]


@pytest.mark.parametrize("wish", ["crc32c", "crypto-crc32c", "crc32c_generic"])
def test_what_a_module_wants_before_it_is_there_and_loaded_first(wish: str, tmp_path: Path) -> None:
    """ext4, where it is a module, mounts nothing without the algorithm crc32c, and its dependencies do not say so."""
    place = f"lib/modules/{made.RELEASE}/kernel"
    files = {
        **made.FILES,
        f"{place}/ext4.ko": made.module(softdep=f"pre: {wish} nothing post: soundcard"),
        f"{place}/crc32c_generic.ko": made.module(),
        f"lib/modules/{made.RELEASE}/modules.builtin": made.BUILT_IN.replace("kernel/fs/ext4/ext4.ko\n", "").encode(),
    }
    kernel = kept(tmp_path, files)
    assert [path.name for path in kernel.load_order(["ext4"])] == ["crc32c_generic.ko", "ext4.ko"]
    assert not (kernel.modules / "kernel" / "soundcard.ko").exists()


def replace(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("name", ["vmlinuz", "vmlinux", "modules", "kernel.json"])
@pytest.mark.parametrize("how", ["cut", "changed", "removed"])
def test_a_damaged_entry_is_made_anew(name: str, how: str, tmp_path: Path) -> None:
    kernel = kept(tmp_path, made.FILES)
    entry = kernel.image.parent
    target = kernel.modules / "kernel" / "virtio_pci.ko" if name == "modules" else entry / name
    if how == "removed":
        target.unlink()
    elif how == "cut":
        replace(target, target.read_bytes()[:-9])
    else:
        replace(target, target.read_bytes()[:-9] + b"?" * 9)
    assert kernels.damage(entry)
    assert kernels.damage(kept(tmp_path, made.FILES).image.parent) == ""
    assert kernel.image.read_bytes() == made.bzimage()


def test_a_copy_of_the_cache_with_other_times_is_whole(tmp_path: Path) -> None:
    kernel = kept(tmp_path, made.FILES)
    os.utime(kernel.image, ns=(5, 5))
    assert kernels.damage(kernel.image.parent) == ""
    assert kernel.image.stat().st_mtime_ns != 5  # looked into once


def test_what_a_disk_changed_by_itself_is_seen_by_a_thorough_look_only(tmp_path: Path) -> None:
    kernel = kept(tmp_path, made.FILES)
    before = kernel.image.stat()
    kernel.image.write_bytes(kernel.image.read_bytes()[:-1] + b"?")
    os.utime(kernel.image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert kernels.damage(kernel.image.parent) == ""
    assert "vmlinuz was changed" in kernels.damage(kernel.image.parent, thorough=True)


def test_what_was_asked_is_remembered(tmp_path: Path) -> None:
    kernel = kept(tmp_path, made.FILES)
    assert kernels.remembered("bookworm") is None
    kernels.remember("bookworm", kernel)
    kernels.remember("./file", kernel, "stamp")
    found = kernels.remembered("bookworm")
    assert found is not None
    assert found[0] == kernel
    assert kernels.remembered("./file", "stamp") is not None
    assert kernels.remembered("./file", "another file") is None
    assert {answer.spec for _, answer in kernels.answers()} == {"bookworm", "./file"}


def test_an_answer_without_its_entry_is_none(tmp_path: Path, place: Path) -> None:
    kernel = kept(tmp_path, made.FILES)
    kernels.remember("bookworm", kernel)
    (answer,) = (place / "kernel-specs").iterdir()
    for text in ("", "[]", '{"spec": "bookworm"}', json.dumps(None)):
        answer.write_text(text)
        assert kernels.remembered("bookworm") is None
    kernels.remember("bookworm", kernel)
    kernel.image.unlink()
    assert kernels.remembered("bookworm") is None
