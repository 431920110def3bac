"""A directory as a tar stream: its tree, with the contents that are looked at. Nothing is followed, nothing executed.

The other files are sparse ones of the right size (GNU tar's pax format 1.0), so that a system of gigabytes is sent in
a moment.
"""

from __future__ import annotations

import io
import os
import re
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from harness.errors import errno_text
from harness.image import places
from harness.image.listing import text
from harness.image.tree import Entry, Kind

_NAMES = 400_000
_DEPTH = 64
_LARGEST = 512 << 20  # bytes of a database of packages, or of an initramfs
_SENT = re.compile(
    r"/var/lib/(dpkg|rpm|pacman)/.*|/usr/(lib/sysimage/rpm|share/rpm)/.*|/lib/apk/db/.*"  # what packages there are
    r"|/(usr/)?bin/(bash|ls|echo|rm|sh|dash|busybox)"  # by which libguestfs knows the architecture
    r"|/boot/init(rd|ramfs)[^/]*|/(boot|boot/efi|efi)/[^/]*/[^/]*/initrd",
    re.DOTALL,
)
_TYPES = ((stat.S_ISFIFO, tarfile.FIFOTYPE), (stat.S_ISCHR, tarfile.CHRTYPE), (stat.S_ISBLK, tarfile.BLKTYPE))

Unseen = dict[str, str]


def write(directory: Path, target: BinaryIO, unseen: Unseen, *, everything: bool = False) -> None:
    """Write the archive of a directory. What cannot be read is told in unseen; everything: all contents are sent."""
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for path, status in _walk(directory, unseen):
            name = "/" + os.path.relpath(path, directory)
            try:
                _add(tar, path, name, status, everything)
            except OSError as error:
                unseen[_shown(name)] = errno_text(error.errno or 0)


def _shown(name: str) -> str:
    return text(os.fsencode(name))


def _walk(top: Path, unseen: Unseen) -> Iterator[tuple[str, os.stat_result]]:
    """Every name below a directory with its status, parents first; other file systems are left out."""
    device, count = top.stat().st_dev, 0
    waiting = [(os.fspath(top), 0)]
    while waiting:
        directory, depth = waiting.pop()
        try:
            with os.scandir(directory) as found:
                entries = [(each.path, each.stat(follow_symlinks=False)) for each in found]
        except OSError as error:
            unseen[_shown("/" + os.path.relpath(directory, top))] = errno_text(error.errno or 0)
            continue
        for path, status in sorted(entries, key=lambda entry: entry[0]):
            name = _shown("/" + os.path.relpath(path, top))
            if status.st_dev != device:
                unseen[name] = "another file system is mounted there"
                continue
            count += 1
            if count > _NAMES:
                unseen["names"] = f"the directory has more than {_NAMES} names; the rest of them was not read"
                return
            yield path, status
            if stat.S_ISDIR(status.st_mode):
                if depth < _DEPTH:
                    waiting.append((path, depth + 1))
                else:
                    unseen["depth"] = f"below {name[:200]}: more than {_DEPTH} directories lie one in the other"


def _add(tar: tarfile.TarFile, path: str, name: str, status: os.stat_result, everything: bool) -> None:
    member = tarfile.TarInfo(name.removeprefix("/"))
    member.mode, member.uid, member.gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
    member.mtime = max(0, int(status.st_mtime))
    if stat.S_ISDIR(status.st_mode):
        member.type = tarfile.DIRTYPE
        tar.addfile(member)
    elif stat.S_ISLNK(status.st_mode):
        member.type, member.linkname = tarfile.SYMTYPE, os.readlink(path)  # noqa: PTH115 # Path would tidy it
        tar.addfile(member)
    elif stat.S_ISREG(status.st_mode):
        _add_file(tar, path, member, status, everything)
    else:
        kind = next((kind for is_type, kind in _TYPES if is_type(status.st_mode)), b"")
        if kind:
            member.type = kind
            tar.addfile(member)


def _add_file(tar: tarfile.TarFile, path: str, member: tarfile.TarInfo, status: os.stat_result, all_of: bool) -> None:
    name = f"/{member.name}"
    row, _ = places.wanted(name, Entry(Kind.FILE, size=status.st_size))
    if status.st_size and not all_of and row < 0 and not (_SENT.fullmatch(name) and status.st_size <= _LARGEST):
        _add_empty(tar, member, status.st_size)
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        attributes: dict[str, str] = {}
        for attribute in os.listxattr(descriptor):
            value = os.getxattr(descriptor, attribute).decode("utf-8", "surrogateescape")
            attributes[f"SCHILY.xattr.{attribute}"] = value
        member.pax_headers = attributes
        member.size = os.fstat(descriptor).st_size
        content = _Exactly(file, member.size)
        tar.addfile(member, content)
    if content.failed is not None:
        raise content.failed


def _add_empty(tar: tarfile.TarFile, member: tarfile.TarInfo, size: int) -> None:
    """A sparse file that is all hole."""
    content = f"1\n{size}\n0\n".encode().ljust(tarfile.BLOCKSIZE, b"\0")
    about = {"major": "1", "minor": "0", "name": member.name, "realsize": str(size)}
    member.pax_headers = {f"GNU.sparse.{key}": value for key, value in about.items()}
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


class _Exactly:
    """So many bytes of a file, whatever becomes of it meanwhile: a tar's header has said their number already."""

    def __init__(self, file: BinaryIO, size: int):
        self._file, self._left = file, size
        self.failed: OSError | None = None

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        try:
            data = self._file.read(wanted) if self.failed is None else b""
        except OSError as error:  # the rest is zeros, and told as not read
            self.failed, data = error, b""
        self._left -= wanted
        return data.ljust(wanted, b"\0")
