"""Checksums of large files that are mostly empty: only the parts that have something in them are read."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

BLOCK = 1 << 16  # bytes
_NOTHING = bytes(BLOCK)

Parts = Sequence[tuple[int, int]]
"""Of a file: where each begins, and where it ends."""

Checksum = tuple[int, Parts]
"""Of a file: the CRC-32 over these parts, which are all that is not zero."""


def copied(source: int, target: BinaryIO | None = None) -> Checksum:
    """Write a file, given by its descriptor, to another, with holes where it is zero; without a target, only read it.

    Gives the CRC-32 that crc() will find, and the parts that are not zero.
    """
    parts: list[tuple[int, int]] = []
    found = 0
    for begin, end in _data(source):
        for block in range(begin, end, BLOCK):
            content = os.pread(source, min(BLOCK, end - block), block)
            if content != _NOTHING[: len(content)]:
                if target is not None:
                    target.seek(block)
                    target.write(content)
                found = zlib.crc32(content, found)
                if parts and parts[-1][1] == block:
                    parts[-1] = (parts[-1][0], block + len(content))
                else:
                    parts.append((block, block + len(content)))
    if target is not None:
        target.truncate(os.fstat(source).st_size)
    return found, parts


def read(path: Path) -> Checksum:
    """Of a file that is there."""
    with path.open("rb", buffering=0) as file:
        return copied(file.fileno())


def _data(descriptor: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that are no holes."""
    end = 0
    while True:
        try:
            begin = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError:  # ENXIO: a hole up to the end
            return
        end = os.lseek(descriptor, begin, os.SEEK_HOLE)
        yield begin, end


def crc(path: Path, parts: Parts) -> int:
    """CRC-32 over parts of a file."""
    found = 0
    with path.open("rb", buffering=0) as file:
        for begin, end in parts:
            for block in range(begin, end, BLOCK):
                found = zlib.crc32(os.pread(file.fileno(), min(BLOCK, end - block), block), found)
    return found
