"""What an image is, by its content and never by its name. Nothing here opens what an image refers to without leave."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from harness.diagnose.tar_members import BLOCK, is_tar
from harness.errors import HarnessError, errno_text
from harness.image import qcow2, vhd, vhdx
from harness.vm import archives

KINDS = "qcow2, VHD, VHDX, a raw disk, a root file system as tar or directory, an OCI layout, what docker save wrote"

_CHAIN = 8  # backing files one behind the other
_BEGIN = 128 << 10  # bytes in which every file system's magic lies
_MIB = 1 << 20
_FLATTEN = "make one file of it with `qemu-img convert -O qcow2`, or allow backing files with --allow-backing"
_PACKED = (b"\x1f\x8b", b"\xfd7zXZ\0", b"BZh", b"\x28\xb5\x2f\xfd")
_ROOTS = ("etc/os-release", "usr/lib/os-release", "usr")  # one of them makes a directory a root file system
_MAGICS = (  # offset, bytes, what it is
    (0x438, b"\x53\xef", "ext"),
    (0, b"XFSB", "xfs"),
    (0x10040, b"_BHRfS_M", "btrfs"),
    (0, b"LUKS\xba\xbe", "LUKS"),
    (512, b"EFI PART", "GPT"),
    *((512 * sector, b"LABELONE", "LVM") for sector in range(4)),
)
_TYPES = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


@dataclass(frozen=True)
class Source:
    """A disk image, or a root file system in another form.

    format is that of Disk; qemu is QEMU's name of it, nothing for what is no disk. Sizes in bytes. chain: the backing
    files, from the image's own on. encryption: what the container itself is encrypted with.
    """

    path: Path
    format: str
    qemu: str = ""
    size: int = 0
    virtual_size: int = 0
    chain: tuple[str, ...] = ()
    encryption: str = ""
    troubles: tuple[str, ...] = ()


def identify(name: str, *, allow_backing: bool = False) -> Source:
    """What there is under a path. Raises HarnessError where it is nothing that is known, or names other files."""
    path = Path(name)
    attempted = f"read the image {name}"
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise HarnessError(attempted, _why(error)) from error
    if stat.S_ISDIR(mode):
        return _directory(path, attempted)
    special = next((what for is_type, what in _TYPES if is_type(mode)), "")
    if special:
        raise HarnessError(attempted, f"it is {special}, and no file", "copy its content to a file")
    with opened(path, attempted) as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            raise HarnessError(attempted, "it is empty")
        begin = file.read(_BEGIN)
        try:
            found = _disk(path, file, begin, size)
        except ValueError as error:
            raise HarnessError(attempted, str(error)) from error
    if found is None:
        return _archive(path, begin, size, attempted)
    if found.format != "qcow2":
        return found
    return replace(found, chain=tuple(_chain(path, qcow2.header(begin[: qcow2.HEADER]), allow_backing, attempted)))


@contextmanager
def opened(path: Path, attempted: str) -> Iterator[BinaryIO]:
    """A regular file, read only; what takes its place meanwhile is not waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise HarnessError(attempted, errno_text(error.errno or 0), errno=error.errno or 0) from error
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise HarnessError(attempted, "it is no regular file")
        try:
            yield file
        except OSError as error:
            raise HarnessError(attempted, errno_text(error.errno or 0), errno=error.errno or 0) from error


def _why(error: OSError | ValueError) -> str:
    return errno_text(error.errno or 0) if isinstance(error, OSError) else str(error)


def _directory(path: Path, attempted: str) -> Source:
    try:
        if (path / "oci-layout").is_file() and (path / "index.json").is_file():
            return Source(path, "oci")
        if any(os.path.lexists(path / name) for name in _ROOTS):
            return Source(path, "directory")
    except OSError as error:
        raise HarnessError(attempted, _why(error)) from error
    happened = "the directory has neither etc/os-release nor usr, and no oci-layout"
    raise HarnessError(attempted, happened, f"give one of: {KINDS}")


def _disk(path: Path, file: BinaryIO, begin: bytes, size: int) -> Source | None:
    """A disk image; None for anything else. Raises ValueError where its header is damaged."""

    def read(offset: int, length: int) -> bytes:
        file.seek(offset)
        return file.read(length)

    if begin.startswith(qcow2.MAGIC):
        header = qcow2.header(begin[: qcow2.HEADER])
        return Source(path, "qcow2", "qcow2", size, header.size, encryption=header.encryption)
    if begin.startswith(vhdx.IDENTIFIER):
        found = vhdx.parse(read)
        if found.has_parent:
            raise ValueError("it is a differencing VHDX: its content is in another file too")
        return Source(path, "vhdx", "vhdx", size, found.virtual_size)
    tail = read(max(0, size - vhd.FOOTER), vhd.FOOTER)
    if begin.startswith(vhd.COOKIE):
        return _dynamic(path, begin[: vhd.FOOTER], tail, size)
    at = tail.find(vhd.COOKIE)
    if at in (0, 1) and size > vhd.FOOTER:
        return _fixed(path, tail[at:], size, vhd.FOOTER - at)
    if not _is_raw(begin, size):
        return None
    troubles = []
    if at > 1:
        troubles.append(f"the VHD's footer at its end is cut off: {len(tail) - at} of {vhd.FOOTER} bytes are there")
    elif size % _MIB == vhd.FOOTER:
        troubles.append(f"its last {vhd.FOOTER} bytes, past whole MiB, lie where a VHD's footer is, and are none")
    return Source(path, "raw", "raw", size, size, troubles=tuple(troubles))


def _dynamic(path: Path, copy: bytes, tail: bytes, size: int) -> Source:
    footer = vhd.footer(copy)
    if footer.type == vhd.DIFFERENCING:
        raise ValueError("it is a differencing VHD: its content is in another file too")
    if footer.type != vhd.DYNAMIC:
        raise ValueError(f"its VHD footer is at its begin, as a dynamic disk has it, but says {footer.kind}")
    troubles = list(_footer_troubles(footer))
    if tail[:8] != vhd.COOKIE:
        troubles.append("the VHD's footer at its end is missing or cut off; the copy at its begin was taken")
    return Source(path, "vhd-dynamic", "vpc", size, footer.current_size, troubles=tuple(troubles))


def _fixed(path: Path, block: bytes, size: int, length: int) -> Source:
    footer = vhd.footer(block)
    if footer.type != vhd.FIXED:
        raise ValueError(f"the VHD's footer says {footer.kind}, but there is no header of such a disk at its begin")
    troubles = list(_footer_troubles(footer))
    content = size - length
    if footer.current_size != content:
        troubles.append(f"the VHD's footer says {footer.current_size} bytes, but {content} lie before it")
    return Source(path, "vhd-fixed", "raw", size, content, troubles=tuple(troubles))


def _footer_troubles(footer: vhd.Footer) -> Iterator[str]:
    if not footer.checksum_right:
        yield "the VHD's footer has a wrong checksum"


def _is_raw(begin: bytes, size: int) -> bool:
    if size >= _MIB and begin[510:512] == b"\x55\xaa":
        return True
    return any(begin[at : at + len(magic)] == magic for at, magic, _ in _MAGICS)


def _archive(path: Path, begin: bytes, size: int, attempted: str) -> Source:
    head = begin[:BLOCK]
    if begin.startswith(_PACKED):
        with archives.unpacked(path) as file:
            head = file.read(BLOCK)
    if is_tar(head):
        return Source(path, "tar", size=size)
    packed = "what is packed in it" if begin.startswith(_PACKED) else "it"
    raise HarnessError(attempted, f"{packed} is of no form that is known", f"give one of: {KINDS}")


def _chain(path: Path, header: qcow2.Header, allowed: bool, attempted: str) -> Iterator[str]:
    """The files that QEMU would open for a qcow2 image. Raises HarnessError for those that it is not to."""
    form = "qcow2"
    for _ in range(_CHAIN):
        if form != "qcow2":
            return
        if header.external_data:
            raise HarnessError(attempted, "its data are in another file", _FLATTEN.partition(",")[0])
        if header.encryption and header.backing:
            raise HarnessError(attempted, "it is encrypted and an overlay")
        if not header.backing:
            return
        if not allowed:
            shown = ascii(header.backing)
            raise HarnessError(attempted, f"it is an overlay: its content is in another file, {shown}", _FLATTEN)
        path, form, header = _backing(path, header, attempted)
        yield str(path)
    raise HarnessError(attempted, f"more than {_CHAIN} backing files lie one behind the other", _FLATTEN)


def _backing(path: Path, header: qcow2.Header, attempted: str) -> tuple[Path, str, qcow2.Header]:
    """The file behind an overlay, in which form QEMU takes it, and its header where that is qcow2's."""
    name = header.backing
    before_slash = name.partition("/")[0]
    if ":" in before_slash or "\0" in name:  # nbd:…, json:…, https://…: QEMU takes it for a protocol
        raise HarnessError(attempted, f"its backing file {name!a} is no plain file name")
    if header.backing_format not in ("", "qcow2", "raw"):
        raise HarnessError(attempted, f"its backing file is to be opened as {header.backing_format!a}")
    behind = path.parent / name
    with opened(behind, f"read {name!a}, the backing file of {path.name}") as file:
        begin = file.read(qcow2.HEADER)
    is_qcow2 = begin.startswith(qcow2.MAGIC)
    if not header.backing_format and not is_qcow2 and (begin.startswith((vhdx.IDENTIFIER, vhd.COOKIE, b"KDMV"))):
        raise HarnessError(attempted, f"its backing file {name!a} is neither qcow2 nor raw")
    if header.backing_format == "raw" or not is_qcow2:
        return behind, "raw", header
    try:
        return behind, "qcow2", qcow2.header(begin)
    except ValueError as error:
        raise HarnessError(attempted, f"its backing file {name!a}: {error}") from error
