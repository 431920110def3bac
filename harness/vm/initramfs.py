"""What a boot brings with it: an initramfs with init, the kernel's modules and this package, compiled.

Init mounts the guest's root, shows these in it, and becomes the interpreter that serves jobs (harness.vm.server).
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import py_compile
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

import harness
from harness.command import run
from harness.program import source
from harness.vm import ahead, cache, forget, undump, wire
from harness.vm.guest import Guest
from harness.vm.kernels import Kernel

BOOT_MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "ext4")

_VERSION = 3  # of the archive of this package
_KIND, _KEPT = "packages", 4  # archives of the package, 5 MB each
_LEFT_OUT = ("diagnose", "matrix", "image")  # layers that no job in a guest reaches

_RECORD = "import sys; from pathlib import Path; from harness.vm import ahead; ahead.record(Path(sys.argv[1]))"
_RECORD_SECONDS = 120  # it takes one

GOES_ON = "guest: going on with what is imported"
"""What the console has before an interpreter is started that was written down."""

_INIT = """\
#!/bin/busybox sh
# PID 1 in the initramfs: devices, the root, what came with the boot; then the interpreter, which serves jobs.
b=/bin/busybox
stop() { echo "guest: $*"; $b poweroff -f; }
$b mount -t devtmpfs dev /dev || stop 'no devtmpfs: the kernel has no CONFIG_DEVTMPFS'
while read -r module; do $b insmod "$module" || echo "guest: $module cannot be loaded"; done < /msp/modules
tries=0
wait_for() {
	until [ -b "$1" ]; do
		tries=$((tries + 1))
		[ $tries -lt 100 ] || stop "no $1: the kernel has no virtio_pci or virtio_blk, or it does not work"
		$b usleep 20000
	done
}
wait_for /dev/vda
[ ! -e /msp/python3 ] || wait_for INTERPRETER
$b mount -t ext4 -o ro /dev/vda /root || stop 'the root cannot be mounted: no ext4, or it is damaged'
$b mount --move /dev /root/dev
$b mount --bind /msp /root/msp
$b mount --bind /lib/modules /root/lib/modules
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root MSP_HARNESS_CACHE=/tmp/cache LC_ALL=C.UTF-8 COLUMNS=120 PYTHONPATH=/msp PYTHONDONTWRITEBYTECODE=1
export MSP_HARNESS_SLOWNESS=5
cd /root
$b mount --move . /
fixed='/usr/bin/setarch x86_64 --addr-no-randomize'
[ ! -e msp/python3 ] || { echo 'GOES_ON'; exec $b chroot . $fixed /msp/python3; }
exec $b chroot . $fixed /usr/bin/python3 -c '
from pathlib import Path
from harness.vm import ahead
ahead.use(Path("/msp/ahead"))
from harness.vm import server
server.main()'
""".replace("GOES_ON", GOES_ON).replace("INTERPRETER", wire.INTERPRETER)


def initramfs(guest: Guest, kernel: Kernel, machine: Mapping[str, object]) -> bytes:
    """The initramfs for a boot; machine is what the server is to know of it."""
    archive = Archive()
    if guest.interpreter is not None:
        with guest.interpreter.open("rb") as file:
            archive.file("msp/python3", file.read(undump.HEAD), mode=0o755)
    for directory in ("dev", "root", "lib/modules"):
        archive.directory(directory)
    archive.file("init", _INIT.encode(), mode=0o755)
    archive.copy("bin/busybox", guest.busybox)
    modules = f"lib/modules/{kernel.release}"
    boot = [f"/{modules}/{path.relative_to(kernel.modules)}" for path in kernel.load_order(BOOT_MODULES)]
    archive.file("msp/modules", "".join(f"{path}\n" for path in boot).encode())
    archive.file("msp/machine.json", json.dumps(machine).encode())
    archive.tree(modules, kernel.modules)
    return _package(_top(), digest(), guest.name).read_bytes() + archive.finished()


def digest() -> str:
    """Of all that the guest runs of this package: its code, its data, its C sources."""
    return _digest(_top())


def _top() -> Path:
    return Path(harness.__file__).resolve().parent


@functools.cache
def _digest(top: Path) -> str:
    whole = hashlib.sha256(str(_VERSION).encode() + py_compile.__doc__.encode())
    for name, path in _files(top):
        whole.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def _files(top: Path) -> list[tuple[str, Path]]:
    """The package's files and their names in the guest, sorted."""
    parts = [part for part in top.iterdir() if part.name not in _LEFT_OUT]
    paths = [path for part in parts for path in ([part] if part.is_file() else part.rglob("*")) if path.is_file()]
    found = [(f"harness/{path.relative_to(top)}", path) for path in paths]
    bpf = source.directory()
    found += [(f"bpf/{path.relative_to(bpf)}", path) for path in bpf.rglob("*") if path.is_file()]
    return sorted(row for row in found if "__pycache__" not in row[1].parts)


def _package(top: Path, digest: str, guest: str) -> Path:
    """The archive of the package with its modules compiled, which takes seconds: made once for each state of it.

    It has the code of what the package requires, too, and so is for one guest's root, by its name. The few modules that
    are not ahead have bytecode that is marked as not to be checked against its source: both are of one moment.
    """

    def make(place: Path) -> None:
        run(
            [sys.executable, "-P", "-c", _RECORD, place / "ahead"],
            environment={**os.environ, "PYTHONPATH": str(top.parent), "PYTHONDONTWRITEBYTECODE": "1"},
            timeout=_RECORD_SECONDS,
        )
        there = ahead.files(place / "ahead")
        archive = Archive()
        archive.copy("msp/ahead", place / "ahead")
        compiled = place / "module.pyc"
        for name, path in _files(top):
            archive.copy(f"msp/{name}", path)
            if path.suffix == ".py" and f"/msp/{name}" not in there:
                mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
                py_compile.compile(str(path), str(compiled), f"/msp/{name}", doraise=True, invalidation_mode=mode)
                archive.file(f"msp/{Path(name).parent}/__pycache__/{_bytecode(path.stem)}", compiled.read_bytes())
        compiled.unlink(missing_ok=True)
        (place / "package.cpio").write_bytes(archive.finished())

    name = hashlib.sha256(json.dumps([digest, guest, sys.version]).encode()).hexdigest()[:32]
    archive = cache.kept(_KIND, name, make) / "package.cpio"
    forget.all_but(_KEPT, _KIND)
    return archive


def _bytecode(module: str) -> str:
    """The file name of a module's bytecode, for this interpreter's version: the guest has the same."""
    from importlib.util import cache_from_source

    return Path(cache_from_source(f"{module}.py")).name


class Archive:
    """A cpio archive in the form `newc` (Documentation/driver-api/early-userspace/buffer-format.rst)."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._directories: set[str] = set()
        self._count = 0

    def directory(self, name: str) -> None:
        """Add a directory, and those above it that are not there yet."""
        for path in (*reversed(Path(name).parents), Path(name)):
            if str(path) not in self._directories | {"."}:
                self._directories.add(str(path))
                self._add(str(path), stat.S_IFDIR | 0o755, b"")

    def file(self, name: str, content: bytes, *, mode: int = 0o644) -> None:
        """Add a file, and the directories above it."""
        self.directory(str(Path(name).parent))
        self._add(name, stat.S_IFREG | mode, content)

    def copy(self, name: str, path: Path) -> None:
        """Add a file of the host with its mode."""
        self.file(name, path.read_bytes(), mode=stat.S_IMODE(path.stat().st_mode))

    def tree(self, name: str, top: Path) -> None:
        """Add every file below a directory."""
        for path in sorted(top.rglob("*")):
            if path.is_file():
                self.copy(f"{name}/{path.relative_to(top)}", path)

    def finished(self) -> bytes:
        """The whole archive. Several, one behind the other, are one as well."""
        self._add("TRAILER!!!", 0, b"")
        return b"".join(self._parts)

    def _add(self, name: str, mode: int, content: bytes) -> None:
        self._count += 1
        fields = (self._count, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        self._parts += [_padded(header), _padded(content)]


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
