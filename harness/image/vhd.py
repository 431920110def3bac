"""The footer and the header of a VHD: Microsoft's Virtual Hard Disk Image Format Specification 1.0, big endian."""

from __future__ import annotations

import struct
from dataclasses import dataclass

FOOTER = 512
"""Bytes of the footer, at a fixed disk's end; a dynamic disk has a copy of it at its begin."""
COOKIE = b"conectix"

FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
_TYPES = {FIXED: "fixed", DYNAMIC: "dynamic", DIFFERENCING: "differencing"}
_FOOTER = struct.Struct(">8sIIQI4sI4sQQHBBII16s")  # up to the unique id
_SUM_AT = 64
_SECTOR = 512


@dataclass(frozen=True)
class Footer:
    """What a footer says. current_size in bytes; chs_size is what cylinders × heads × sectors come to."""

    type: int
    current_size: int
    creator: str
    chs_size: int
    checksum_right: bool

    @property
    def kind(self) -> str:
        return _TYPES.get(self.type, f"type {self.type}")


def footer(block: bytes) -> Footer:
    """The footer in these 512 bytes (511 as the oldest Virtual PC wrote it). Raises ValueError where there is none."""
    if len(block) < _FOOTER.size:
        raise ValueError(f"a VHD's footer has {FOOTER} bytes, and here are {len(block)}")
    cookie, _, version, _, _, creator, _, _, _, size, cylinders, heads, sectors, kind, claimed, _ = _FOOTER.unpack(
        block[: _FOOTER.size]
    )
    if cookie != COOKIE:
        raise ValueError("a VHD's footer begins with conectix, and this does not")
    if version >> 16 != 1:
        raise ValueError(f"a VHD's footer is of version 1, and this of {version >> 16}")
    return Footer(
        kind,
        size,
        creator.rstrip(b"\0 ").decode("ascii", "backslashreplace"),
        cylinders * heads * sectors * _SECTOR,
        claimed == checksum(block[:FOOTER]),
    )


def checksum(block: bytes) -> int:
    """The one's complement of the sum of all bytes but those of the checksum itself."""
    return ~(sum(block) - sum(block[_SUM_AT : _SUM_AT + 4])) & 0xFFFFFFFF
