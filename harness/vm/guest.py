"""The guest: one small root file system of this machine's own suite, and an initramfs that brings the job.

The root has an interpreter, BCC, kernel headers and what this package imports; it is made once and kept under the hash
of its recipe. This package itself, the kernel's modules and the command come in the initramfs, made for each boot, so
that a change of code needs no new root. The guest runs the same checks as the host: there is no second copy of them.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import shlex
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import harness
from harness.command import run
from harness.errors import HarnessError
from harness.kernel import packages
from harness.program import headers, source
from harness.vm import apt, cache
from harness.vm.kernels import Kernel

PACKAGES = ("python3", "python3-bpfcc", "kmod", "iproute2", "curl", "busybox-static")
_WITHOUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")
_MAKE_SECONDS = 900
_ROOM = 256 << 20  # bytes free in the root; what is written there is lost at the end
_BOOT_MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "virtio-rng", "ext4")
_VERSION = 1  # of how a root is made, where the recipe does not show it

PORTS = ("stdout", "stderr", "status")
"""The virtio-serial ports by which the job's output and its exit status come home."""

_INIT = """\
#!/bin/busybox sh
# PID 1 in the initramfs: devices, the root, this package; then the second half in the root.
b=/bin/busybox
$b mkdir -p /dev /proc /sys /root
$b mount -t devtmpfs dev /dev
while read -r module; do $b insmod "$module"; done < /msp/modules
tries=0
until [ -b /dev/vda ]; do
	tries=$((tries + 1))
	[ $tries -lt 200 ] || { echo 'guest: no /dev/vda: virtio_blk is missing or no disk came'; $b poweroff -f; }
	$b usleep 50000
done
$b mount -t ext4 -o noatime /dev/vda /root || { echo 'guest: the root cannot be mounted'; $b poweroff -f; }
$b mount -t devtmpfs dev /root/dev
$b mount -t tmpfs -o mode=755 run /root/run
$b mount -t tmpfs tmp /root/tmp
$b mkdir -p /root/run/msp /root/lib/modules
$b cp -a /msp/. /root/run/msp/
$b cp -a /lib/modules/. /root/lib/modules/
exec $b switch_root /root /bin/sh /run/msp/start
"""

_START = """\
# PID 1 in the root: the job, its output to the ports, its status, the end.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
b=/run/msp/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t cgroup2 cgroup2 /sys/fs/cgroup
$b mount -t securityfs securityfs /sys/kernel/security 2>/dev/null
mkdir -p /dev/shm
$b mount -t tmpfs shm /dev/shm
for port in /sys/class/virtio-ports/*; do
	read -r name < "$port/name" && ln -s "/dev/${port##*/}" "/run/msp/$name"
done
ip link set lo up
cd /run/msp
. ./job > stdout 2> stderr
echo $? > status
$b poweroff -f
"""


@dataclass(frozen=True)
class Guest:
    """What every kernel boots: the image of the root (ext4, to be used without changing it) and a static busybox."""

    root: Path
    busybox: Path


def get() -> Guest:
    """The guest for this machine's suite; the first time it takes about a minute to make.

    Raises HarnessError when a program for it is missing or the packages cannot be had.
    """
    suite = apt.codename()
    python = importlib.metadata.distribution("msp-harness")
    wanted = {found.name: found.version for found in _requirements(python)}
    tree = headers.headers_tree()
    recipe = [_VERSION, suite, PACKAGES, _WITHOUT, wanted, sys.version_info[:2], tree.release, _ROOM]
    name = f"{suite}-{hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]}"
    entry = cache.kept("guests", name, lambda place: _make(suite, tree, place))
    return Guest(entry / "root.ext4", entry / "busybox")


def _require(command: str, need: str) -> None:
    if shutil.which(command) is None:
        raise HarnessError("make a guest", f"there is no {command}", packages.install_hint([need]))


def _make(suite: str, tree: headers.Headers, place: Path) -> None:
    _require("mmdebstrap", packages.MMDEBSTRAP)
    _require("mke2fs", packages.E2FSPROGS)
    root, sources = place / "root", place / "sources.list"
    sources.write_text("\n".join(source.line() for source in apt.sources_of(suite)) + "\n")
    # In namespaces of its own, so that a kill leaves neither a process nor a mount.
    run(
        [
            "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
            "mmdebstrap", "--quiet", "--mode=root", "--format=directory", "--variant=essential",
            f"--include={','.join(PACKAGES)}",
            *(f"--dpkgopt=path-exclude={path}" for path in _WITHOUT),
            suite, root, sources,
        ],
        timeout=_MAKE_SECONDS,
    )  # fmt: skip
    for distribution in _requirements(importlib.metadata.distribution("msp-harness")):
        _copy(distribution, root / "usr" / "lib" / "python3" / "dist-packages")
    _copy_headers(tree, root / "usr" / "src" / f"linux-headers-{tree.release}")
    shutil.copy2(root / "bin" / "busybox", place / "busybox")
    for unwanted in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(root / unwanted, ignore_errors=True)
    used = sum(path.lstat().st_blocks * 512 for path in root.rglob("*"))
    blocks = (used + used // 10 + _ROOM) // 4096
    image = place / "root.ext4"
    # No journal: what a guest writes is thrown away.
    run(["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-O", "^has_journal", "-d", root, image, str(blocks)], timeout=300)
    shutil.rmtree(root)


def _requirements(distribution: importlib.metadata.Distribution) -> Iterator[importlib.metadata.Distribution]:
    """What a distribution requires, and what that requires, each once; extras are left out."""
    seen, waiting = set(), [distribution]
    while waiting:
        for line in waiting.pop().requires or ():
            specifier, _, marker = line.partition(";")
            found = re.match(r"[A-Za-z0-9._-]+", specifier)
            name = re.sub(r"[-_.]+", "-", found.group()).lower() if found else ""
            if not name or "extra" in marker or name in seen:
                continue
            seen.add(name)
            try:
                required = importlib.metadata.distribution(name)
            except importlib.metadata.PackageNotFoundError:  # for another Python or another system
                continue
            waiting.append(required)
            yield required


def _copy(distribution: importlib.metadata.Distribution, place: Path) -> None:
    """A distribution's files, with their times: compiled modules are valid for a source of that time only."""
    for file in distribution.files or ():
        target, origin = place / file, Path(str(distribution.locate_file(file)))
        if ".." not in file.parts and origin.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(origin, target)


def _copy_headers(tree: headers.Headers, place: Path) -> None:
    """The include directories of a headers tree, whole: in the cache it is made of links."""
    for name in ("include", f"arch/{headers.architecture()}/include"):
        shutil.copytree(tree.path / name, place / name)


def initramfs(guest: Guest, kernel: Kernel, command: Sequence[str], environment: Mapping[str, str]) -> bytes:
    """The initramfs for one boot: a cpio archive with init, the kernel's modules, this package, and the job."""
    variables = {
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": "/run/msp",
        **environment,
    }
    job = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()) + shlex.join(command)
    archive = Archive()
    archive.file("init", _INIT.encode(), mode=0o755)
    archive.copy("bin/busybox", guest.busybox)
    archive.copy("msp/busybox", guest.busybox)
    modules = f"lib/modules/{kernel.release}"
    boot = [f"/{modules}/{path.relative_to(kernel.modules)}" for path in kernel.load_order(_BOOT_MODULES)]
    archive.file("msp/modules", "".join(f"{path}\n" for path in boot).encode())
    archive.tree(modules, kernel.modules)
    archive.tree("msp/harness", Path(harness.__file__).parent)
    archive.tree("msp/bpf", source.directory())
    archive.file("msp/start", (_START).encode())
    archive.file("msp/job", f"{job}\n".encode())
    return archive.finished()


class Archive:
    """A cpio archive in the form `newc` (Documentation/driver-api/early-userspace/buffer-format.rst)."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._directories: set[str] = set()
        self._count = 0

    def file(self, name: str, content: bytes, *, mode: int = 0o644, mtime: int = 0) -> None:
        """Add a file, and the directories above it that are not there yet."""
        for parent in reversed(Path(name).parents):
            if str(parent) not in self._directories | {"."}:
                self._directories.add(str(parent))
                self._add(str(parent), stat.S_IFDIR | 0o755, b"", mtime)
        self._add(name, stat.S_IFREG | mode, content, mtime)

    def copy(self, name: str, path: Path) -> None:
        """Add a file of the host with its mode and time."""
        status = path.stat()
        self.file(name, path.read_bytes(), mode=stat.S_IMODE(status.st_mode), mtime=int(status.st_mtime))

    def tree(self, name: str, top: Path) -> None:
        """Add every file below a directory."""
        for path in sorted(top.rglob("*")):
            if path.is_file():
                self.copy(f"{name}/{path.relative_to(top)}", path)

    def finished(self) -> bytes:
        """The whole archive."""
        self._add("TRAILER!!!", 0, b"", 0)
        return b"".join(self._parts)

    def _add(self, name: str, mode: int, content: bytes, mtime: int) -> None:
        self._count += 1
        fields = (self._count, mode, 0, 0, 1, mtime, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        self._parts += [_padded(header), _padded(content)]


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
