"""From the files of packages to an entry of the cache: which image, which modules; whatever else there is stays out."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from harness.errors import HarnessError
from harness.vm import kernels, modules
from harness.vm.archives import Damaged, File

_RELEASE = re.compile(r"[0-9][A-Za-z0-9.+~_-]{0,200}")
_FILES = 50_000  # of a kernel; a distribution's has 4,000 to 7,000
_LARGEST = 256 << 20  # bytes of a file; a distribution's largest is its vmlinuz
_DEEP = 24  # directories
_IMAGE = re.compile(r"boot/vmlinuz-[^/]+|lib/modules/[^/]+/vmlinuz")


def collect(files: Iterable[File], place: Path, package: str) -> None:
    """Write the image and the modules among the files of a package below place, in one layout: boot/, lib/modules/.

    A name that leads out of the package is refused; links, scripts and all else are passed over. Raises HarnessError.
    """
    try:
        for number, file in enumerate(files):
            if number >= _FILES:
                raise HarnessError(f"read {package}", f"it has more than {_FILES} files")
            name = _wanted(file.name, package)
            if name and file.size > _LARGEST:
                raise HarnessError(f"read {package}", f"{name} in it is larger than {_LARGEST >> 20} MiB")
            if name:
                target = place / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as out:
                    shutil.copyfileobj(file.content, out, 1 << 20)
    except Damaged as error:
        raise HarnessError(f"read {package}", error.happened) from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise HarnessError(f"read {package}", f"{error.filename} is a file and a directory in it") from error


def _wanted(stored: str, package: str) -> str:
    """Where a file of a package belongs, or nothing for a file that is no part of a kernel."""
    parts = [part for part in stored.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in stored:
        raise HarnessError(f"read {package}", f"it has a file that is named {stored!r}", "do not trust this package")
    if parts[:2] == ["usr", "lib"]:  # where /lib is a link to it
        del parts[0]
    name = "/".join(parts)
    if _IMAGE.fullmatch(name):
        return name
    if len(parts) < 4 or len(parts) > _DEEP or parts[:2] != ["lib", "modules"] or not _RELEASE.fullmatch(parts[2]):
        return ""
    return name if parts[3:] in ([table] for table in modules.TABLES) or ".ko" in parts[-1] else ""


def finish(unpacked: Path, place: Path, origin: str, verified: str) -> None:
    """Make an entry of the cache of what was collected, which then is gone.

    Raises HarnessError: there is no kernel, or no guest can start on it.
    """
    images, trees = list(_images(unpacked)), sorted(unpacked.glob("lib/modules/*"))
    trees = [
        tree for tree in trees if any(tree.glob("**/*.ko*")) or any((tree / name).exists() for name in modules.TABLES)
    ]
    if not images:
        raise HarnessError(f"find the kernel of {origin}", "there is no image in it (vmlinuz)", _REMEDY)
    if len({image.read_bytes() for image in images}) > 1 or len(trees) > 1:
        names = sorted({_of(path) for path in (*images, *trees)})
        raise HarnessError(f"find the kernel of {origin}", f"there are several: {', '.join(names)}", "name one kernel")
    release = kernels.image_release(images[0].read_bytes())
    if not trees:
        raise HarnessError(f"find the kernel of {origin}", f"there are no modules of {release} in it", _REMEDY)
    images[0].rename(place / "vmlinuz")
    modules.reduce(trees[0], place / "modules", trees[0].name)
    shutil.rmtree(unpacked)
    kernels.complete(place, trees[0].name, origin, verified)


_REMEDY = "some distributions split a kernel in two packages: give the other one with `,modules=FILE`"


def _images(unpacked: Path) -> Iterator[Path]:
    yield from sorted(unpacked.glob("boot/vmlinuz-*"))
    yield from sorted(unpacked.glob("lib/modules/*/vmlinuz"))


def _of(path: Path) -> str:
    return path.parent.name if path.name == "vmlinuz" else path.name.removeprefix("vmlinuz-")
