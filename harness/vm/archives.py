"""The files in a package or an initramfs: the ar, tar and cpio of a .deb or .rpm, read and never unpacked as they say.

A package from a file is a stranger's. So nothing here makes a file, follows a link or runs a script: a reader gives
regular files, one after the other, with their names, and stops at LARGEST bytes. deb(5); tar: POSIX.1-2001 with GNU's
long names; rpm: the lead, two headers and a cpio archive in the form `newc` (rpm's own docs/manual/format).
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from harness.errors import HarnessError, errno_text

LARGEST = 4 << 30  # bytes that a package may unpack to; a distribution's kernel has 0.5 GB of modules
DEB_MAGIC, RPM_MAGIC = b"!<arch>\n", b"\xed\xab\xee\xdb"

_MEMORY = 512 << 20  # bytes that a decompressor may want for its window
_NAME = 4096  # bytes of a name (PATH_MAX)
_PIECE = 1 << 20
_BLOCK = 512  # of tar
_HEADER_ENTRIES, _HEADER_BYTES = 1 << 16, 64 << 20  # of rpm


@dataclass(frozen=True)
class File:
    """A regular file of an archive: its name as stored, its size, and its content, to be read before the next one."""

    name: str
    size: int
    content: BinaryIO


@dataclass(frozen=True)
class RpmTags:
    """What is asked of an rpm's header."""

    name: str
    version: str
    release: str
    architecture: str


class Damaged(HarnessError):
    """An archive is not what its form wants; also while the content of one of its files is read."""

    def __init__(self, happened: str, remedy: str = "fetch or copy it again, whole"):
        super().__init__("read a package", happened, remedy)


class UnknownForm(HarnessError):
    """It is packed by what is not known here (lz4, lzo), or is nothing of the kind."""

    def __init__(self, happened: str):
        super().__init__("read an initramfs", happened)


def deb_files(path: Path) -> Iterator[File]:
    """The regular files of a .deb. Raises HarnessError when it is damaged or too large."""
    with _reading(path) as file:
        if file.read(8) != DEB_MAGIC:
            raise Damaged("it is no .deb")
        while True:
            header = _exactly(file, 60)
            name, size = header[:16].decode("ascii", "replace").rstrip(" /"), _number(header[48:58], 10)
            if name.startswith("data.tar"):
                yield from _tar(_Limited(_unpacking(_Part(file, size), name.removeprefix("data.tar"))))
                return
            file.seek(size + size % 2, io.SEEK_CUR)


def tar_files(path: Path) -> Iterator[File]:
    """The regular files of a tar archive. Raises HarnessError when it is damaged or too large."""
    with _reading(path) as file:
        yield from _tar(_Limited(file))


def rpm_files(path: Path) -> Iterator[File]:
    """The regular files of an .rpm. Raises HarnessError when it is damaged or too large."""
    with _reading(path) as file:
        _rpm_header(file)
        magic = file.read(6)
        file.seek(-len(magic), io.SEEK_CUR)
        yield from _cpio(io.BufferedReader(_Limited(_unpacking(file, _suffix(magic))), _PIECE))


def initramfs_files(path: Path) -> Iterator[File]:
    """Those of an initramfs. Raises HarnessError when it is damaged, too large, or packed in an unknown way."""
    with _reading(path) as file:
        yield from _joined(file)


def rpm_tags(path: Path) -> RpmTags:
    """What an .rpm says it is. Raises HarnessError when it is damaged."""
    with _reading(path) as file:
        tags = _rpm_header(file)
        return RpmTags(*(tags.get(number, "") for number in _TAGS))


@contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    attempted = f"read {path.name}"
    try:
        with path.open("rb") as file:
            yield file
    except Damaged as error:
        raise HarnessError(attempted, error.happened, error.remedy) from error
    except OSError as error:
        raise HarnessError(attempted, errno_text(error.errno or 0), errno=error.errno or 0) from error


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise Damaged("it ends too early")
    return data


def _number(text: bytes, base: int) -> int:
    """A number in a header, which may be padded; no number at all is 0."""
    digits = text.strip(b" \0")
    if not digits:
        return 0
    try:
        number = int(digits, base)
    except ValueError:
        number = -1
    if number < 0:
        raise Damaged("a number in it is none")
    return number


class _Part(io.RawIOBase):
    """So many bytes of a file, from where it stands."""

    def __init__(self, file: BinaryIO, size: int):
        self._file, self._left = file, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._file.read(min(len(buffer), self._left))
        if not data and buffer and self._left:
            raise Damaged("it ends too early")
        self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)


_Unpacker = lzma.LZMADecompressor | bz2.BZ2Decompressor


class _Unpacking(io.RawIOBase):
    """What a decompressor of lzma or bz2 makes of a file, with no more memory than it was given.

    Packers that use several cores (pbzip2, pixz) write one stream after the other. What follows and is none is ignored.
    """

    def __init__(self, file: BinaryIO, make: Callable[[], _Unpacker], magic: bytes):
        self._file, self._make, self._magic = file, make, magic
        self._unpacker, self._packed = make(), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._unpacker.eof or self._next():
            packed = b""
            if self._unpacker.needs_input:
                packed, self._packed = self._packed or self._file.read(_PIECE), b""
                if not packed:
                    raise Damaged("it ends too early")
            data = self._unpacker.decompress(packed, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)
        return 0

    def _next(self) -> bool:
        """Whether there is another stream, behind xz's padding of zeros."""
        left = self._unpacker.unused_data.lstrip(b"\0")
        while len(left) < len(self._magic):
            more = self._file.read(_PIECE)
            if not more:
                return False
            left = (left + more).lstrip(b"\0")
        if not left.startswith(self._magic):
            return False
        self._unpacker, self._packed = self._make(), left
        return True


class _Limited(io.RawIOBase):
    """A stream that is refused when it goes on for too long."""

    def __init__(self, file: BinaryIO):
        self._file, self._left = file, LARGEST

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            data = self._file.read(len(buffer))
        except (EOFError, ValueError, MemoryError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
            raise Damaged(f"it is damaged: {error or type(error).__name__}") from error
        self._left -= len(data)
        if self._left < 0:
            raise Damaged(f"it unpacks to more than {LARGEST >> 30} GiB", "give a smaller one, or a disk image of it")
        buffer[: len(data)] = data
        return len(data)


def _unpacking(file: io.RawIOBase | BinaryIO, suffix: str, *, frames: bool = True) -> BinaryIO:
    """frames: whether zstd's may be several; what follows then has to be one."""
    buffered: BinaryIO = io.BufferedReader(file, _PIECE) if isinstance(file, io.RawIOBase) else file
    if suffix == "":
        return buffered
    if suffix == ".gz":
        return gzip.GzipFile(fileobj=buffered)  # type: ignore[return-value]
    if suffix == ".xz":
        return _Unpacking(buffered, lambda: lzma.LZMADecompressor(memlimit=_MEMORY), _XZ)  # type: ignore[return-value]
    if suffix == ".bz2":
        return _Unpacking(buffered, bz2.BZ2Decompressor, _BZIP2)  # type: ignore[return-value]
    if suffix == ".zst":
        import zstandard

        unpacker = zstandard.ZstdDecompressor(max_window_size=_MEMORY)
        return _Zstd(unpacker.stream_reader(buffered, read_across_frames=frames))  # type: ignore[return-value]
    raise Damaged(f"it is packed as {suffix}, which is not known here")


class _Zstd(io.RawIOBase):
    """zstandard's reader, with its errors as ours."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        import zstandard

        try:
            data = self._stream.read(len(buffer))
        except zstandard.ZstdError as error:
            raise Damaged(str(error)) from error
        buffer[: len(data)] = data
        return len(data)


_XZ, _BZIP2 = b"\xfd7zXZ\0", b"BZh"
_MAGICS = ((b"\x1f\x8b", ".gz"), (_XZ, ".xz"), (_BZIP2, ".bz2"), (b"\x28\xb5\x2f\xfd", ".zst"))


def _suffix(magic: bytes) -> str:
    return next((suffix for start, suffix in _MAGICS if magic.startswith(start)), "")


def _tar(raw: io.RawIOBase) -> Iterator[File]:
    stream = io.BufferedReader(raw, _PIECE)
    long_name = ""
    while True:
        header = stream.read(_BLOCK)
        if len(header) < _BLOCK or header == bytes(_BLOCK):
            if not header:
                raise Damaged("it ends too early")
            return
        if sum(header[:148]) + 8 * 32 + sum(header[156:]) != _number(header[148:156], 8):
            raise Damaged("a tar header has a wrong checksum")
        size, kind = _number(header[124:136], 8), header[156:157]
        part = _Part(stream, size)
        if kind in (b"L", b"x"):
            if size > _NAME * 4:
                raise Damaged("a name in it is too long")
            said = part.read(size) or b""
            long_name = _pax_path(said) if kind == b"x" else _text(said)
        else:
            if kind in (b"0", b"\0"):
                prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
                name = long_name or "/".join(filter(None, (prefix, _text(header[:100]))))
                yield File(name, size, part)  # type: ignore[arg-type]
            long_name = ""
        _skip(stream, part, -size % _BLOCK)


def _pax_path(records: bytes) -> str:
    """The path of a pax header: records `LENGTH KEY=VALUE\\n`."""
    for record in records.split(b"\n"):
        _, _, pair = record.partition(b" ")
        if pair.startswith(b"path="):
            return _text(pair[5:])
    return ""


_CPIO = (b"070701", b"070702")
_PADDING = 1 << 20  # bytes of zeros between archives; there are some hundred


def _joined(stream: BinaryIO) -> Iterator[File]:
    """The files of archives one behind the other, with zeros between them; the last may be packed.

    So the kernel takes them (Documentation/driver-api/early-userspace/buffer-format.rst): first the processor's
    microcode as it lies, then all else, packed.
    """
    while begin := _begin(stream):
        if begin in _CPIO:
            yield from _cpio(stream, begin)
            continue
        suffix = _suffix(begin)
        if not suffix:
            raise UnknownForm(f"what begins with {begin.hex()} in it is in no form that is read here")
        packed = io.BufferedReader(_Behind(begin, stream), _PIECE)
        yield from _cpio(io.BufferedReader(_Limited(_unpacking(packed, suffix, frames=False)), _PIECE))
        return


def _begin(stream: BinaryIO) -> bytes:
    """The six bytes behind the zeros, which come in fours; nothing where the file ends."""
    for _ in range(_PADDING // 4):
        begin = stream.read(4)
        if begin.strip(b"\0"):
            return begin + stream.read(2)
        if not begin:
            return b""
    raise Damaged(f"there are more than {_PADDING} zeros in it")


class _Behind(io.RawIOBase):
    """A stream before which some bytes are put back."""

    def __init__(self, begin: bytes, stream: BinaryIO):
        self._begin, self._stream = begin, stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data, self._begin = self._begin[: len(buffer)], self._begin[len(buffer) :]
        data = data or self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _cpio(stream: BinaryIO, begin: bytes = b"") -> Iterator[File]:
    """begin: what of the first header was read already."""
    while True:
        header, begin = begin + _exactly(stream, 110 - len(begin)), b""
        if header[:6] not in _CPIO:
            raise Damaged("its cpio archive is damaged")
        mode, size, length = (_number(header[at : at + 8], 16) for at in (14, 54, 94))
        if length > _NAME:
            raise Damaged("a name in it is too long")
        name = _text(_exactly(stream, length + (-(110 + length) % 4))[:length])
        if name == "TRAILER!!!":
            return
        part = _Part(stream, size)
        if mode & 0o170000 == 0o100000:
            yield File(name, size, part)  # type: ignore[arg-type]
        _skip(stream, part, -size % 4)


def _skip(stream: BinaryIO, part: _Part, padding: int) -> None:
    while part.read(_PIECE):
        pass
    stream.read(padding)


def _text(name: bytes) -> str:
    return name.split(b"\0")[0].decode("utf-8", "surrogateescape")


_TAGS = (1000, 1001, 1002, 1022)  # RPMTAG_NAME, VERSION, RELEASE, ARCH, each a string


def _rpm_header(file: BinaryIO) -> dict[int, str]:
    """Skip lead and signature, read the header's strings, and stand at the payload."""
    if _exactly(file, 96)[:4] != RPM_MAGIC:
        raise Damaged("it is no .rpm")
    _rpm_table(file)
    file.seek(-file.tell() % 8, io.SEEK_CUR)
    return _rpm_table(file)


def _rpm_table(file: BinaryIO) -> dict[int, str]:
    """A header structure: magic, entries (tag, type, offset, count), and the store; big endian."""
    magic, count, size = struct.unpack(">4s4xII", _exactly(file, 16))
    if magic != b"\x8e\xad\xe8\x01" or count > _HEADER_ENTRIES or size > _HEADER_BYTES:
        raise Damaged("a header of it is damaged")
    entries, store = _exactly(file, 16 * count), _exactly(file, size)
    strings = {}
    for tag, kind, offset, _ in struct.iter_unpack(">IIII", entries):
        if tag in _TAGS and kind == 6:  # RPM_STRING_TYPE
            strings[tag] = store[offset : offset + _NAME].split(b"\0")[0].decode("utf-8", "replace")
    return strings


@contextmanager
def unpacked(path: Path) -> Iterator[BinaryIO]:
    """A file's content, unpacked where its first bytes are a packer's. Raises HarnessError when it is damaged."""
    with _reading(path) as file:
        magic = file.read(6)
        file.seek(0)
        yield io.BufferedReader(_Limited(_unpacking(file, _suffix(magic))), _PIECE)
