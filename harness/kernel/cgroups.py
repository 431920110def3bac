"""Where cgroup2 is: its mounts, the layout of the machine, and directories of the run's own."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError, errno_text

CONFIGURED_ROOT = Path("/sys/fs/cgroup")
"""The agent's default cgroupRoot, used when findmnt gives nothing."""


@dataclass(frozen=True)
class Mount:
    """A line of /proc/self/mountinfo: root is the directory of the file system that is mounted at point."""

    point: Path
    root: str
    type: str
    options: str
    super_options: str = ""


def _unescape(word: str) -> str:
    """mountinfo writes blanks, tabs, newlines and backslashes as three octal digits."""
    return re.sub(r"\\([0-3][0-7]{2})", lambda digits: chr(int(digits[1], 8)), word) if "\\" in word else word


def parse_mounts(text: str) -> list[Mount]:
    """The mounts of a mountinfo text, in its order; lines of another form are left out."""
    mounts = []
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        left, right = before.split(" "), after.split(" ")
        if dash and len(left) >= 6 and len(right) >= 2:
            options = right[2] if len(right) > 2 else ""
            mounts.append(Mount(Path(_unescape(left[4])), _unescape(left[3]), right[0], left[5], options))
    return mounts


def mounts() -> list[Mount]:
    return parse_mounts(Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace"))


@dataclass(frozen=True)
class Layout:
    """How cgroups are mounted: unified (v2 only), hybrid (v1 controllers, v2 beside them), legacy (v1), none."""

    name: str
    cgroup2: tuple[Mount, ...]  # in mount order: findmnt, and so the agent, takes the first
    v1: tuple[Mount, ...]

    @property
    def configured_root_type(self) -> str:
        """What is mounted at /sys/fs/cgroup: cgroup2, tmpfs …, or nothing."""
        return next((mount.type for mount in reversed(mounts()) if mount.point == CONFIGURED_ROOT), "nothing")


def layout(table: list[Mount] | None = None) -> Layout:
    table = mounts() if table is None else table
    cgroup2 = tuple(mount for mount in table if mount.type == "cgroup2")
    v1 = tuple(mount for mount in table if mount.type == "cgroup")
    names = {(True, False): "unified", (True, True): "hybrid", (False, True): "legacy", (False, False): "none"}
    return Layout(names[bool(cgroup2), bool(v1)], cgroup2, v1)


def supported() -> bool:
    """Whether the kernel has cgroup2 at all: the guide's `grep cgroup /proc/filesystems`."""
    return "cgroup2" in Path("/proc/filesystems").read_text().split()


def open_directory(path: Path) -> int:
    """A descriptor of a cgroup, for bpf(2). Raises HarnessError as the agent would say `Failed to open cgroup`."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise HarnessError(f"open cgroup {path}", errno_text(error.errno or 0), errno=error.errno or 0) from error


def make(path: Path) -> Path:
    try:
        path.mkdir()
    except OSError as error:
        remedy = "cgroup2 must be writable: in a container, run with --privileged and --cgroupns=host"
        raise HarnessError(
            f"make cgroup {path}", errno_text(error.errno or 0), remedy, errno=error.errno or 0
        ) from error
    return path


def move(pid: int, path: Path) -> None:
    """Put a process (0: the caller) into a cgroup."""
    try:
        (path / "cgroup.procs").write_text(str(pid))
    except OSError as error:
        attempted = f"move process {pid} to cgroup {path}"
        raise HarnessError(attempted, errno_text(error.errno or 0), errno=error.errno or 0) from error


def tree(path: Path) -> Iterator[Path]:
    """A cgroup and those below it, the deepest first."""
    for directory, _, _ in os.walk(path, topdown=False):
        yield Path(directory)


def processes(path: Path) -> list[int]:
    """The pids in a cgroup itself; 0 stands for a process of another pid namespace."""
    try:
        return [int(pid) for pid in (path / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def kill(path: Path) -> bool:
    """SIGKILL every process in a cgroup and below, but not the caller; whether there was one.

    A process may fork while it is being killed: ask again until there is none.
    """
    found = [pid for group in tree(path) for pid in processes(group) if pid not in (0, os.getpid())]
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(found)


def own(mount: Mount) -> Path:
    """The caller's cgroup under this mount."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return mount.point / line[3:].lstrip("/")
    return mount.point


def ancestors(path: Path, root: Path) -> list[Path]:
    """The cgroups from root down to path, both included."""
    below = path.relative_to(root).parts
    return [root.joinpath(*below[:depth]) for depth in range(len(below) + 1)]
