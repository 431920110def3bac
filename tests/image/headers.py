"""Disks' headers, made by the specifications or by qemu-img."""

from __future__ import annotations

import shutil
import struct
import uuid
import zlib
from pathlib import Path

import pytest

from harness.command import run
from harness.image import partitions, vhd

MIB = 1 << 20
LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
"""GPT's type of a Linux file system."""
needs_qemu_img = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")


def made(place: Path, form: str, *options: str, size: int = 9 * MIB) -> Path:
    """An empty image, as qemu-img makes it."""
    image = place / f"image.{form}"
    words = [word for option in options for word in ("-o", option)]
    run(["qemu-img", "create", "-q", "-f", form, *words, image, str(size)])
    return image


def encrypted(place: Path) -> Path:
    """A qcow2 image whose header says that it is encrypted: making a real one fails now and then."""
    image = made(place, "qcow2")
    with image.open("r+b") as file:
        file.seek(32)
        file.write(struct.pack(">I", 2))
    return image


def reader(data: bytes) -> partitions.Read:
    return lambda offset, length: data[offset : offset + length]


def vhd_footer(size: int, kind: int = vhd.FIXED) -> bytes:
    """A footer by the specification. The geometry is of 4 cylinders of 4 heads of 17 sectors: less than the size."""
    head = struct.pack(">8sIIQI4sI4sQQHBBI", b"conectix", 2, 1 << 16, (1 << 64) - 1, 0, b"test", 0, b"Wi2k", size, size,
                       4, 4, 17, kind)  # fmt: skip
    block = (head + bytes(4) + uuid.UUID(int=1).bytes).ljust(512, b"\0")
    return block[:64] + struct.pack(">I", vhd.checksum(block)) + block[68:]


def mbr(*entries: tuple[int, int, int, int], code: bytes = b"") -> bytes:
    """A boot record: state, type, first sector and number of sectors of each entry."""
    packed = b"".join(struct.pack("<B3xB3xII", *entry) for entry in entries)
    return code.ljust(446, b"\0") + packed.ljust(64, b"\0") + b"\x55\xaa"


def gpt(*entries: tuple[str, int, int]) -> bytes:
    """A protective record, a header and 128 entries: type, first and last sector of each."""
    packed = b"".join(
        uuid.UUID(kind).bytes_le + uuid.UUID(int=number + 1).bytes_le + struct.pack("<QQQ", first, last, 0) + bytes(72)
        for number, (kind, first, last) in enumerate(entries)
    ).ljust(128 * 128, b"\0")
    numbers = (1, 100000, 34, 99966)

    def header(checksum: int) -> bytes:
        after = (bytes(16), 2, 128, 128, zlib.crc32(packed))
        return struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 1 << 16, 92, checksum, 0, *numbers, *after)

    return mbr((0, 0xEE, 1, 99999)) + header(zlib.crc32(header(0))).ljust(512, b"\0") + packed
