"""Members of a zip archive. Its directory is measured before zipfile reads it; nothing is extracted."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from harness.diagnose.budget import Budget
from harness.diagnose.streams import CHUNK, Damaged, Stream

MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_END, _END_SIZE = b"PK\x05\x06", 22
_READ_MOST = 1 << 26
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2}
_ENCRYPTED = 1  # of flag_bits
_LINK = 0o120000  # S_IFLNK in the upper half of external_attr, where the archive was made on Unix
_SPECIAL = (0o020000, 0o060000, 0o010000, 0o140000)


class Member(NamedTuple):
    name: str
    stream: Stream | None
    problem: str  # why there is no stream; "" for a directory as well


class _Bounded(io.RawIOBase):
    """A file whose reads are never larger than _READ_MOST, whatever a header claims."""

    def __init__(self, file: BinaryIO):
        self._file = file

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0 or size > _READ_MOST:
            size = _READ_MOST
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


def members(file: BinaryIO, budget: Budget) -> Iterator[Member]:
    """The members in the directory's order. Raises Damaged where there is no directory, or it is too large."""
    _measure(file, budget)
    try:
        archive = zipfile.ZipFile(_Bounded(file))
        listed = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, EOFError, UnicodeError, IndexError) as error:
        raise Damaged(f"no whole zip: {error}") from error
    for info in listed:
        if info.filename.endswith("/"):  # ZipInfo.is_dir() fails on an empty name
            continue
        name = info.filename
        mode = (info.external_attr >> 16) & 0o170000
        if info.flag_bits & _ENCRYPTED:
            yield Member(name, None, "encrypted: unpack it with its password first")
        elif mode == _LINK:
            yield Member(name, None, "a link")
        elif mode in _SPECIAL:
            yield Member(name, None, "a device or pipe")
        elif info.compress_type not in _METHODS:
            yield Member(name, None, f"packed by method {info.compress_type}, which is not read here")
        else:
            yield Member(name, Stream(_chunks(archive, info, budget)), "")


def _chunks(archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: Budget) -> Iterator[bytes]:
    try:
        with archive.open(info) as member:
            while chunk := member.read(CHUNK):
                budget.spend("inflated", len(chunk))
                yield chunk
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise Damaged(f"it cannot be unpacked further: {error}") from error


def _measure(file: BinaryIO, budget: Budget) -> None:
    """Refuse a directory that would not fit: zipfile reads it whole."""
    try:
        size = file.seek(0, 2)
        begin = max(0, size - (1 << 16) - _END_SIZE)
        file.seek(begin)
        tail = file.read(size - begin)
        file.seek(0)
    except OSError as error:
        raise Damaged(f"it cannot be read: {error}") from error
    at = tail.rfind(_END)
    if at < 0 or at + _END_SIZE > len(tail):
        raise Damaged("the zip has no directory: its end is missing")
    claimed = int.from_bytes(tail[at + 12 : at + 16], "little")
    if claimed == 0xFFFFFFFF:  # zip64: the size stands in a record before
        record = tail.rfind(b"PK\x06\x06", 0, at)
        claimed = int.from_bytes(tail[record + 40 : record + 48], "little") if record >= 0 else claimed
    if claimed > budget.limits.directory:
        raise Damaged(f"the zip's directory claims {claimed:,} bytes, more than is read")
