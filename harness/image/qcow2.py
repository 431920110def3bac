"""The header of a qcow2 image: docs/interop/qcow2.txt of QEMU, big endian."""

from __future__ import annotations

import struct
from dataclasses import dataclass

MAGIC = b"QFI\xfb"
HEADER = 64 << 10
"""Bytes of the begin in which header, extensions and the backing file's name lie: those of the first cluster."""

_FIXED = struct.Struct(">4sIQIIQI")  # magic, version, backing offset and size, cluster bits, size, encryption
_EXTERNAL_DATA = 1 << 2  # of the incompatible features
_END, _BACKING_FORMAT, _DATA_NAME = 0, 0xE2792ACA, 0x44415441
_CRYPT = {0: "", 1: "AES", 2: "LUKS"}
_NAME = 1023


@dataclass(frozen=True)
class Header:
    """What a header says. size in bytes, of the disk; backing and data_file are other files that QEMU would open."""

    version: int
    size: int
    encryption: str = ""
    backing: str = ""
    backing_format: str = ""
    external_data: bool = False
    data_file: str = ""


def header(begin: bytes) -> Header:
    """The header at a file's begin, of which the first HEADER bytes are enough. Raises ValueError for none."""
    if len(begin) < 72 or begin[:4] != MAGIC:
        raise ValueError("its qcow2 header is damaged or cut off")
    _, version, offset, length, cluster_bits, size, crypt = _FIXED.unpack_from(begin)
    if version not in (2, 3):
        raise ValueError(f"it is qcow2 of version {version}, and 2 and 3 are known")
    if not 9 <= cluster_bits <= 21:
        raise ValueError(f"its qcow2 header is damaged: clusters of 2^{cluster_bits} bytes")
    if version == 3 and len(begin) < 104:
        raise ValueError("its qcow2 header is cut off")
    features = struct.unpack_from(">Q", begin, 72)[0] if version == 3 else 0
    extensions = _extensions(begin, struct.unpack_from(">I", begin, 100)[0] if version == 3 else 72)
    if offset and (length > _NAME or offset + length > len(begin)):
        raise ValueError("its qcow2 header is damaged: the backing file's name lies outside")
    return Header(
        version,
        size,
        _CRYPT.get(crypt, f"method {crypt}"),
        _text(begin[offset : offset + length]) if offset else "",
        _text(extensions.get(_BACKING_FORMAT, b"")),
        bool(features & _EXTERNAL_DATA),
        _text(extensions.get(_DATA_NAME, b"")),
    )


def _extensions(begin: bytes, at: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while at + 8 <= len(begin):
        kind, length = struct.unpack_from(">II", begin, at)
        if kind == _END or at + 8 + length > len(begin):
            break
        found[kind] = begin[at + 8 : at + 8 + length]
        at += 8 + length + -length % 8
    return found


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
