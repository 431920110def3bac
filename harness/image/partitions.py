"""The partition table of a disk: the master boot record (with logical partitions) and GPT, little endian.

Sectors of 512 bytes, as Azure's disks have them. GPT: UEFI specification 2.10, chapter 5.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from harness.image.image import Partition

SECTOR = 512

ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
"""GPT's type of the EFI system partition."""
BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"
"""GPT's type of the partition that holds GRUB's core image."""
MBR_ESP = "ef"

Read = Callable[[int, int], bytes]
"""The bytes of the disk from an offset on, as many as asked for, fewer at its end."""

_ENTRY = struct.Struct("<B3sB3sII")
_GPT_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_GPT_ENTRY = struct.Struct("<16s16sQQQ")
_EXTENDED = ("05", "0f", "85")
_PROTECTIVE = "ee"
_LOGICAL = 60  # logical partitions that are followed
_GPT_ENTRIES, _GPT_ENTRY_SIZE = 1024, 4096
_BOOT_CODE = 440  # bytes of the record before the disk's signature


@dataclass(frozen=True)
class Table:
    """kind: gpt, mbr or nothing. bios: whether a BIOS finds something to boot. troubles: a sentence each."""

    kind: str
    partitions: tuple[Partition, ...] = ()
    bios: bool = False
    troubles: tuple[str, ...] = ()


def table(read: Read) -> Table:
    """The table of a disk. What is damaged is left out and told; nothing is raised but by read."""
    found = _table(read)
    return replace(found, bios=_boots(read, found))


def _boots(read: Read, table: Table) -> bool:
    """Whether a BIOS gets further than the first sector: to GRUB's core image, or to an active partition's boot sector.

    Partitioning programs write a code of their own that starts the active partition; so a code alone says nothing.
    """
    code = read(0, SECTOR)[:_BOOT_CODE]
    if b"GRUB" in code:
        return table.kind != "gpt" or any(each.kind == BIOS_BOOT for each in table.partitions)
    active = [each for each in table.partitions if each.bootable and table.kind == "mbr"]
    return any(code) and any(any(read(each.start, SECTOR)[:_BOOT_CODE]) for each in active)


def _table(read: Read) -> Table:
    record = read(0, SECTOR)
    if len(record) < SECTOR or record[510:512] != b"\x55\xaa":
        return Table("")
    primary = [(number, entry) for number, entry in enumerate(_entries(record, 0), 1) if entry[2]]
    if any(kind == _PROTECTIVE for kind, _, _, _ in (entry for _, entry in primary)):
        return _gpt(read)
    if not primary or any(status not in (0, 0x80) for status in record[446:510:16]):
        return Table("")  # a boot sector of a file system has the same signature
    found, troubles = [], []
    for number, (kind, start, size, active) in primary:
        if kind in _EXTENDED:
            logical, trouble = _logical(read, start)
            found += logical
            troubles += trouble
        else:
            found.append(Partition(number, start, size, kind, active))
    return Table("mbr", tuple(found), troubles=tuple(troubles))


def _entries(record: bytes, base: int) -> list[tuple[str, int, int, bool]]:
    """Type, start and size in bytes, and whether it is active, of the four entries of a boot record."""
    found = []
    for number in range(4):
        state, _, kind, _, start, count = _ENTRY.unpack_from(record, 446 + 16 * number)
        used = kind and count
        found.append((f"{kind:02x}", (base + start) * SECTOR, count * SECTOR if used else 0, state == 0x80))
    return found


def _logical(read: Read, extended: int) -> tuple[list[Partition], list[str]]:
    """The partitions in an extended one: a chain of boot records, each with one partition and the next record."""
    found: list[Partition] = []
    at, seen = extended, set()
    while at not in seen and len(found) < _LOGICAL:
        seen.add(at)
        record = read(at, SECTOR)
        if len(record) < SECTOR or record[510:512] != b"\x55\xaa":
            return found, ["the chain of logical partitions is damaged"]
        kind, start, size, active = _entries(record, at // SECTOR)[0]
        if size:
            found.append(Partition(5 + len(found), start, size, kind, active))
        _, following, more, _ = _entries(record, extended // SECTOR)[1]
        if not more:
            return found, []
        at = following
    return found, ["the chain of logical partitions has no end"]


def _gpt(read: Read) -> Table:
    head = read(SECTOR, SECTOR)
    if len(head) < SECTOR or head[:8] != b"EFI PART":
        return Table("gpt", troubles=("the GPT header is missing or damaged",))
    _, _, size, crc, _, _, _, _, _, _, where, count, each, entries_crc = _GPT_HEADER.unpack_from(head)
    troubles = []
    if not _GPT_HEADER.size <= size <= SECTOR or zlib.crc32(head[:16] + bytes(4) + head[20:size]) != crc:
        troubles.append("the GPT header has a wrong checksum")
    if not 1 <= count <= _GPT_ENTRIES or not 128 <= each <= _GPT_ENTRY_SIZE or each % 8:
        return Table("gpt", troubles=(*troubles, f"the GPT claims {count} entries of {each} bytes"))
    entries = read(where * SECTOR, count * each)
    if len(entries) < count * each or zlib.crc32(entries) != entries_crc:
        troubles.append("the GPT's entries have a wrong checksum")
    found = []
    for number in range(len(entries) // each):
        kind, _, first, last, flags = _GPT_ENTRY.unpack_from(entries, number * each)
        if any(kind):
            name = str(uuid.UUID(bytes_le=kind))
            span = max(0, last - first + 1) * SECTOR
            found.append(Partition(number + 1, first * SECTOR, span, name, bool(flags & 4)))
    return Table("gpt", tuple(found), troubles=tuple(troubles))
