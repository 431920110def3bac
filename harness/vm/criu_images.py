"""CRIU's images of a process's mappings: a file that was mapped shared is to be mapped privately when it comes back.

An image is a head and one message in protobuf: images/mm.proto (mm_entry), images/vma.proto (vma_entry) and
criu/include/image.h (VMA_FILE_*) of CRIU, the same from 3.17 to 4.2. Numbers are changed where they stand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError

_HEAD = 12  # bytes before the message: two words that name the image's kind, and the message's length, little-endian
_VMAS, _FLAGS, _STATUS = 14, 6, 7  # numbers of fields: of mm_entry, of vma_entry
_MAP_SHARED, _MAP_PRIVATE = 1, 2  # include/uapi/linux/mman.h
_FILE_PRIVATE, _FILE_SHARED = 1 << 6, 1 << 7
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf's wire types


@dataclass(frozen=True)
class _Field:
    """Of a message: its number, its value where that is a number, and where that, or its content, is."""

    number: int
    value: int
    begin: int
    end: int


def map_privately(images: Path) -> int:
    """Change all shared mappings of files; how many there were. Raises HarnessError for what is no such image."""
    found = list(images.glob("mm-*.img"))
    if len(found) != 1:
        raise HarnessError("read what CRIU wrote", f"there are images of {len(found)} processes, and not of one")
    path = found[0]
    content = bytearray(path.read_bytes())
    try:
        changed = _map_privately(content)
    except (IndexError, KeyError, ValueError) as error:
        raise HarnessError("read what CRIU wrote", f"{path.name} is no image of mappings ({error})") from error
    path.write_bytes(content)
    return changed


def _map_privately(content: bytearray) -> int:
    changed = 0
    length = int.from_bytes(content[_HEAD - 4 : _HEAD], "little")
    if _HEAD + length != len(content):
        raise ValueError(f"{len(content)} bytes, and not {_HEAD + length}")
    for mapping in _fields(content, _HEAD, _HEAD + length):
        if mapping.number != _VMAS:
            continue
        found = {field.number: field for field in _fields(content, mapping.begin, mapping.end)}
        flags, status = found[_FLAGS], found[_STATUS]
        if status.value & _FILE_SHARED:
            _put(content, flags, flags.value & ~_MAP_SHARED | _MAP_PRIVATE)
            _put(content, status, status.value & ~_FILE_SHARED | _FILE_PRIVATE)
            changed += 1
    return changed


def _fields(content: bytearray, begin: int, end: int) -> Iterator[_Field]:
    """The fields of the message that lies there. Raises ValueError or IndexError."""
    while begin < end:
        tag, begin = _varint(content, begin)
        kind, value, stop = tag & 7, 0, 0
        if kind == _VARINT:
            value, stop = _varint(content, begin)
        elif kind == _BYTES:
            length, begin = _varint(content, begin)
            stop = begin + length
        elif kind in (_FIXED32, _FIXED64):
            stop = begin + (4 if kind == _FIXED32 else 8)
        if not begin <= stop <= end or kind not in (_VARINT, _BYTES, _FIXED32, _FIXED64):
            raise ValueError(f"no field of protobuf at byte {begin}")
        yield _Field(tag >> 3, value, begin, stop)
        begin = stop


def _varint(content: bytearray, begin: int) -> tuple[int, int]:
    """A number, seven bits a byte, the lowest first; and where it ends."""
    value = shift = 0
    while True:
        byte = content[begin]
        begin += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, begin


def _put(content: bytearray, field: _Field, value: int) -> None:
    """Write another number, no larger, in as many bytes."""
    last = field.end - field.begin - 1
    content[field.begin : field.end] = bytes(value >> 7 * i & 0x7F | (0x80 if i < last else 0) for i in range(last + 1))
