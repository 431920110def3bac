"""The kernel of libguestfs' appliance: the host's own, where it has one with its modules, else the suite's.

libguestfs is given it unpacked, as an ELF file: emulated, a guest takes seconds to unpack its kernel.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from harness.command import run
from harness.errors import HarnessError
from harness.vm import apt, archives, bzimage, cache, unpacked_kernel, vmlinux

_KIND = "appliance-kernels"
_BOOT, _MODULES = Path("/boot"), Path("/lib/modules")


@dataclass(frozen=True)
class Kernel:
    """An image, what `uname -r` will print of it, and the directory of its modules, with modules.dep."""

    image: Path
    release: str
    modules: Path

    @property
    def name(self) -> str:
        """What stands for it: another image has another name."""
        status = self.image.stat()
        stamp = f"{status.st_size} {status.st_mtime_ns}"
        return f"{self.release}-{hashlib.sha256(stamp.encode()).hexdigest()[:16]}"


def packed() -> Kernel:
    """As its package ships it. Raises HarnessError where there is none on the host and none can be fetched."""
    return _of_the_host() or _fetched()


def unpacked() -> Kernel:
    """The same kernel as QEMU starts it sooner; as it is shipped where that is not possible."""
    kernel = packed()
    image = _kept(f"{kernel.name}-vmlinux", lambda place: _unpack(kernel.image, place)) / "vmlinux"
    return replace(kernel, image=image) if image.exists() else kernel


def _of_the_host() -> Kernel | None:
    """The newest that may be read: in Ubuntu that is root's privilege."""
    readable = (image for image in _BOOT.glob("vmlinuz-*") if os.access(image, os.R_OK))
    for image in sorted(readable, key=lambda image: image.stat().st_mtime_ns, reverse=True):
        release = image.name.removeprefix("vmlinuz-")
        if (_MODULES / release / "modules.dep").exists():
            return Kernel(image, release, _MODULES / release)
    return None


def _fetched() -> Kernel:
    entry = _kept(f"{apt.codename()}-1", _fetch)
    release = (entry / "release").read_text()
    return Kernel(entry / "boot" / f"vmlinuz-{release}", release, entry / "lib" / "modules" / release)


def _kept(name: str, make: Callable[[Path], None]) -> Path:
    """An entry of the cache; what root made serves all."""
    entry = cache.shared() / _KIND / name
    return entry if cache.hold(entry) else cache.kept(_KIND, name, make)


def _fetch(place: Path) -> None:
    """Fill an entry of the cache: the suite's generic kernel with all its modules, as its package has it."""
    from harness.vm import suites

    suite = suites.Suite(apt.codename(), flavour="generic")
    files = suites.packages_of(suite, place / "download")
    for file in files:
        unpacked_kernel.collect(archives.deb_files(file), place, file.name)
    shutil.rmtree(place / "download")
    releases = [path.name for path in (place / "lib" / "modules").iterdir()]
    if len(releases) != 1 or not (place / "boot" / f"vmlinuz-{releases[0]}").exists():
        raise HarnessError(f"fetch a kernel of {suite} for libguestfs", "its package is of an unknown layout")
    run(["depmod", "-b", place, releases[0]])
    (place / "release").write_text(releases[0])


def _unpack(image: Path, place: Path) -> None:
    """Fill an entry of the cache: vmlinux, or why there can be none."""
    try:
        kernel = bzimage.unpacked(image.read_bytes())
        vmlinux.check(kernel)
    except HarnessError as error:
        (place / "reason").write_text(error.happened)
    else:
        (place / "vmlinux").write_bytes(kernel)
