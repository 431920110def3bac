"""Building a kernel from the distribution's source: fetched, patched, configured, compiled, stripped.

All lab kernels are built in one tree below the cache, one after the other: make compiles what a changed option touches,
and ccache the rest. The build runs in a pid namespace of its own, so that nothing of it survives a kill; what a killed
build left in the tree is thrown away by the next.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness import interruption
from harness.command import run, text
from harness.errors import HarnessError
from harness.kernel import packages, processes
from harness.vm import cache, kernels
from harness.vm.apt import Apt

SUITE, PACKAGE = "bullseye", "linux-source-5.10"
RECIPES = Path(__file__).parent / "labkernels"
BASE = RECIPES / "base.config"
PATCH = RECIPES / "lab.patch"

_ENVIRONMENT = {  # the same bytes whenever, wherever and by whomever it is built
    "KBUILD_BUILD_TIMESTAMP": "1970-01-01",
    "KBUILD_BUILD_USER": "msp-harness",
    "KBUILD_BUILD_HOST": "lab",
    "KBUILD_BUILD_VERSION": "1",
    "LC_ALL": "C.UTF-8",
    "ARCH": "x86_64",
}
_PROGRAMS = {
    "gcc": packages.GCC,
    "make": packages.MAKE,
    "flex": packages.FLEX,
    "bison": packages.BISON,
    "bc": packages.BC,
    "pahole": packages.PAHOLE,
    "patch": packages.PATCH,
    "xz": packages.XZ,
}
_LIBELF = Path("/usr/include/gelf.h")
_UNPACK_SECONDS = 600
_CONFIGURE_SECONDS = 300
_UNFINISHED = ".unfinished"  # in the tree while something is built there
_STEP = re.compile(r"  (?:CC|AS|LD|AR|BTF) ")
_LAST_LINES = 20


@dataclass(frozen=True)
class Source:
    """The kernel's source as its package has it."""

    version: str
    archive: Path


def source(tell: Callable[[str], None], *, refresh: bool = False) -> Source:
    """The source, from the cache where it is there and refresh is not asked for, else by apt."""
    found = None if refresh else kept_source()
    if found is not None:
        return found
    with cache.locked("apt", SUITE):
        apt = Apt(SUITE, cache.directory() / "apt" / SUITE)
        apt.update()
        version = apt.show(PACKAGE)["Version"]
        tell(f"fetching {PACKAGE} {version} of {SUITE}")
        entry = cache.kept("sources", f"{PACKAGE}_{version.replace(':', '%')}", lambda place: _fetch(apt, place))
    os.utime(entry)  # the newest is the one that was asked for last
    return Source(version, entry / "source.tar.xz")


def kept_source() -> Source | None:
    """The source that was fetched last, where the cache has one."""
    found = sorted((cache.directory() / "sources").glob(f"{PACKAGE}_*"), key=lambda entry: entry.stat().st_mtime)
    if not found:
        return None
    return Source(found[-1].name.removeprefix(f"{PACKAGE}_").replace("%", ":"), found[-1] / "source.tar.xz")


def _fetch(apt: Apt, place: Path) -> None:
    unpacked, download = place / "unpacked", place / "download"
    run(["dpkg-deb", "-x", apt.download(PACKAGE, download), unpacked], timeout=_UNPACK_SECONDS)
    (unpacked / "usr" / "src" / f"{PACKAGE}.tar.xz").rename(place / "source.tar.xz")
    shutil.rmtree(unpacked)
    shutil.rmtree(download)


def tools() -> str:
    """The programs on which a kernel's bytes depend, with their versions. Raises HarnessError where one is missing."""
    missing = [need for program, need in _PROGRAMS.items() if shutil.which(program) is None]
    missing += [packages.LIBELF] if not _LIBELF.exists() else []
    if missing:
        names = ", ".join(packages.WHAT[need] for need in missing)
        raise HarnessError("build a lab kernel", f"there is no {names}", packages.install_hint(missing))
    commands = (["gcc", "--version"], ["ld", "--version"], ["pahole", "--version"])
    return "; ".join(text(run(command).stdout).splitlines()[0] for command in commands)


def build(fragment: Path | None, origin: str, source: Source, place: Path, tell: Callable[[str], None]) -> None:
    """Build a kernel into a directory that is to be an entry of the cache. Raises HarnessError."""
    fragments = [BASE, *([fragment] if fragment is not None else [])]
    with cache.locked("lab", "tree"):
        tree = _tree(source, tell)
        unfinished = tree / _UNFINISHED
        if unfinished.exists():
            tell("an earlier build was killed: its objects are thrown away")
            _make(tree, ["clean"], lambda line: None)
        unfinished.touch()
        _configure(tree, fragments)
        tell(f"compiling {origin}")
        _compile(tree, origin, tell)
        unfinished.unlink()
        release = (tree / "include" / "config" / "kernel.release").read_text().strip()
        run(["objcopy", "-S", tree / "vmlinux", place / "vmlinux"])
        modules = place / "modules" / "lib" / "modules" / release
        modules.mkdir(parents=True)
        for name in ("modules.builtin", "modules.builtin.modinfo"):
            shutil.copy2(tree / name, modules / name)
        shutil.copy2(tree / ".config", place / "config")
    (modules / "modules.order").write_text("")  # nothing is a module
    run(["depmod", "-b", place / "modules", release])
    kernels.complete(place, release, origin, "built here from the distribution's source, which apt checked")


def _tree(source: Source, tell: Callable[[str], None]) -> Path:
    """The patched source, unpacked when it is not there; trees of other sources and patches are removed."""
    place = cache.directory() / "lab"
    key = hashlib.sha256(f"{source.version} {PATCH.read_text()}".encode()).hexdigest()[:16]
    tree, unfinished = place / f"tree-{key}", place / "tree.unfinished"
    if tree.is_dir():
        return tree
    for other in (*place.glob("tree-*"), unfinished):
        shutil.rmtree(other, ignore_errors=True)
    tell(f"unpacking {PACKAGE} {source.version}")
    unfinished.mkdir()
    run(["tar", "-xf", source.archive, "-C", unfinished, "--strip-components=1"], timeout=_UNPACK_SECONDS)
    run(["patch", "-s", "-p1", "-d", unfinished, "-i", PATCH])
    unfinished.rename(tree)
    return tree


def _configure(tree: Path, fragments: Sequence[Path]) -> None:
    """Write .config: tinyconfig, each fragment over it, defaults for the rest. Each line of the fragments must hold."""
    wanted = lines_of(fragments)
    _make(tree, ["tinyconfig"], lambda line: None)
    with (tree / ".config").open("a") as file:  # of two lines for an option Kconfig takes the last
        file.write("".join(f"{line}\n" for line in wanted.values()))
    _make(tree, ["olddefconfig"], lambda line: None)
    lost = lost_lines(wanted, (tree / ".config").read_text())
    if lost:
        happened = f"Kconfig did not take {', '.join(lost)}"
        raise HarnessError("configure a lab kernel", happened, "mend the fragment: something that it needs is off")


def lines_of(fragments: Sequence[Path]) -> dict[str, str]:
    """Each option of the fragments with its line, the later fragment before the earlier."""
    found = {}
    for fragment in fragments:
        for line in fragment.read_text().splitlines():
            if match := re.match(r"(CONFIG_\w+)=.|# (CONFIG_\w+) is not set$", line):
                found[match[1] or match[2]] = line
    return found


def lost_lines(wanted: dict[str, str], config: str) -> list[str]:
    """The lines that a configuration does not have. An option that is not there at all is not set."""
    there = set(config.splitlines())
    options = {line.partition("=")[0] for line in there}
    return [
        line
        for option, line in wanted.items()
        if (line.startswith("#") and option in options) or (not line.startswith("#") and line not in there)
    ]


def _compile(tree: Path, origin: str, tell: Callable[[str], None]) -> None:
    compiler = "ccache gcc" if shutil.which("ccache") else "gcc"
    jobs = len(os.sched_getaffinity(0))
    done = 0

    def count(line: str) -> None:
        nonlocal done
        if _STEP.match(line):
            done += 1
            if done % 100 == 0:
                tell(f"{origin}: {done} steps, {line.split()[-1]}")

    _make(tree, [f"-j{jobs}", f"CC={compiler}", f"HOSTCC={compiler}", "vmlinux"], count)


def _make(tree: Path, words: Sequence[str], each: Callable[[str], None]) -> None:
    """Run make in the tree, give each line of its output, and raise HarnessError with the last ones when it fails."""
    caching = {
        "CCACHE_DIR": str(tree.parent / "ccache"),
        "CCACHE_BASEDIR": str(tree),  # a tree elsewhere finds the same
        "CCACHE_NOHASHDIR": "1",
        "CCACHE_COMPILERCHECK": "content",
        "CCACHE_MAXSIZE": "2G",
    }
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "nice", "make", "-C", str(tree), *words]
    parent, last = os.getpid(), list[str]()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **_ENVIRONMENT, **caching},
        preexec_fn=lambda: processes.die_with_parent(parent),
    )
    try:
        assert process.stdout is not None
        for line in map(text, process.stdout):
            each(line)
            last = [*last[1 - _LAST_LINES :], line]
        status = process.wait()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    interruption.check()
    if status:
        error = next((line.strip() for line in last if "error" in line.lower()), (last or ["no output"])[-1].strip())
        raise HarnessError(f"run `make {' '.join(words)}`", f"exit status {status}: {error}", detail="".join(last))
