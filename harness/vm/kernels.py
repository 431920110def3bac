"""A kernel that is kept to be booted: image, modules, and a record of what it is and where it came from."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.vm import bzimage, cache, modules, vmlinux

KIND = "kernels"
"""Of the cache's entries."""

RECIPE = hashlib.sha256(repr((3, modules.MODULES)).encode()).hexdigest()[:8]
"""Stands in each entry's name; the number is that of the form of an entry."""

_RECORD = "kernel.json"
_ANSWERS = "kernel-specs"  # a file for each thing that was asked


@dataclass(frozen=True)
class Kernel:
    """A kernel to boot."""

    release: str  # as `uname -r` prints it
    origin: str  # suite, package, version; or file
    image: Path  # vmlinuz, or vmlinux where that is what there is
    modules: Path  # /lib/modules/RELEASE with no more than modules.MODULES and what they depend on, for modprobe
    digest: str  # sha256:…, of image and modules
    vmlinux: Path | None  # the ELF file that QEMU starts without anything to unpack (PVH)
    no_vmlinux: str = ""  # why there is none
    verified: str = ""  # by what the origin is known, or that nothing vouches for it

    @classmethod
    def at(cls, entry: Path) -> Kernel:
        """The kernel that an entry of the cache holds. Raises HarnessError when its record cannot be read."""
        record = _record(entry)
        if record is None:
            raise HarnessError(f"read the kernel in {entry}", f"its {_RECORD} is damaged", "get it again")
        release, reason = record["release"], record["no_vmlinux"]
        return cls(
            release,
            record["origin"],
            entry / record["image"],
            entry / "modules" / "lib" / "modules" / release,
            record["digest"],
            None if reason else entry / "vmlinux",
            reason,
            record["verified"],
        )

    def load_order(self, names: Sequence[str]) -> list[Path]:
        """The files of these modules as far as there are any, each after those that it depends on."""
        return modules.load_order(self.modules, names)


def kept(name: str, make: Callable[[Path], None]) -> Kernel:
    """The kernel in the cache's entry NAME-RECIPE, made where there is none or a damaged one; held from here on.

    make fills a directory and ends with complete().
    """
    return Kernel.at(cache.kept(KIND, f"{name}-{RECIPE}", make, damage))


def complete(place: Path, release: str, origin: str, verified: str = "") -> None:
    """Finish a directory that is to be an entry of the cache: what Kernel.at() needs beside image and modules.

    The directory has vmlinuz or vmlinux (which then must be fit for PVH), and modules/lib/modules/RELEASE, which may
    be empty. Raises HarnessError when neither can be started, or is of another release.
    """
    packed, plain, reason = place / "vmlinuz", place / "vmlinux", ""
    image = packed if packed.exists() else plain
    content = image.read_bytes()
    found = image_release(content)
    if found != release:
        raise HarnessError(f"use {origin}", f"the image is {found}, the modules are of {release}", "give both of one")
    if image is packed:
        try:
            kernel = bzimage.unpacked(content)
            vmlinux.check(kernel)
            plain.write_bytes(kernel)
        except HarnessError as error:
            reason = error.happened
    else:
        vmlinux.check(content)
    files = {str(path.relative_to(place)): _sha256(path) for path in sorted(place.rglob("*")) if path.is_file()}
    whole = hashlib.sha256()
    for name, digest in files.items():
        if name == image.name or name.startswith("modules/"):
            whole.update(f"{name} {digest}\n".encode())
    record = {
        "release": release,
        "origin": origin,
        "verified": verified,
        "image": image.name,
        "digest": f"sha256:{whole.hexdigest()}",
        "no_vmlinux": reason,
        "made": int(time.time()),
        "files": {name: [*_stamp(place / name), digest] for name, digest in files.items()},
    }
    (place / _RECORD).write_text(json.dumps(record, indent=1))


def image_release(image: bytes) -> str:
    """The release of a bzImage or an ELF vmlinux. Raises HarnessError for anything else, and says what it is."""
    header = bzimage.setup(image)
    if header is not None:
        return header.release
    if image.startswith(vmlinux.MAGIC):
        return vmlinux.release(image)
    what = next((what for at, magic, what in _OTHERS if image[at : at + len(magic)] == magic), "no kernel")
    raise HarnessError("boot an image", f"it is {what}", "give a bzImage (vmlinuz) or vmlinux for x86-64")


_OTHERS = (
    (56, b"ARM\x64", "a kernel for arm64"),  # Documentation/arch/arm64/booting.rst
    (48, b"RISCV\0\0\0", "a kernel for RISC-V"),  # Documentation/arch/riscv/boot-image-header.rst
    (4, b"zimg", "an EFI zboot image, for another architecture"),  # drivers/firmware/efi/libstub/zboot-header.S
    (0, b"MZ", "an EFI program and no Linux kernel"),
    (0, b"\x1f\x8b", "a gzip file: unpack it first"),
)


def damage(entry: Path, *, thorough: bool = False) -> str:
    """What is wrong with an entry, or nothing.

    A file is looked into when its size or time of change is not what was recorded, else only where thorough asks for
    it: what a disk changes by itself is not seen on use.
    """
    record = _record(entry)
    if record is None:
        return f"{_RECORD} is missing or damaged"
    for name, (size, changed, digest) in record["files"].items():
        path = entry / name
        try:
            if _stamp(path) == (size, changed) and not thorough:
                continue
            if path.stat().st_size != size or _sha256(path) != digest:
                return f"{name} was changed"
            if _stamp(path) != (size, changed):  # a copy of the whole cache
                os.utime(path, ns=(changed, changed))
        except PermissionError:  # of utime: not ours to set
            continue
        except OSError:
            return f"{name} is missing"
    return ""


def _record(entry: Path) -> Mapping[str, Any] | None:
    try:
        record = json.loads((entry / _RECORD).read_text())
        return record if record.keys() >= {"release", "origin", "verified", "image", "digest", "files"} else None
    except (OSError, ValueError, AttributeError):
        return None


def made(entry: Path) -> float:
    """When an entry was made, in seconds since the epoch."""
    record = _record(entry)
    return float(record["made"]) if record else entry.stat().st_mtime


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Answer:
    """What was asked for, and the entry that answered."""

    spec: str
    stamp: str  # of the file that spec names: another one is another question
    entry: str
    asked: float  # seconds since the epoch


def remembered(spec: str, stamp: str = "") -> tuple[Kernel, float] | None:
    """The kernel that answered to spec, and when that was asked (seconds since the epoch); None: ask anew."""
    answer = _answer(_place(spec))
    if answer is None or (answer.spec, answer.stamp) != (spec, stamp):
        return None
    entry = cache.directory() / KIND / answer.entry
    return (Kernel.at(entry), answer.asked) if cache.hold(entry) and not damage(entry) else None


def remember(spec: str, kernel: Kernel, stamp: str = "") -> None:
    """Have remembered() find this kernel."""
    place = _place(spec)
    answer = Answer(spec, stamp, kernel.image.parent.name, time.time())
    with cache.writing(f"keep what {spec} is"):
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = place.with_name(f".{place.name}.{os.getpid()}")
        fresh.write_text(json.dumps(asdict(answer)))
        fresh.replace(place)


def answers() -> list[tuple[Path, Answer]]:
    """All that is remembered, with the file that says so; also answers whose entry is gone."""
    place = cache.directory() / _ANSWERS
    found = [(path, _answer(path)) for path in sorted(place.glob("*.json"))] if place.is_dir() else []
    return [(path, answer) for path, answer in found if answer is not None]


def _place(spec: str) -> Path:
    return cache.directory() / _ANSWERS / f"{hashlib.sha256(spec.encode()).hexdigest()[:16]}-{RECIPE}.json"


def _answer(path: Path) -> Answer | None:
    try:
        return Answer(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
