"""Kernels as a Debian suite ships them: fetched by apt, which checks signatures and hashes, and kept.

apt runs in a private root, with the host's own sources rewritten to the suite that is wanted: nothing of the host's
apt changes, and a mirror or proxy that was configured for the host serves here as well.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.command import run
from harness.errors import HarnessError
from harness.kernel import packages
from harness.vm import bzimage, cache, vmlinux
from harness.vm.apt import Apt

MODULES = (
    "virtio_pci", "virtio_blk", "virtio_console", "virtio_rng", "ext4",  # the guest's own devices and its root
    "veth", "dummy", "bridge", "tcp_diag", "udp_diag", "inet_diag", "mptcp_diag", "af_packet",  # the lab
)  # fmt: skip
"""What a guest may have to load. What the kernel has built in, or not at all, is left out."""

PACKAGES = {"cloud": "linux-image-cloud-{arch}", "generic": "linux-image-{arch}"}
"""The package that depends on the newest kernel of a flavour."""

_IMAGE = re.compile(r"linux-image-[0-9][^ ,(|]*")
_PART = re.compile(r"linux-(?:image|binary|modules|base)-[0-9][^ ,(|]*")
_NEEDED = ("virtio_pci", "virtio_blk", "virtio_console", "ext4")  # as modules or built in, or no guest starts
_UNPACK_SECONDS = 300
_VERSION = 2  # of what an entry holds


_RECORD = "kernel.json"


@dataclass(frozen=True)
class Kernel:
    """A kernel to boot."""

    release: str  # as `uname -r` prints it
    origin: str  # suite, package, version
    image: Path  # vmlinuz, or vmlinux where that is what there is
    modules: Path  # /lib/modules/RELEASE with no more than MODULES and what they depend on, for modprobe
    digest: str  # sha256:…, of image and modules
    vmlinux: Path | None  # the ELF file that QEMU starts without anything to unpack (PVH)
    no_vmlinux: str = ""  # why there is none

    @classmethod
    def at(cls, entry: Path) -> Kernel:
        """The kernel that an entry of the cache holds."""
        record = json.loads((entry / _RECORD).read_text())
        release, reason = record["release"], record["no_vmlinux"]
        return cls(
            release,
            record["origin"],
            entry / record["image"],
            entry / "modules" / "lib" / "modules" / release,
            record["digest"],
            None if reason else entry / "vmlinux",
            reason,
        )

    def load_order(self, names: Sequence[str]) -> list[Path]:
        """The files of these modules as far as there are any, each after those that it depends on."""
        dependencies: dict[str, list[str]] = {}
        table = self.modules / "modules.dep"
        for line in table.read_text().splitlines() if table.exists() else ():  # all is built in
            name, _, needs = line.partition(":")
            dependencies[name] = needs.split()
        order: dict[str, None] = {}
        for name, needed in dependencies.items():
            if Path(name).stem in names:
                order |= dict.fromkeys([*reversed(needed), name])  # modules.dep lists the nearest first
        return [self.modules / name for name in order]


def complete(place: Path, release: str, origin: str) -> None:
    """Finish a directory that is to be an entry of the cache: what Kernel.at() needs beside image and modules.

    The directory has vmlinuz or vmlinux (which then must be fit for PVH), and modules/lib/modules/RELEASE, which may
    be empty. Raises HarnessError when neither can be started.
    """
    packed, plain, reason = place / "vmlinuz", place / "vmlinux", ""
    image = packed if packed.exists() else plain
    if image is packed:
        try:
            kernel = bzimage.unpacked(packed.read_bytes())
            vmlinux.check(kernel)
            plain.write_bytes(kernel)
        except HarnessError as error:
            reason = error.happened
    else:
        vmlinux.check(plain.read_bytes())
    record = {
        "release": release,
        "origin": origin,
        "image": image.name,
        "digest": _digest(image, place / "modules"),
        "no_vmlinux": reason,
    }
    (place / _RECORD).write_text(json.dumps(record, indent=1))


def _digest(image: Path, modules: Path) -> str:
    """sha256 over the image and each file of the modules with its name: what the guest runs, wherever it lies."""
    whole = hashlib.sha256(hashlib.sha256(image.read_bytes()).digest())
    for path in sorted(path for path in modules.rglob("*") if path.is_file()):
        name = str(path.relative_to(modules)).encode()
        whole.update(hashlib.sha256(name).digest() + hashlib.sha256(path.read_bytes()).digest())
    return f"sha256:{whole.hexdigest()}"


def get(suite: str, flavour: str = "cloud", *, refresh: bool = False) -> Kernel:
    """The newest kernel of a suite (bookworm, trixie-backports …), fetched when there is none or on refresh.

    Raises HarnessError when apt, the suite or its package cannot be had.
    """
    recipe = hashlib.sha256(repr((_VERSION, MODULES)).encode()).hexdigest()[:8]
    newest = cache.directory() / "kernels" / f"newest-{suite}-{flavour}-{recipe}"
    if newest.is_dir() and not refresh:
        return Kernel.at(newest.resolve())
    if shutil.which("depmod") is None:
        raise HarnessError("prepare a kernel's modules", "there is no depmod", packages.install_hint([packages.KMOD]))
    with cache.locked("apt", suite):
        apt = Apt(suite, cache.directory() / "apt" / suite)
        apt.update()
        package = PACKAGES[flavour].format(arch=apt.architecture)
        name = _image_of(apt, package)
        version = apt.show(name)["Version"]
        origin = f"{suite} {name} {version}"
        entry = cache.kept(
            "kernels", f"{name}_{version.replace(':', '%')}-{recipe}", lambda place: _fetch(apt, name, origin, place)
        )
        _point(newest, entry)
    return Kernel.at(entry)


def _image_of(apt: Apt, package: str) -> str:
    """The package with the image: what this one depends on."""
    depends = apt.show(package).get("Depends", "")
    found = _IMAGE.search(depends)
    if found is None:
        happened = f"it depends on no image: {depends or 'no dependencies'}"
        raise HarnessError(f"find the kernel of {package}", happened)
    return found.group()


def _fetch(apt: Apt, name: str, origin: str, place: Path) -> None:
    """Fill an entry of the cache: vmlinuz, modules, and what complete() adds.

    Some suites split a kernel into an image, a binary and modules; what depends on what says which.
    """
    unpacked, download = place / "unpacked", place / "download"
    waiting, seen = [name], set[str]()
    while waiting:
        package = waiting.pop()
        seen.add(package)
        run(["dpkg-deb", "-x", apt.download(package, download), unpacked], timeout=_UNPACK_SECONDS)
        waiting += set(_PART.findall(apt.show(package).get("Depends", ""))) - seen - set(waiting)
    images = [*unpacked.glob("boot/vmlinuz-*"), *unpacked.glob("usr/lib/modules/*/vmlinuz")]
    trees = [*unpacked.glob("lib/modules/*"), *unpacked.glob("usr/lib/modules/*")]
    if not images or len(trees) != 1:
        happened = f"{len(images)} images and {len(trees)} trees of modules in {', '.join(sorted(seen))}"
        raise HarnessError(f"find the kernel of {name}", happened)
    images[0].rename(place / "vmlinuz")
    _reduce(trees[0], place / "modules")
    complete(place, trees[0].name, origin)
    shutil.rmtree(unpacked)
    shutil.rmtree(download)


def _reduce(tree: Path, root: Path) -> None:
    """Of a kernel's modules those that a guest may load, below another root, with modprobe's tables."""
    release = tree.name
    if tree.parent.parent.name == "usr":  # depmod -b wants lib/modules
        tree = tree.rename(tree.parent.parent.parent / release)
    kept = root / "lib" / "modules" / release
    kept.mkdir(parents=True)
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        if (tree / name).exists():
            shutil.copy2(tree / name, kept / name)
    built_in = (tree / "modules.builtin").read_text() if (tree / "modules.builtin").exists() else ""
    files = {path.name.split(".ko")[0].replace("-", "_"): path for path in tree.glob("kernel/**/*.ko*")}
    there = files.keys() | {Path(line).stem.replace("-", "_") for line in built_in.splitlines()}
    missing = [name for name in _NEEDED if name not in there]
    if missing:
        raise HarnessError(f"use {release} in a guest", f"it has no {', '.join(missing)}, built in or as a module")
    wanted = [name for name in MODULES if name in files]
    while wanted:
        path = files[wanted.pop()]
        target = kept / path.relative_to(tree).with_name(path.name.split(".ko")[0] + ".ko")
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(_module(path))
            wanted += _dependencies(target)
    run(["depmod", "-b", root, release])


def _module(path: Path) -> bytes:
    """A module's content. The guest's init loads modules that are not compressed."""
    if path.suffix == ".xz":
        import lzma

        return lzma.decompress(path.read_bytes())
    if path.suffix == ".zst":
        return run(["zstd", "-dc", path]).stdout
    return path.read_bytes()


def _dependencies(module: Path) -> list[str]:
    """The names in the field depends of a module's section .modinfo."""
    found = re.search(rb"\0depends=([^\0]*)\0", module.read_bytes())
    names = found.group(1).decode() if found else ""
    return [name.replace("-", "_") for name in names.split(",") if name]


def _point(link: Path, entry: Path) -> None:
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(entry.name)
    fresh.replace(link)
