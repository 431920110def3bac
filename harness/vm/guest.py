"""The guest's root file system: this machine's own suite with an interpreter and what this package imports.

It is made once and kept under the hash of its recipe. A guest never writes to it (it is mounted read-only), so that
any number of guests share one file. This package itself comes with each boot (harness.vm.initramfs): a change of code
needs no new root. The guest runs the same checks as the host: there is no second copy of them.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.command import run
from harness.errors import HarnessError
from harness.kernel import packages
from harness.vm import apt, cache, mmdebstrap

if TYPE_CHECKING:
    from importlib.metadata import Distribution

PACKAGES = ("python3", "libbpf1", "kmod", "curl", "busybox-static")
"""libbpf loads somebody's object; curl is a client of the census. Programs come compiled: there is no compiler."""

INTERPRETER = "python3"
"""The name of its file."""

_WITHOUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")
_PLACES = ("msp", "lib/modules")  # where a boot mounts what it brought
_MAKE_SECONDS = 900
_VERSION = 2  # of how a root is made, where the recipe does not show it


@dataclass(frozen=True)
class Guest:
    """What every kernel boots: the image of the root (ext4, read-only), a static busybox, and the recipe's hash.

    interpreter is one that has imported all already (harness.vm.interpreter), where there is one.
    """

    root: Path
    busybox: Path
    name: str
    interpreter: Path | None = None

    @property
    def drives(self) -> list[Path]:
        """What a guest reads and never writes to, as its disks."""
        return [self.root, *([] if self.interpreter is None else [self.interpreter])]

    def keeping(self, place: Path) -> Guest:
        """The same with its interpreter linked into a place, where it stays as long as what is saved there."""
        if self.interpreter is None:
            return self
        own = place / INTERPRETER
        try:
            own.hardlink_to(self.interpreter)
        except OSError:  # another file system, or one without links
            shutil.copyfile(self.interpreter, own)
        return replace(self, interpreter=own)

    def kept(self, place: Path) -> Guest:
        """What keeping() gave for this place."""
        own = place / INTERPRETER
        return replace(self, interpreter=own if own.exists() else None)


def get(tell: Callable[[str], None] = lambda line: None) -> Guest:
    """The guest for this machine's suite; the first time it takes about a minute to make, which tell is told.

    Raises HarnessError when a program for it is missing or the packages cannot be had.
    """
    suite = apt.codename()
    name = _name(suite)

    def make(place: Path) -> None:
        tell(f"making a root file system for guests, from {suite}'s packages")
        _make(suite, place)

    entry = cache.kept("guests", name, make)
    return Guest(entry / "root.ext4", entry / "busybox", name)


def _name(suite: str) -> str:
    """The suite and the recipe's hash. Reading what is installed is slow, so the answer is kept for each set of it."""
    recipe = [_VERSION, suite, PACKAGES, _WITHOUT, _PLACES, sys.version_info[:2]]
    places = [place for place in map(Path, sys.path) if place.is_dir()]
    installed = sorted(path.name for place in places for path in place.glob("*.dist-info"))
    known = cache.directory() / "guest-names" / cache.name([recipe, installed])
    with suppress(OSError):
        return known.read_text()
    wanted = {found.name: found.version for found in _requirements()}
    name = f"{suite}-{cache.name([recipe, wanted])}"
    cache.note(known, name)
    return name


def _require(command: str, need: str) -> None:
    if shutil.which(command) is None:
        raise HarnessError("make a guest", f"there is no {command}", packages.install_hint([need]))


def _make(suite: str, place: Path) -> None:
    _require("mke2fs", packages.E2FSPROGS)
    root = place / "root"
    mmdebstrap.unpack(suite, root, "essential", PACKAGES, [f"--dpkgopt=path-exclude={path}" for path in _WITHOUT])
    libraries = Path("usr", "lib", "python3", "dist-packages")
    for distribution in _requirements():
        _copy(distribution, root / libraries)
    # Without this a guest, whose root is read-only, would compile what it imports at each boot.
    compileall = ["python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", f"/{libraries}"]
    run(["chroot", root, *compileall], timeout=_MAKE_SECONDS, check=False)  # some files are templates, and no Python
    for directory in _PLACES:
        (root / directory).mkdir(parents=True, exist_ok=True)
    shutil.copy2(root / "bin" / "busybox", place / "busybox")
    for unwanted in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(root / unwanted, ignore_errors=True)
    used = sum(path.lstat().st_blocks * 512 for path in root.rglob("*"))
    blocks = (used + used // 5) // 4096 + 4096
    image = place / "root.ext4"
    # No journal: nothing is ever written there.
    run(["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-O", "^has_journal", "-d", root, image, str(blocks)], timeout=300)
    shutil.rmtree(root)


def _requirements() -> Iterator[Distribution]:
    """What this package requires, and what that requires, each once; extras are left out."""
    import importlib.metadata  # slow, and seldom needed

    seen, waiting = set(), [importlib.metadata.distribution("msp-harness")]
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


def _copy(distribution: Distribution, place: Path) -> None:
    """A distribution's files."""
    for file in distribution.files or ():
        target, origin = place / file, Path(str(distribution.locate_file(file)))
        if ".." not in file.parts and "__pycache__" not in file.parts and origin.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(origin, target)
