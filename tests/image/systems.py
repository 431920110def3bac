"""Small systems that libguestfs knows, and disks made of them."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
from pathlib import Path

import pytest

from harness.command import run
from tests.image.headers import MIB, mbr

needs_guestfish = pytest.mark.skipif(shutil.which("guestfish") is None, reason="needs guestfish")

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
"""security.capability: effective cap_net_admin … of VFS_CAP_REVISION_2."""

FILES: dict[str, bytes] = {
    "etc/os-release": b'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12"\nNAME=Debian\n',
    "etc/debian_version": b"12.1\n",
    "etc/hostname": b"test\n",
    "etc/hosts": b"",
    "etc/fstab": b"/dev/sda1 / ext4 defaults 0 1\n/dev/sda2 /boot ext4 defaults 0 1\n",
    "etc/ssh/ssh_host_rsa_key": b"PRIVATE",
    "etc/ssh/ssh_host_rsa_key.pub": b"public",
    "etc/shadow": b"root:SECRET",
    "etc/large": bytes(600 << 10),
    "usr/bin/sh": b"",
    "usr/lib/systemd/system/azure-proxy-agent.service": b"[Service]\n",
    "usr/lib/python3/dist-packages/cloudinit/version.py": b'__VERSION__ = "24.1"\n',
    "usr/sbin/azure-proxy-agent": b"\x7fELF agent",
    "usr/share/misc/readme": b"of no interest",
    "var/lib/waagent/3F.prv": b"PRIVATE",
    "var/lib/waagent/provisioned": b"",
    "var/lib/dpkg/status": b"".join(
        f"Package: {name}\nStatus: install ok installed\nVersion: {version}\nArchitecture: all\n"
        f"Description: x\n [1] = {{\n   app2_name: evil\n\n".encode()
        for name, version in (("cloud-init", "22.4.2-1+deb12u2"), ("systemd", "1:252.36"))
    ),
}
LINKS = {"bin": "usr/bin", "lib": "usr/lib", "etc/out": "../../../../../etc/passwd", "etc/circle": "circle"}


def tree(place: Path, more: dict[str, bytes] | None = None, *, hostile: bool = False) -> Path:
    """A system in a directory."""
    for name, content in {**FILES, **(more or {})}.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for name, target in LINKS.items():
        (place / name).symlink_to(target)
    (place / "usr/sbin/azure-proxy-agent").chmod(0o755)
    if hostile:
        _make_hostile(place)
    return place


def _make_hostile(place: Path) -> None:
    (place / "etc/a\nb\x1b[31m").write_bytes(b"control")
    (place / os.fsdecode(b"etc/\xff\xfe")).write_bytes(b"no text")
    (place / "etc/-rf").write_bytes(b"an option")
    (place / "etc/$(reboot)`reboot`\"'\\").write_bytes(b"a shell's")
    (place / "etc/hard").hardlink_to(place / "etc/hostname")
    with (place / "srv").open("wb") as file:
        file.truncate(10 << 30)
    with (place / "var/lib/cloud").open("wb") as file:
        file.truncate(10 << 30)
    deep = place / "var" / "deep"
    for _ in range(100):
        deep = deep / "d"
    deep.mkdir(parents=True)
    os.mkfifo(place / "etc/pipe")


def partition(files: Path, image: Path, start: int, size: int) -> None:
    """Write an ext4 file system with these files into a part of an image; bytes."""
    options = ["-q", "-F", "-t", "ext4", "-E", f"offset={start},root_owner=0:0"]
    run(["mke2fs", *options, "-d", files, image, f"{size // 1024}k"], timeout=120)


def disk(place: Path, root: Path, *, boot: Path | None = None, size: int = 64 * MIB, odd: int = 0) -> Path:
    """A raw disk: the root from 1 MiB to the end but the last 8 MiB, which are the second partition, /boot.

    odd: sectors past that.
    """
    raw, end = place / "disk.raw", size - 8 * MIB
    with raw.open("wb") as file:
        file.truncate(size + odd * 512)
    partition(root, raw, MIB, end - MIB)
    if boot is not None:
        partition(boot, raw, end, 8 * MIB + odd * 512)
    with raw.open("r+b") as file:
        sectors = ((MIB // 512, end // 512 - 2048), (end // 512, 8 * MIB // 512 + odd))
        file.write(mbr(*((0x80, 0x83, *each) for each in sectors[: 2 if boot is not None else 1]), code=b"\xebGRUB"))
    return raw


def damage(image: Path, start: int) -> None:
    """An ext4 file system whose superblock is there and whose block groups are not."""
    with image.open("r+b") as file:
        file.seek(start + 1024)
        (log,) = struct.unpack_from("<I", file.read(1024), 24)
        block = 1024 << log
        file.seek(start + (2048 if block == 1024 else block))
        file.write(b"\xff" * 4096)


def state(path: Path) -> tuple[str, int, int]:
    """What changes when an image is written to."""
    status = path.stat()
    return hashlib.sha256(path.read_bytes()).hexdigest(), status.st_mtime_ns, status.st_size
