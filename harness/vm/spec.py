"""What a user may name as a kernel, and the kernel that it is.

    SUITE[/VERSION][:FLAVOUR]   bookworm, bookworm/6.12, bookworm/6.1.0-44, trixie:generic, sid
    FILE[,modules=FILE]         a .deb or .rpm with the kernel; its other half beside it, or named
    FILE[,modules=DIR]          a bzImage (vmlinuz) or vmlinux; /lib/modules/RELEASE, or the directory that is named
    FILE[,kernel=RELEASE]       a disk image: the kernel that it boots, or the one that is named
    lab:NAME                    a small kernel of our own, built here

VERSION is a release or a package's version, or a part to their left that ends where a number does: the newest that
begins so. Without it: what the suite's own kernel package depends on. FLAVOUR is cloud (the default) or generic. A
text with a / at its begin (or ./, ../, ~/), or the name of a file that is there, is a file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import HarnessError
from harness.vm import kernels, suites  # the most usual; the others are imported where one is named
from harness.vm.kernels import Kernel

_FORMS = "give a suite (bookworm, bookworm/6.12), a file (./vmlinuz, ./linux-image.deb, ./disk.qcow2) or lab:NAME"
_OPTIONS = ("modules", "kernel")

Tell = Callable[[str], None]


def quiet(line: str) -> None:
    """For who wants no lines about what takes long."""


@dataclass(frozen=True)
class Resolved:
    """A kernel, and when it was found (seconds since the epoch) where it came from the cache without asking again."""

    kernel: Kernel
    asked: float | None = None


@dataclass(frozen=True)
class _File:
    path: Path
    options: dict[str, str] = field(default_factory=dict)


def resolve(text: str, *, refresh: bool = False, allow_unsigned: bool = False, tell: Tell = quiet) -> Kernel:
    """The kernel that text names, fetched or made when it is not in the cache.

    A suite's newest is the one that is there, however old: refresh asks again. tell is given a line for what takes
    long. Raises HarnessError.
    """
    return find(text, refresh=refresh, allow_unsigned=allow_unsigned, tell=tell).kernel


def find(text: str, *, refresh: bool = False, allow_unsigned: bool = False, tell: Tell = quiet) -> Resolved:
    """resolve(), and when what the cache had was asked for."""
    if text.startswith("lab:"):
        from harness.vm import lab_kernels

        return Resolved(lab_kernels.get(text, tell, refresh=refresh))
    file = _file(text)
    if file is not None:
        return _of_file(file, refresh=refresh, allow_unsigned=allow_unsigned, tell=tell)
    suite = suites.Suite.parse(text)
    if suite is None:
        raise HarnessError(
            f"find the kernel {text!r}", "it is no suite, no file that is there, and no lab kernel", _FORMS
        )
    known = None if refresh else kernels.remembered(str(suite))
    if known:
        return Resolved(*known)
    tell(f"asking apt for {suite}")
    return Resolved(suites.get(suite, refresh=refresh, tell=tell))


def _file(text: str) -> _File | None:
    """The file that text names, with its options; None where it is to be read as a suite."""
    name, *words = text.split(",")
    if not (name.startswith(("/", "./", "../", "~/")) or Path(name).is_file()):
        return None
    options = {}
    for word in words:
        key, equals, value = word.partition("=")
        if key not in _OPTIONS or not equals or not value:
            raise HarnessError(
                f"find the kernel {text!r}", f"{word!r} is no option of a file", "there are modules= and kernel="
            )
        options[key] = value
    return _File(Path(name).expanduser(), options)


def _of_file(file: _File, *, refresh: bool, allow_unsigned: bool, tell: Tell) -> Resolved:
    from harness.vm import archives, bzimage, disk_kernel, local_kernel, vmlinux

    begin = local_kernel.magic(file.path)
    path = file.path.resolve()
    others = [Path(file.options["modules"]).expanduser().resolve()] if "modules" in file.options else []
    spec = ",".join([str(path), *(f"{key}={value}" for key, value in sorted(file.options.items()))])
    stamp = " ".join(_stamp(each) for each in (path, *others))
    known = None if refresh else kernels.remembered(spec, stamp)
    if known is not None:
        return Resolved(*known)
    if begin.startswith((archives.DEB_MAGIC, archives.RPM_MAGIC)):
        kernel = local_kernel.of_packages([path, *others], allow_unsigned=allow_unsigned)
    elif begin.startswith(vmlinux.MAGIC) or bzimage.is_one(begin) or not disk_kernel.form(path):
        kernel = local_kernel.of_image(path, others[0] if others else None)
    else:
        tell(f"starting libguestfs to look into {path.name}")
        kernel = disk_kernel.get(path, file.options.get("kernel", ""))
    kernels.remember(spec, kernel, stamp)
    return Resolved(kernel)


def _stamp(path: Path) -> str:
    """What changes when a file does. Raises HarnessError where there is none."""
    if not path.exists():
        raise HarnessError(f"take a kernel's modules from {path}", "it is not there")
    status = path.stat()
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"
