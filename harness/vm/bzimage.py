"""bzImage, the form in which x86 distributions ship a kernel: its setup header, and the kernel that is packed in it.

Offsets and magics are those of Documentation/arch/x86/boot.rst, integers little endian; how the payload is packed is
told by its first bytes (scripts/extract-vmlinux knows the same). Files are a stranger's: every offset is checked, and
no more than LARGEST bytes come out.
"""

from __future__ import annotations

import bz2
import lzma
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from harness.command import run, text
from harness.errors import HarnessError
from harness.kernel import packages

LARGEST = 512 << 20  # bytes of an unpacked kernel; a distribution's has 40 to 100 MB

_SETUP_SECTS = 0x1F1
_MAGIC, _MAGIC_VALUE = 0x202, b"HdrS"
_PROTOCOL = 0x206
_KERNEL_VERSION = 0x20E  # a pointer, less 0x200
_PAYLOAD = 0x248  # payload_offset, payload_length: since protocol 2.08
_HEADER_END = 0x250
_SECTOR = 512
_VERSION_LENGTH = 256

_LZ4_BLOCK = 8 << 20  # bytes that a block of the legacy frame holds at most; lz4's own constant
_UNPACK_SECONDS = 120
_MEMORY = 512 << 20  # bytes that a decompressor may want for its window


@dataclass(frozen=True)
class Setup:
    """What the setup header of a bzImage says. payload is in bytes of the file: begin and end."""

    release: str  # as `uname -r` will print it
    payload: tuple[int, int]


def is_one(begin: bytes) -> bool:
    """Whether a file that begins so claims to be a bzImage."""
    return begin[_MAGIC : _MAGIC + 4] == _MAGIC_VALUE


def setup(image: bytes) -> Setup | None:
    """The setup header, or None where this is no bzImage. Raises HarnessError when it is one and damaged."""
    if not is_one(image) or len(image) < _HEADER_END:
        return None
    (protocol,) = struct.unpack_from("<H", image, _PROTOCOL)
    if protocol < 0x0208:
        raise _refused(f"its boot protocol is {protocol >> 8}.{protocol & 255:02}, older than 2.08")
    (version,) = struct.unpack_from("<H", image, _KERNEL_VERSION)
    words = image[version + 0x200 : version + 0x200 + _VERSION_LENGTH].split(b"\0")[0].split()
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    begin = ((image[_SETUP_SECTS] or 4) + 1) * _SECTOR + offset
    if not length or begin + length > len(image):
        happened = f"its payload ends at byte {begin + length}, the file at {len(image)}"
        raise _refused(f"{happened}: it is cut off or damaged")
    if not words or not version:
        raise _refused("its setup header names no version")
    return Setup(words[0].decode("ascii", "replace"), (begin, begin + length))


def unpacked(image: bytes) -> bytes:
    """The packed kernel of a bzImage: an ELF file, with relocations behind it where the kernel has them.

    Raises HarnessError: no bzImage, damaged, packed in a way that is not known here or that needs a program which is
    not there, or larger than LARGEST.
    """
    header = setup(image)
    if header is None:
        raise _refused("it is no bzImage")
    payload = image[slice(*header.payload)]
    for magic, name, unpack in _PACKED:
        if payload.startswith(magic):
            try:
                content = unpack(payload)
            except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
                raise _refused(f"its {name} data are damaged: {error}") from error
            if len(content) > LARGEST:
                raise _refused(f"it unpacks to more than {LARGEST >> 20} MiB")
            return content
    raise _refused(f"its payload begins with {payload[:4].hex()}, which is no packing of the kernel's build")


def _refused(happened: str) -> HarnessError:
    return HarnessError("unpack the kernel of a bzImage", happened)


def _gzip(payload: bytes) -> bytes:
    unpacker = zlib.decompressobj(31)
    return _whole(unpacker.decompress(payload, LARGEST + 1), unpacker.eof)


def _bzip2(payload: bytes) -> bytes:
    unpacker = bz2.BZ2Decompressor()
    return _whole(unpacker.decompress(payload, LARGEST + 1), unpacker.eof)


def _lzma(payload: bytes) -> bytes:
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_ALONE, _MEMORY)
    return _whole(unpacker.decompress(payload, LARGEST + 1), unpacker.eof)


def _xz(payload: bytes) -> bytes:
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, _MEMORY)
    return _whole(unpacker.decompress(payload, LARGEST + 1), unpacker.eof)


def _whole(content: bytes, ended: bool) -> bytes:
    """What came out; raises EOFError where that is not all of a kernel that is small enough."""
    if not ended and len(content) <= LARGEST:
        raise EOFError("they end too early")
    return content


def _zstd(payload: bytes) -> bytes:
    import zstandard

    unpacker = zstandard.ZstdDecompressor(max_window_size=_MEMORY)
    try:
        with unpacker.stream_reader(payload) as stream:
            content = stream.read(LARGEST + 1)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
    if len(content) <= LARGEST and payload[-4:] != struct.pack("<I", len(content)):
        raise EOFError("they end too early")
    return content


def _lz4(payload: bytes) -> bytes:
    """The legacy frame: blocks, each with its packed size before it; then the unpacked size of all."""
    position, blocks = 4, 0
    while position + 4 < len(payload):
        position += 4 + int.from_bytes(payload[position : position + 4], "little")
        blocks += 1
    if position + 4 != len(payload):
        raise EOFError("their blocks do not end where the payload does")
    if (blocks - 1) * _LZ4_BLOCK > LARGEST:
        return bytes(LARGEST + 1)
    if shutil.which("lz4") is None:
        raise HarnessError("unpack a kernel that lz4 packed", "there is no lz4", packages.install_hint([packages.LZ4]))
    done = run(["lz4", "-dc", "-"], stdin=payload[:position], timeout=_UNPACK_SECONDS, check=False)
    if done.returncode:
        raise ValueError(text(done.stderr).strip())
    content = done.stdout
    if payload[position:] != struct.pack("<I", len(content)):
        raise ValueError(f"they hold {len(content)} bytes, and another size is told")
    return content


_PACKED: tuple[tuple[bytes, str, Callable[[bytes], bytes]], ...] = (
    (b"\x1f\x8b", "gzip", _gzip),
    (b"BZh", "bzip2", _bzip2),
    (b"\x5d\0\0", "lzma", _lzma),
    (b"\xfd7zXZ\0", "xz", _xz),
    (b"\x02\x21\x4c\x18", "lz4", _lz4),
    (b"\x28\xb5\x2f\xfd", "zstd", _zstd),
)
"""How the kernel's build packs its payload, by the first bytes. Behind all but gzip's stands the unpacked size."""
