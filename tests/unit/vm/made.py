"""Kernels, modules and packages that are made here: enough of each for what reads them, and no program in any."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import zstandard

from harness.command import run

RELEASE = "9.9.0-test"
BUILT_IN = "kernel/fs/ext4/ext4.ko\nkernel/drivers/char/virtio_console.ko\n"


def elf(*, release: str = RELEASE, pvh: bool = True, machine: int = 62) -> bytes:
    """A vmlinux: an ELF header, a PT_LOAD and a PT_NOTE segment, and the kernel's banner."""
    banner = f"Linux version {release} (nobody@nowhere) #1".encode()
    note = struct.pack("<III", 4, 8, 18 if pvh else 17) + b"Xen\0" + bytes(8)
    headers = 64 + 2 * 56
    ident = b"\x7fELF\2\1\1" + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, headers, 0, 0, len(banner), len(banner), 1)
    notes = struct.pack("<IIQQQQQQ", 4, 4, headers + len(banner), 0, 0, len(note), len(note), 4)
    return header + load + notes + banner + note


def _sized(pack: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """The kernel's build appends the unpacked size to all but gzip's."""
    return lambda data: pack(data) + struct.pack("<I", len(data))


def _lz4(data: bytes) -> bytes:
    return subprocess.run(["lz4", "-lc"], input=data, capture_output=True, check=True).stdout


PACKERS: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "bzip2": _sized(bz2.compress),
    "lzma": _sized(lambda data: lzma.compress(data, lzma.FORMAT_ALONE)),
    "xz": _sized(lambda data: lzma.compress(data, lzma.FORMAT_XZ)),
    "zstd": _sized(lambda data: zstandard.ZstdCompressor().compress(data)),
    "lz4": _sized(_lz4),
}


def bzimage(kernel: bytes | None = None, *, release: str = RELEASE, pack: str = "gzip") -> bytes:
    """A bzImage around a kernel: boot sector, setup header, a sector with the version, and the payload."""
    payload = PACKERS[pack](elf(release=release) if kernel is None else kernel)
    setup = bytearray(3 * 512)
    setup[0x1F1] = 2
    setup[0x1FE:0x200] = b"\x55\xaa"
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, 0x020F)
    struct.pack_into("<H", setup, 0x20E, 0x200)
    struct.pack_into("<II", setup, 0x248, 16, len(payload))
    version = f"{release} (nobody@nowhere) #1\0".encode()
    setup[0x400 : 0x400 + len(version)] = version
    return bytes(setup) + bytes(16) + payload + b"after"


def module(depends: str = "", softdep: str = "") -> bytes:
    """A kernel module, as far as its dependencies are read (and depmod finds it an ELF file)."""
    info = f"\0license=GPL\0depends={depends}\0{f'softdep={softdep}' if softdep else ''}\0".encode()
    names = b"\0.modinfo\0.shstrtab\0.symtab\0.strtab\0"
    at = 64 + 5 * 64
    header = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, 64, 0, 64, 0, 0, 64, 5, 2)

    def section(name: int, kind: int, offset: int, size: int, link: int = 0, entry: int = 0) -> bytes:
        return struct.pack("<IIQQQQIIQQ", name, kind, 0, 0, offset, size, link, 0, 1, entry)

    sections = bytes(64) + section(1, 1, at, len(info)) + section(10, 3, at + len(info), len(names))
    symbols = at + len(info) + len(names)
    sections += section(20, 2, symbols, 24, 4, 24) + section(28, 3, symbols + 24, 1)
    return header + sections + info + names + bytes(24) + b"\0"


MODULES: Mapping[str, bytes] = {
    f"lib/modules/{RELEASE}/kernel/virtio_pci.ko": module("virtio_ring,virtio-core"),
    f"lib/modules/{RELEASE}/kernel/virtio_ring.ko": module("virtio-core"),
    f"lib/modules/{RELEASE}/kernel/virtio-core.ko": module(),
    f"lib/modules/{RELEASE}/kernel/virtio_blk.ko": module("virtio_ring"),
    f"lib/modules/{RELEASE}/kernel/soundcard.ko": module(),
    f"lib/modules/{RELEASE}/modules.builtin": BUILT_IN.encode(),
    f"lib/modules/{RELEASE}/modules.order": b"",
}

FILES: Mapping[str, bytes] = {f"boot/vmlinuz-{RELEASE}": bzimage(), **MODULES}
"""Of a package with a kernel."""


def write(place: Path, files: Mapping[str, bytes]) -> Path:
    """These files below a directory."""
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    return place


def deb(
    place: Path, files: Mapping[str, bytes], *, name: str, version: str = "1", depends: str = "", script: str = ""
) -> Path:
    """A .deb, by dpkg-deb, in a directory."""
    tree = write(place / f".{name}_{version}", files)
    fields = {
        "Package": name,
        "Version": version,
        "Architecture": "amd64",
        "Maintainer": "nobody",
        "Description": "a test",
    }
    control = "".join(
        f"{key}: {value}\n" for key, value in (fields | ({"Depends": depends} if depends else {})).items()
    )
    write(tree, {"DEBIAN/control": control.encode()})
    if script:
        (tree / "DEBIAN" / "postinst").write_text(script)
        (tree / "DEBIAN" / "postinst").chmod(0o755)
    target = place / f"{name}_{version}_amd64.deb"
    run(["dpkg-deb", "-Zxz", "--root-owner-group", "-b", tree, target])
    return target
