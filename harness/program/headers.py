"""A kernel headers tree that BCC can compile with, of whichever kernel there is one.

BCC looks under /lib/modules/$(uname -r) unless BCC_KERNEL_SOURCE names one complete tree. The running kernel may have
none of its own. Our programs use UAPI types only, so that the headers of another kernel serve as well.

Distributions that split a tree in two (Debian: `-common` and one for each flavour; SUSE: source and `-obj`) get it
merged in the cache: a directory of symbolic links, made in a few milliseconds. Nothing is written under /lib/modules
or /usr/src.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError, errno_text
from harness.kernel import facts, packages

CACHE = Path("/var/cache/msp-harness")

# `uname -m` and the kernel's name for it under arch/.
ARCHITECTURES = {
    "x86_64": "x86",
    "i686": "x86",
    "aarch64": "arm64",
    "armv7l": "arm",
    "ppc64le": "powerpc",
    "riscv64": "riscv",
    "s390x": "s390",
}
# Of the halves of a tree, the one that the package of a flavour brings, and the one that all flavours share.
OF_FLAVOUR = ("include/generated/autoconf.h",)
SHARED = ("include/linux/types.h", "include/linux/kconfig.h", "include/uapi/linux/bpf.h")
KHEADERS = "kheaders-"
# Of kheaders, what no BPF program includes and what is half of the files.
UNWANTED = tuple(
    f"include/{name}/" for name in ("config", "drm", "dt-bindings", "media", "rdma", "scsi", "soc", "sound", "target")
)
UNFINISHED = ".unfinished"


@dataclass(frozen=True)
class Headers:
    """A complete tree: what BCC_KERNEL_SOURCE is to be set to, and where it came from."""

    path: Path
    origin: str  # for the report: the package's directory, or kheaders
    release: str  # of the kernel whose headers they are, as `uname -r` prints it
    is_running_kernel: bool


@dataclass(frozen=True)
class Source:
    """Where a tree can be had: complete as it lies, in two halves, or as the kernel's own archive."""

    path: Path
    release: str
    common: Path | None = None  # the other half of a tree that is split
    archive: bool = False


def headers_tree(*, cache: Path | None = None, root: Path = Path("/"), release: str | None = None) -> Headers:
    """The best tree there is, made ready for BCC: in milliseconds, or after each boot in seconds where it is kheaders.

    The order: the running kernel's build directory, /sys/kernel/kheaders.tar.xz, the newest tree under /usr/src. root
    and release stand in for `/` and `uname -r` in tests; cache for MSP_HARNESS_CACHE.

    Raises HarnessError, with the names of the packages, when there is no tree, and when the cache cannot be written.
    """
    release = platform.release() if release is None else release
    found = sources(root=root, release=release)
    if not found:
        raise HarnessError(
            "find kernel headers for BCC",
            f"there are none for {release} under /lib/modules, no kheaders in /sys/kernel, and no other kernel's "
            "under /usr/src",
            packages.install_hint((packages.HEADERS,), packages.os_release(root)),
        )
    cache = Path(os.environ.get("MSP_HARNESS_CACHE") or CACHE) if cache is None else cache
    source = found[0]
    try:
        path = _ready(source, cache / "headers")
    except OSError as error:
        raise HarnessError(
            f"prepare the kernel headers of {source.path} in {cache}",
            f"{errno_text(error.errno or 0)}: {error.filename or error}",
            "make room there, run as root, or name another directory with MSP_HARNESS_CACHE",
            errno=error.errno or 0,
        ) from error
    except ValueError as error:
        raise HarnessError(
            f"use {source.path}",
            str(error),
            packages.install_hint((packages.HEADERS,), packages.os_release(root)),
        ) from error
    return Headers(path, str(source.path), source.release, source.release == release)


def sources(*, root: Path = Path("/"), release: str | None = None) -> tuple[Source, ...]:
    """Every tree on this machine that could be used, the best first; only looks, a millisecond or two."""
    release = platform.release() if release is None else release
    found: list[Source] = []
    own = _source(root / "lib/modules" / release / "build", release)
    if own is not None:
        found.append(own)
    archive = root / "sys/kernel/kheaders.tar.xz"
    if archive.is_file():
        found.append(Source(archive, release, archive=True))
    candidates = [*(root / "usr/src").glob("*"), *(root / "usr/src/kernels").glob("*")]
    candidates += (root / "usr/src").glob("linux-*-obj/*/*")  # SUSE
    packaged = [source for tree in candidates if tree.is_dir() and (source := _source(tree)) is not None]
    # The running kernel's before any other's, then the newest.
    found += sorted(packaged, key=lambda source: (source.release == release, _version(source.release)), reverse=True)
    return tuple(found)


def architecture(machine: str | None = None) -> str:
    """`x86` for x86_64; `uname -m` itself where the kernel has the same name for it."""
    machine = platform.machine() if machine is None else machine
    return ARCHITECTURES.get(machine, machine)


def is_complete(tree: Path) -> bool:
    """Whether BCC can compile with this tree alone: both halves are there, by a handful of files that tell."""
    return _has(tree, (*OF_FLAVOUR, *SHARED)) and (tree / "arch" / architecture() / "include/asm").is_dir()


def _has(tree: Path, names: tuple[str, ...]) -> bool:
    return all((tree / name).is_file() for name in names)


def _source(tree: Path, release: str | None = None) -> Source | None:
    if not _has(tree, OF_FLAVOUR):
        return None
    release = _release(tree) if release is None else release
    tree = tree.resolve()
    if is_complete(tree):
        return Source(tree, release)
    common = next((half for half in _halves(tree) if _has(half, SHARED)), None)
    return None if common is None else Source(tree, release, common)


def _release(tree: Path) -> str:
    """As the tree itself says; its directory's name is not the same everywhere."""
    for name in ("include/generated/utsrelease.h", "include/config/kernel.release"):
        try:
            text = (tree / name).read_text("ascii", "replace")
        except OSError:
            continue
        match = re.search(r'UTS_RELEASE\s+"([^"]+)"|^([\w.+~-]+)$', text, re.MULTILINE)
        if match:
            return match[1] or match[2]
    return tree.name.removeprefix("linux-headers-")


def _halves(tree: Path) -> Iterator[Path]:
    """Where the shared half of this flavour's tree may be: its Makefile includes that half's, and names tell."""
    try:
        makefile = (tree / "Makefile").read_text("utf-8", "replace")
    except OSError:
        makefile = ""
    for match in re.finditer(r"^include\s+(\S+)/Makefile\s*$", makefile, re.MULTILINE):
        yield (tree / match[1]).resolve()
    for common in sorted(tree.parent.glob("*-common*")):
        if tree.name.startswith(common.name.partition("-common")[0] + "-"):
            yield common.resolve()


def _version(release: str) -> tuple[tuple[int, str], ...]:
    """Numbers as numbers, so that 6.1.0-56 is newer than 6.1.0-9."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|[^\d]+", release))


def _ready(source: Source, cache: Path) -> Path:
    """The complete tree of a source: as it lies where it is complete, otherwise from the cache, made if need be."""
    if source.archive:
        # Unpacked again after each boot: the kernel may be another build of the same name, and a power cut may have
        # left empty files behind.
        return _cached(cache, KHEADERS + facts.boot_id(), lambda tree: _unpack(source.path, tree))
    if source.common is None:
        return source.path
    links = merge_plan(source.path, source.common)
    # The name changes with what the tree consists of, so that a tree once made never has to change.
    digest = hashlib.sha256(repr(sorted(links.items())).encode()).hexdigest()[:16]
    return _cached(cache, f"{source.path.name}-{digest}", lambda tree: _link(links, tree))


def merge_plan(flavour: Path, common: Path) -> dict[str, Path]:
    """Which links make one tree of two: relative name to what it stands for.

    A directory that only one half has is one link. Where both have a directory its entries are merged in the same
    way, and where both have a file the flavour's counts.
    """
    links: dict[str, Path] = {}
    for top in ("include", f"arch/{architecture()}/include"):
        _merge(top, [flavour, common], links)
    return links


def _merge(name: str, halves: list[Path], links: dict[str, Path]) -> None:
    having = [half / name for half in halves if (half / name).exists()]
    if len(having) == 2 and all(place.is_dir() for place in having):
        for entry in sorted({entry.name for place in having for entry in place.iterdir()}):
            _merge(f"{name}/{entry}", halves, links)
    elif having:
        links[name] = having[0]


def _link(links: dict[str, Path], tree: Path) -> None:
    for name, target in links.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).symlink_to(target)


def _unpack(archive: Path, tree: Path) -> None:
    """Files of an archive, below the tree and nowhere else. Raises ValueError for what is not an archive of headers.

    One by one, since Debian 12's tarfile has no filters yet.
    """
    import lzma  # with tarfile it takes as long to import as everything else here, and is seldom wanted
    import tarfile

    try:
        with tarfile.open(archive, "r:xz") as files:
            for member in files:
                name = Path(member.name)
                if name.is_absolute() or ".." in name.parts:
                    raise ValueError(f"it cannot be unpacked: {member.name} lies outside of it")
                wanted = member.isfile() and not name.as_posix().startswith(UNWANTED)
                content = files.extractfile(member) if wanted else None
                if content is not None:
                    (tree / name).parent.mkdir(parents=True, exist_ok=True)
                    (tree / name).write_bytes(content.read())
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise ValueError(f"it cannot be unpacked: {error}") from error


def _cached(cache: Path, name: str, make: Callable[[Path], None]) -> Path:
    """A tree of the cache. It is made beside its place and renamed, so that whatever has the name is whole."""
    tree = cache / name
    if is_complete(tree):
        return tree
    with _lock(cache):
        if is_complete(tree):  # another run was quicker
            return tree
        # Nobody is at work while we hold the lock: what is not complete was left by the dead, or its package is gone.
        for other in cache.iterdir():
            if other.name.startswith(KHEADERS) or not is_complete(other):
                shutil.rmtree(other)
        work = cache / UNFINISHED
        work.mkdir()
        make(work)
        if not is_complete(work):
            shutil.rmtree(work)
            raise ValueError(f"it has no complete kernel headers for {architecture()}")
        work.rename(tree)
    return tree


@contextmanager
def _lock(cache: Path) -> Iterator[None]:
    """One builder at a time; the kernel releases the lock of one that dies."""
    cache.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(cache, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
