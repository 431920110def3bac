"""Members of a tar archive, read as a stream: ustar, GNU and pax headers. Nothing is extracted, no size is believed.

A reader of its own, because tarfile reads a pax header of whatever size it claims into memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from harness.diagnose.budget import Budget
from harness.diagnose.streams import Damaged, Stream

BLOCK = 512


class Type(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    DEVICE = "device"
    OTHER = "other"


_TYPES = {b"0": Type.FILE, b"\0": Type.FILE, b"7": Type.FILE, b"5": Type.DIRECTORY, b"1": Type.LINK, b"2": Type.LINK,
          b"3": Type.DEVICE, b"4": Type.DEVICE, b"6": Type.DEVICE}  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A member; its bytes are to be read from the stream before the next one is asked for."""

    name: str
    type: Type
    size: int  # bytes, as the header claims


def is_tar(head: bytes) -> bool:
    """Whether the first block is a tar header: its checksum is right."""
    return len(head) >= BLOCK and any(head[:BLOCK]) and _checksum(head[:BLOCK])


def _checksum(block: bytes) -> bool:
    claimed = _number(block[148:156])
    return claimed is not None and claimed == sum(block[:148]) + 8 * 32 + sum(block[156:])


def _number(field: bytes) -> int | None:
    """Octal digits, or a number in base 256 where the first bit is set."""
    if field[:1] >= b"\x80":
        return None if field[0] & 0x40 else int.from_bytes(bytes([field[0] & 0x3F]) + field[1:], "big")
    text = field.strip(b" \0")
    try:
        return int(text, 8) if text else 0
    except ValueError:
        return None


def members(stream: Stream, budget: Budget) -> Iterator[Member]:
    """The members in order. Raises Damaged where a header is none, Exhausted where the budget ends."""
    long_name: str | None = None
    long_size: int | None = None
    while True:
        block = stream.read(BLOCK)
        if len(block) < BLOCK:
            raise Damaged(stream.damage or "the tar ends without its end mark")
        if not any(block):
            return
        size = _number(block[124:136])
        if size is None or not _checksum(block):
            raise Damaged("a tar header is damaged")
        kind = block[156:157]
        if kind in (b"L", b"K", b"x", b"g"):
            record = _record(stream, size, budget)
            if kind == b"L":
                long_name = _text(record.rstrip(b"\0"))
            elif kind == b"x":
                path, real = _pax(record)
                long_name, long_size = path or long_name, real if real is not None else long_size
            continue
        member_type = _TYPES.get(kind, Type.OTHER)
        if member_type is not Type.FILE and kind != b"S":
            size = 0 if member_type is not Type.OTHER else size
        name = long_name if long_name is not None else _name(block)
        size = long_size if long_size is not None and member_type is Type.FILE else size
        long_name = long_size = None
        left = _Counted(stream)
        yield Member(name, member_type, size)
        left.settle(size)


class _Counted:
    """Passes over what of a member was not read, and over its padding."""

    def __init__(self, stream: Stream):
        self._stream = stream
        self._before = stream.taken

    def settle(self, size: int) -> None:
        used = self._stream.taken - self._before
        if not self._stream.skip(size - used + -size % BLOCK):
            raise Damaged(self._stream.damage or "the tar ends inside a member")


def _record(stream: Stream, size: int, budget: Budget) -> bytes:
    """A long name's or a pax header's content, as far as it may be long."""
    kept = stream.read(min(size, budget.limits.name))
    if not stream.skip(size - len(kept) + -size % BLOCK):
        raise Damaged(stream.damage or "the tar ends inside a header")
    return kept


def _pax(record: bytes) -> tuple[str | None, int | None]:
    """path and size of `LENGTH KEY=VALUE\\n` lines."""
    path, size, at = None, None, 0
    while at < len(record):
        space = record.find(b" ", at, at + 12)
        if space < 0 or not record[at:space].isdigit():
            break
        end = at + int(record[at:space])
        key, equals, value = record[space + 1 : end - 1].partition(b"=")
        if not equals or end <= at:
            break
        if key in (b"path", b"GNU.sparse.name"):
            path = _text(value)
        elif key == b"size" and value.isdigit() and len(value) < 20:
            size = int(value)
        at = end
    return path, size


def _name(block: bytes) -> str:
    name, prefix = block[:100].split(b"\0")[0], block[345:500].split(b"\0")[0]
    return _text(prefix + b"/" + name if prefix and block[257:263] == b"ustar\0" else name)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
