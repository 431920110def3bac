"""Kernels from files: a .deb or .rpm with its other half, or an image with the directory of its modules.

What a file is, is told by its content and not by its name. It is a stranger's: sizes are bounded, nothing in it is
run, and what is taken of it is what a guest boots.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from harness.errors import HarnessError, errno_text
from harness.vm import archives, bzimage, kernels, modules, rpm_signature, unpacked_kernel, vmlinux
from harness.vm.kernels import Kernel

LARGEST_IMAGE = 256 << 20  # bytes; a bzImage has 5 to 20 MB, a vmlinux without debug information 20 to 100


def of_packages(files: Sequence[Path], *, allow_unsigned: bool) -> Kernel:
    """The kernel in packages, which are all .deb or all .rpm; its other half is looked for beside the first."""
    first = files[0]
    is_rpm = magic(first).startswith(archives.RPM_MAGIC)
    if len(files) == 1:
        files = [first, *(_rpms_beside(first) if is_rpm else _debs_beside(first))]
    for file in files[1:]:
        if magic(file).startswith(archives.RPM_MAGIC) != is_rpm:
            raise HarnessError(f"use {first.name} with {file.name}", "they are packages of different kinds")
    hashes = [sha256(file) for file in files]
    origin = " + ".join(f"{file.name} sha256:{digest[:16]}" for file, digest in zip(files, hashes, strict=True))
    if is_rpm:
        said = dict.fromkeys(rpm_signature.verified(file, allow_unsigned=allow_unsigned) for file in files)
        verified = "; ".join(said)
    else:
        verified = "a local file: by its sha256 only; a .deb has no signature of its own"

    def make(place: Path) -> None:
        for file in files:
            members = archives.rpm_files(file) if is_rpm else archives.deb_files(file)
            unpacked_kernel.collect(members, place / "unpacked", file.name)
        unpacked_kernel.finish(place / "unpacked", place, origin, verified)

    trust = hashlib.sha256(verified.encode()).hexdigest()[:4]
    return kernels.kept(f"package-{_joined(hashes)}-{trust}", make)


def _rpms_beside(package: Path) -> list[Path]:
    """kernel-core's other half: packages of modules of the same version, release and architecture, by their names."""
    tags = archives.rpm_tags(package)
    ending = f"-{tags.version}-{tags.release}.{tags.architecture}.rpm"
    found = [path for path in sorted(package.parent.glob("*.rpm")) if path.name.endswith(ending) and path != package]
    # The -extra and -internal ones have nothing that a guest loads.
    names = {path: path.name.removesuffix(ending) for path in found}
    return [path for path, name in names.items() if name.startswith("kernel") and name.endswith(_HALVES)]


_HALVES = ("-modules", "-modules-core")


def _debs_beside(package: Path) -> list[Path]:
    """A split kernel's other parts: packages with the same release and version in their names."""
    for part in _PARTS:
        if package.name.startswith(part):
            rest = package.name.removeprefix(part).removeprefix("unsigned-")
            names = [f"{other}{rest}" for other in _PARTS if other != part]
            return [package.parent / name for name in names if (package.parent / name).is_file()]
    return []


_PARTS = ("linux-image-", "linux-binary-", "linux-modules-", "linux-image-unsigned-")


def of_image(image: Path, tree: Path | None) -> Kernel:
    """The kernel of an image (bzImage, or an ELF vmlinux with a PVH entry) with its modules.

    Where no directory of modules is named, /lib/modules/RELEASE and lib/modules/RELEASE beside boot/ are looked at.
    """
    if image.stat().st_size > LARGEST_IMAGE:
        raise HarnessError(f"boot {image.name}", f"it is larger than {LARGEST_IMAGE >> 20} MiB", "strip it (strip -g)")
    content = image.read_bytes()
    release = kernels.image_release(content)
    if content.startswith(vmlinux.MAGIC):
        vmlinux.check(content)
    tree = _tree(image, release, tree)
    digest = hashlib.sha256(content).hexdigest()
    origin = f"{image.name} sha256:{digest[:16]}"

    def make(place: Path) -> None:
        is_packed = bzimage.setup(content) is not None
        (place / ("vmlinuz" if is_packed else "vmlinux")).write_bytes(content)
        modules.reduce(tree, place / "modules", release)
        kernels.complete(place, release, origin, "a local file: by its sha256 only")

    state = hashlib.sha256("".join(_listing(tree)).encode()).hexdigest()
    return kernels.kept(f"image-{digest[:16]}-{state[:8]}", make)


def _tree(image: Path, release: str, named: Path | None) -> Path:
    """The directory of an image's modules: with modules.builtin, and in it or in kernel/ the modules."""
    if named is None:
        places = [image.parent.parent / "lib" / "modules" / release, Path("/lib/modules") / release]
    else:
        places = [named, named / release, named / "lib" / "modules" / release]
    for place in places:
        if any((place / table).is_file() for table in modules.TABLES):
            return place
    looked = ", ".join(str(place) for place in places)
    raise HarnessError(
        f"use {image.name} in a guest",
        f"the modules of {release} are missing: looked at {looked}",
        "name their directory with `,modules=DIR` (it has modules.builtin; `make modules_install` makes it)",
    )


def _listing(tree: Path) -> list[str]:
    """What a directory of modules has, without reading it: another content is another kernel."""
    found = sorted(path for path in tree.rglob("*") if path.is_file())
    return [f"{path.relative_to(tree)} {path.stat().st_size} {path.stat().st_mtime_ns}\n" for path in found]


def magic(path: Path) -> bytes:
    """The first bytes of a file. Raises HarnessError when it cannot be read, or is no regular file."""
    try:
        if not path.is_file():
            number = "a directory" if path.is_dir() else "no regular file" if path.exists() else "not there"
            raise HarnessError(f"take a kernel from {path}", f"it is {number}")
        with path.open("rb") as file:
            return file.read(0x1000)
    except OSError as error:
        raise HarnessError(f"read {path}", errno_text(error.errno or 0), errno=error.errno or 0) from error


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _joined(hashes: Sequence[str]) -> str:
    return hashes[0][:16] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]
