"""What a VHDX says of itself: its size, and whether it is the child of another. [MS-VHDX] 2.0, little endian."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass

IDENTIFIER = b"vhdxfile"

Read = Callable[[int, int], bytes]
"""The bytes of the file from an offset on, as many as asked for, fewer at its end."""

_REGION_TABLES = (192 << 10, 256 << 10)  # offsets of the two copies
_TABLE = 64 << 10  # bytes of a region table, and of a metadata table
_REGION = struct.Struct("<16sQII")
_ITEM = struct.Struct("<16sIIII")
_METADATA = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
_FILE_PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
_VIRTUAL_SIZE = uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8").bytes_le
_HAS_PARENT = 2  # of the file parameters' flags
_ENTRIES = 2047


@dataclass(frozen=True)
class Vhdx:
    """virtual_size in bytes; has_parent where the content is in another file too."""

    virtual_size: int
    has_parent: bool


def parse(read: Read) -> Vhdx:
    """Raises ValueError where the file is no VHDX, or a damaged one."""
    if read(0, 8) != IDENTIFIER:
        raise ValueError("a VHDX begins with vhdxfile, and this does not")
    metadata = next((found for at in _REGION_TABLES if (found := _region(read(at, _TABLE)))), 0)
    if not metadata:
        raise ValueError("its region tables are damaged: there is no metadata region in them")
    table = read(metadata, _TABLE)
    if table[:8] != b"metadata":
        raise ValueError("its metadata table is damaged")
    size = _item(read, table, metadata, _VIRTUAL_SIZE, 8)
    parameters = _item(read, table, metadata, _FILE_PARAMETERS, 8)
    return Vhdx(struct.unpack("<Q", size)[0], bool(struct.unpack("<II", parameters)[1] & _HAS_PARENT))


def _region(table: bytes) -> int:
    """The metadata region's offset; 0 where the table has none."""
    if len(table) < 16 or table[:4] != b"regi":
        return 0
    (count,) = struct.unpack_from("<I", table, 8)
    for number in range(min(count, _ENTRIES)):
        if len(table) < 16 + (number + 1) * _REGION.size:
            return 0
        kind, offset, _, _ = _REGION.unpack_from(table, 16 + number * _REGION.size)
        if kind == _METADATA:
            return int(offset)
    return 0


def _item(read: Read, table: bytes, metadata: int, wanted: bytes, length: int) -> bytes:
    (count,) = struct.unpack_from("<H", table, 10) if len(table) >= 12 else (0,)
    for number in range(min(count, _ENTRIES)):
        if len(table) < 32 + (number + 1) * _ITEM.size:
            break
        kind, offset, _, _, _ = _ITEM.unpack_from(table, 32 + number * _ITEM.size)
        if kind == wanted:
            found = read(metadata + offset, length)
            if len(found) == length:
                return found
    raise ValueError(f"its metadata table is damaged: it has no item {uuid.UUID(bytes_le=wanted)}")
