"""Unified kernel images: a kernel with its command line in one PE file (the UAPI group's specification)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.image.image import Image

_PLACES = ("/boot/efi/EFI/Linux", "/efi/EFI/Linux", "/boot/EFI/Linux")
_SECTIONS = 96
_LONGEST = 4096  # bytes of a section that is looked at


@dataclass(frozen=True)
class Unified:
    """One image. line is None where it has none, or its content was not read (then read is False)."""

    path: str
    release: str
    line: str | None
    read: bool


def unified_kernels(image: Image, modules: Sequence[str]) -> list[Unified]:
    """Those where systemd-boot and the firmware look; the release by what is in them, else by their names."""
    return [found for path in _paths(image) if (found := _read(image, path, modules)) is not None]


def _paths(image: Image) -> Iterator[str]:
    for place in _PLACES:
        for name in image.tree.names(place):
            if name.lower().endswith(".efi"):
                yield f"{place}/{name}"


def _read(image: Image, path: str, modules: Sequence[str]) -> Unified | None:
    data = image.tree.data(path)
    sections = pe_sections(data) if data is not None else {}
    name = path.rpartition("/")[2]
    release = _text(sections.get(".uname")) or next((one for one in modules if one in name), "") or _of_name(name)
    return Unified(path, release, _text(sections.get(".cmdline")), data is not None) if release else None


def _of_name(name: str) -> str:
    found = re.search(r"(?:^|-)(\d+\.\d+[A-Za-z0-9.+~_-]*?)\.efi$", name, re.IGNORECASE)
    return found.group(1) if found else ""


def _text(data: bytes | None) -> str | None:
    if data is None:
        return None
    return " ".join(data.decode("utf-8", "replace").replace("\0", " ").split())


def pe_sections(data: bytes) -> dict[str, bytes]:
    """The first bytes of each section of a PE file, by name; none for what is no PE file. Never raises."""
    try:
        if data[:2] != b"MZ":
            return {}
        (place,) = struct.unpack_from("<I", data, 0x3C)
        if data[place : place + 4] != b"PE\0\0":
            return {}
        count, optional = struct.unpack_from("<H12xH", data, place + 6)
        begin = place + 24 + optional
        found: dict[str, bytes] = {}
        for number in range(min(count, _SECTIONS)):
            name, size, _, stored, offset = struct.unpack_from("<8sIIII", data, begin + 40 * number)
            length = min(size or stored, stored, _LONGEST)
            found.setdefault(name.rstrip(b"\0").decode("latin-1"), data[offset : offset + length])
        return found
    except struct.error:
        return {}
