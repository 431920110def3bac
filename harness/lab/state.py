"""What a run owns on the machine: a directory of state with a lock, and cgroups with its name.

A run is alive while it holds its lock, which the kernel lets go when the process ends, however it ends. So the next
run can tell what a dead one left, and removes that and nothing else.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError, errno_text
from harness.kernel import cgroups, processes

PREFIX = "msp-harness-"
_LOCK = "lock"
_PATIENCE = 2.0  # seconds for killed processes to leave their cgroup


def directory() -> Path:
    """Where runs keep their state; a tmpfs on every systemd machine, so a reboot leaves nothing."""
    return Path(os.environ.get("MSP_HARNESS_STATE", "/run/msp-harness"))


@dataclass(frozen=True)
class Run:
    """A living run: its id, its directory, and its cgroup (below which all its others are)."""

    id: str
    directory: Path
    cgroup: Path


@contextmanager
def begin(cgroup_root: Path) -> Iterator[Run]:
    """Clean up after dead runs, then own a directory and a cgroup until the end of the with block.

    A run that was prepared for this root is taken over; its id is new, and it ends with the process: what it leaves is
    the next run's to remove.
    """
    identity = secrets.token_hex(4)
    made = _PREPARED.pop(cgroup_root, None)
    if made is not None:
        yield Run(identity, made.directory, made.cgroup)
        return
    clean()
    home = directory() / identity
    group = cgroup_root / f"{PREFIX}{identity}"
    lock = -1
    try:
        lock = _found(home, group)
        cgroups.make(group)
        yield Run(identity, home, group)
    finally:
        with processes.signals_held():
            _remove(home)
            if lock >= 0:
                os.close(lock)


_PREPARED: dict[Path, Run] = {}
"""Runs that wait for their begin(), by the root of their cgroups."""


def prepare(cgroup_root: Path) -> Run:
    """Make a run that this process's next begin() at this root takes over, however much later: a guest is saved so.

    There is one at most for each root. Raises HarnessError as begin() does.
    """
    if cgroup_root not in _PREPARED:
        identity = secrets.token_hex(4)
        home, group = directory() / identity, cgroup_root / f"{PREFIX}{identity}"
        _found(home, group)  # its lock is held as long as this process lives
        cgroups.make(group)
        _PREPARED[cgroup_root] = Run(identity, home, group)
    return _PREPARED[cgroup_root]


def _found(home: Path, group: Path) -> int:
    """Make a run's directory and lock it; gives the lock's descriptor."""
    try:
        directory().mkdir(parents=True, exist_ok=True, mode=0o700)
        with _register():
            home.mkdir(mode=0o700)
            lock = os.open(home / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
        (home / "cgroup").write_text(f"{group}\n")
    except OSError as error:
        remedy = "make room there, or point MSP_HARNESS_STATE to another directory"
        raise HarnessError(f"keep state in {home}", errno_text(error.errno or 0), remedy) from error
    return lock


@contextmanager
def _register() -> Iterator[None]:
    """Held while a run appears and while runs are judged, so that none is judged between its birth and its lock."""
    register = os.open(directory() / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(register, fcntl.LOCK_EX)
        yield
    finally:
        os.close(register)


def clean() -> list[str]:
    """Remove what dead runs left; the ids of those runs."""
    if not directory().is_dir():
        return []
    with _register():
        dead = {home: lock for home in _homes() if (lock := _lock_of_a_dead_run(home)) is not None}
    for home, lock in dead.items():
        _remove(home)
        os.close(lock)
    return [home.name for home in dead]


def _homes() -> list[Path]:
    return sorted(path for path in directory().iterdir() if path.is_dir() and not path.is_symlink())


def _lock_of_a_dead_run(home: Path) -> int | None:
    """A run's lock, now ours, when the run is dead; None while it lives or when somebody else cleans up."""
    try:
        lock = os.open(home / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:  # a run that has just removed itself
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _remove(home: Path) -> None:
    """Take away a run's processes, cgroups and directory."""
    try:
        group = Path((home / "cgroup").read_text().strip())
    except OSError:
        group = None
    if group is not None and group.name == PREFIX + home.name:  # never anything with another name
        remove_cgroup(group)
    shutil.rmtree(home, ignore_errors=True)


def remove_cgroup(group: Path) -> None:
    """End every process in a cgroup of ours and remove it with those below."""
    deadline = time.monotonic() + _PATIENCE
    while group.is_dir():
        cgroups.kill(group)
        for directory_below in cgroups.tree(group):
            try:
                directory_below.rmdir()
            except OSError as error:
                if error.errno not in (errno.EBUSY, errno.ENOENT):
                    raise
        if group.is_dir():
            if time.monotonic() > deadline:
                raise HarnessError(f"remove cgroup {group}", "EBUSY: processes in it do not end", "end them by hand")
            time.sleep(0.005)
