"""Roots of samples as directories, and a root on this machine read as the appliance reads an image's.

It spares a test the appliance: the same table says what is read (harness.image.places). Only roots of our own making.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from harness.image import initramfs, kernels, places
from harness.image.image import Disk, Image, Package
from harness.image.tree import Entry, Kind, Tree

_KINDS = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFLNK: Kind.LINK}


def image_of(root: Path) -> Image:
    """The image that a disk with this root would be: a good one but for what the root has."""
    entries = dict(_entries(root, path) for path in _paths(root))
    chosen, _ = places.choose(entries)
    for path in chosen:
        entries[path] = replace(entries[path], data=places.masked(path, (root / path[1:]).read_bytes()))
    for path, command in places.excerpts(entries):
        with (root / path[1:]).open("rb") as file:
            said = subprocess.run(["sh", "-c", command], stdin=file, capture_output=True).stdout
        entries[path] = replace(entries[path], data=said)
    size = 1 << 30
    disk = Disk("vhd-fixed", size + 512, size, "mbr", firmware="bios")
    words = {"type": "linux", "distro": "debian", "arch": "x86_64"}
    image = Image(str(root), disk, Tree(entries), _packages(root), words, ("/dev/sda1: Debian",))
    where = initramfs.path(image, kernels.kernels(image)) or ""
    return replace(image, initramfs={where: initramfs.modules(root / where[1:])} if where else {})


def _paths(root: Path) -> list[Path]:
    left = [root / place for place in places.PASSED_OVER]
    found: list[Path] = []
    for parent, directories, files in os.walk(root):
        here = Path(parent)
        directories[:] = [name for name in directories if here / name not in left]
        found += [here / name for name in (*directories, *files)]
    return found


def _entries(root: Path, path: Path) -> tuple[str, Entry]:
    status = path.lstat()
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), Kind.OTHER)
    target = str(path.readlink()) if kind is Kind.LINK else ""
    mode = stat.S_IMODE(status.st_mode)
    return f"/{path.relative_to(root)}", Entry(kind, mode, status.st_uid, status.st_gid, status.st_size, target)


def _packages(root: Path) -> Mapping[str, Package]:
    found: dict[str, Package] = {}
    for paragraph in (root / "var/lib/dpkg/status").read_text().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Status", "").endswith(" installed"):
            found[fields["Package"]] = Package(fields["Package"], fields["Version"])
    return found
