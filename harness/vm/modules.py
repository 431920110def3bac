"""A kernel's modules, as far as a guest may have to load them: taken from a whole tree, with modprobe's tables."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from harness.command import run
from harness.errors import HarnessError
from harness.kernel import packages
from harness.vm import archives

MODULES = (
    "virtio_pci", "virtio_blk", "virtio_console", "virtio_rng", "ext4",  # the guest's own devices and its root
    "veth", "dummy", "bridge", "tcp_diag", "udp_diag", "inet_diag", "mptcp_diag", "af_packet",  # the lab
)  # fmt: skip
"""What a guest may have to load. What the kernel has built in, or not at all, is left out."""

NEEDED = ("virtio_pci", "virtio_blk", "virtio_console", "ext4")  # as modules or built in, or no guest starts
TABLES = ("modules.order", "modules.builtin", "modules.builtin.modinfo")
"""Files of a tree that depmod(8) reads."""

_LARGEST = 64 << 20  # bytes of a module; a distribution's largest has 10 MB
_PACKED = (".ko", ".ko.gz", ".ko.xz", ".ko.zst")


def reduce(tree: Path, root: Path, release: str) -> None:
    """Of the modules in tree (/lib/modules/RELEASE) those that a guest may load, below root/lib/modules/RELEASE.

    A module is where tree has it, unpacked, beside what it depends on. Raises HarnessError where the kernel has not
    what every guest needs.
    """
    if shutil.which("depmod") is None:
        raise HarnessError("prepare a kernel's modules", "there is no depmod", packages.install_hint([packages.KMOD]))
    kept = root / "lib" / "modules" / release
    kept.mkdir(parents=True)
    for name in TABLES:
        if (tree / name).is_file():
            shutil.copyfile(tree / name, kept / name)
    files = {_name(path): path for path in _modules(tree)}
    there = files.keys() | {_name(Path(line)) for line in _lines(tree / "modules.builtin")}
    missing = [name for name in NEEDED if name not in there]
    if missing:
        happened = f"it has no {', '.join(missing)}, built in or as a module"
        raise HarnessError(f"use {release} in a guest", happened, _OTHER)
    wanted = [name for name in MODULES if name in files]
    while wanted:
        name = wanted.pop()
        if name not in files:
            raise HarnessError(f"use {release} in a guest", f"a module needs {name}, which is not there", _OTHER)
        path = files[name]
        target = kept / path.relative_to(tree).with_name(path.name.split(".ko")[0] + ".ko")
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(_content(path))
            wanted += set(_dependencies(target)) - (there - files.keys())
            wanted += _there(_wishes(target), files)
    run(["depmod", "-b", root, release])


_OTHER = "give the package or the directory that has the rest of its modules, or take another kernel"


def load_order(modules: Path, names: Sequence[str]) -> list[Path]:
    """The files of these modules as far as there are any, each after those that it depends on or wants before it."""
    dependencies: dict[str, list[str]] = {}
    for line in _lines(modules / "modules.dep"):
        file, _, needs = line.partition(":")
        dependencies[file] = needs.split()
    files = {_name(Path(file)): file for file in dependencies}
    wishes = dict(_soft(line) for line in _lines(modules / "modules.softdep") if line.startswith("softdep "))
    order: dict[str, None] = {}
    for file, needed in dependencies.items():
        if _name(Path(file)) in {name.replace("-", "_") for name in names}:
            for each in (*reversed(needed), file):  # modules.dep lists the nearest first
                for wish in _there(wishes.get(_name(Path(each)), ()), files):
                    order |= dict.fromkeys([*reversed(dependencies[files[wish]]), files[wish]])
                order[each] = None
    return [modules / file for file in order]


def _soft(line: str) -> tuple[str, list[str]]:
    """A line of modules.softdep: `softdep ext4 pre: crc32c post: …`; the module, and what it wants before it."""
    _, name, *words = line.split()
    return name.replace("-", "_"), _before(words)


def _before(words: Sequence[str]) -> list[str]:
    found, wanted = [], False
    for word in words:
        if word in ("pre:", "post:"):
            wanted = word == "pre:"
        elif wanted:
            found.append(word.replace("-", "_"))
    return found


def _there(wishes: Iterable[str], files: Iterable[str]) -> list[str]:
    """Of what modules want before them, what is there.

    A wish may be an algorithm: ext4 wants crc32c, or crypto-crc32c by kernel; the module crc32c_generic has it.
    """
    there = set(files)
    plain = [wish.removeprefix("crypto_") for wish in wishes]
    return [name for wish in plain for name in (wish, f"{wish}_generic") if name in there]


def _modules(tree: Path) -> Iterator[Path]:
    """The modules of a tree, those in updates/ after those in kernel/, as depmod prefers them."""
    found: Iterable[Path] = tree.glob("**/*.ko*")
    return (path for path in sorted(found) if path.name.endswith(_PACKED) and path.is_file() and not path.is_symlink())


def _name(path: Path) -> str:
    """As modinfo(8) and the kernel name it: `virtio-rng.ko.xz` is virtio_rng."""
    return path.name.split(".ko")[0].replace("-", "_")


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8", "replace").splitlines() if path.is_file() else []


def _content(path: Path) -> bytes:
    """A module unpacked: the guest's init loads it as it is."""
    with archives.unpacked(path) as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST or not content.startswith(b"\x7fELF"):
        raise HarnessError(f"read the module {path.name}", "it is no ELF file, or larger than 64 MiB")
    return content


def _dependencies(module: Path) -> list[str]:
    """The names in the field depends of a module's section .modinfo."""
    found = re.search(rb"\0depends=([^\0]{0,4096})\0", module.read_bytes())
    names = found.group(1).decode("ascii", "replace") if found else ""
    return [name.replace("-", "_") for name in names.split(",") if name]


def _wishes(module: Path) -> list[str]:
    """What the fields softdep of a module's section .modinfo want before it; it can do without."""
    found = re.findall(rb"\0softdep=([^\0]{0,4096})(?=\0)", module.read_bytes())
    return [name for field in found for name in _before(field.decode("ascii", "replace").split())]
