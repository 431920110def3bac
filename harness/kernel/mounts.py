"""mount(2) and umount2(2), for a process in a mount namespace of its own."""

from __future__ import annotations

import ctypes
from pathlib import Path

from harness.errors import HarnessError, errno_text
from harness.kernel import processes
from harness.kernel.processes import Namespace

MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000  # include/uapi/linux/mount.h
_MNT_DETACH = 2  # include/linux/fs.h

_libc = ctypes.CDLL(None, use_errno=True)


def take_own() -> None:
    """Take a mount namespace of one's own: nothing mounted from here on reaches the host."""
    processes.unshare(Namespace.MOUNT)
    mount("none", Path("/"), "", MS_REC | MS_PRIVATE)


def mount(source: str, target: Path, kind: str, flags: int = 0, data: str = "") -> None:
    """mount(2). Raises HarnessError with the errno."""
    if _libc.mount(source.encode(), str(target).encode(), kind.encode() or None, flags, data.encode() or None):
        number = ctypes.get_errno()
        raise HarnessError(f"mount {kind or source} at {target}", errno_text(number), errno=number)


def bind(source: Path, target: Path) -> None:
    """Have target show source, a directory for a directory or a file for a file."""
    mount(str(source), target, "", MS_BIND)


def overlay(target: Path, upper: Path, work: Path) -> None:
    """Have what is written below target go to upper; work is an empty folder on the same file system.

    Needs overlayfs: ENODEV without it, EINVAL where upper is itself on an overlay.
    """
    mount("overlay", target, "overlay", data=f"lowerdir={target},upperdir={upper},workdir={work}")


def unmount(target: Path) -> None:
    """umount2(2), also where it is busy."""
    if _libc.umount2(str(target).encode(), _MNT_DETACH):
        number = ctypes.get_errno()
        raise HarnessError(f"unmount {target}", errno_text(number), errno=number)
