"""Damage done to objects: bytes turned, parts cut out, doubled and cut off, and every length and offset made absurd."""

from __future__ import annotations

import random
import struct

_ABSURD = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def _turn(data: bytearray, dice: random.Random) -> None:
    for _ in range(dice.choice((1, 1, 3, 20))):
        data[dice.randrange(len(data))] = dice.randrange(256)


def _absurd(data: bytearray, dice: random.Random) -> None:
    """A word anywhere, aligned as tables are."""
    at = dice.randrange(max(len(data) - 4, 1)) & ~3
    data[at : at + 4] = struct.pack("<I", dice.choice(_ABSURD))


def _header(data: bytearray, dice: random.Random) -> None:
    """A word of the ELF header or of a section header, where the damage goes deepest."""
    table = struct.unpack_from("<Q", data, 40)[0] if len(data) >= 64 else 0
    at = dice.choice((dice.randrange(0, 64), table + dice.randrange(0, 64 * 32))) & ~3
    if at + 4 <= len(data):
        data[at : at + 4] = struct.pack("<I", dice.choice((*_ABSURD, dice.randrange(len(data)))))


def _cut(data: bytearray, dice: random.Random) -> None:
    del data[dice.randrange(len(data)) :]


def _without(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data))
    del data[at : at + dice.randrange(1, 64)]


def _double(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data))
    data[at:at] = data[at : at + dice.randrange(1, 512)]


WAYS = (_turn, _turn, _absurd, _absurd, _header, _header, _cut, _without, _double)


def damaged(data: bytes, dice: random.Random) -> bytes:
    """The bytes after one to four damages."""
    changed = bytearray(data)
    for _ in range(dice.randrange(1, 5)):
        if changed:
            dice.choice(WAYS)(changed, dice)
    return bytes(changed)
