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
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError, errno_text
from harness.kernel import cgroups

PREFIX = "msp-harness-"
_NASCENT = ".new-"
_NASCENT_SECONDS = 60
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
    """Clean up after dead runs, then own a directory and a cgroup until the end of the with block."""
    clean()
    identity = secrets.token_hex(4)
    home = directory() / identity
    group = cgroup_root / f"{PREFIX}{identity}"
    lock = _found(home, group)
    try:
        cgroups.make(group)
        yield Run(identity, home, group)
    finally:
        _remove(home)
        os.close(lock)


def _found(home: Path, group: Path) -> int:
    """Make a run's directory, locked before anybody can see it under its name; gives the lock's descriptor."""
    nascent = home.with_name(f"{_NASCENT}{home.name}")
    try:
        nascent.mkdir(parents=True, mode=0o700)
        lock = os.open(nascent / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        (nascent / "cgroup").write_text(f"{group}\n")
        nascent.rename(home)
    except OSError as error:
        shutil.rmtree(nascent, ignore_errors=True)
        remedy = "make room there, or point MSP_HARNESS_STATE to another directory"
        raise HarnessError(f"keep state in {home}", errno_text(error.errno or 0), remedy) from error
    return lock


def clean() -> list[str]:
    """Remove what dead runs left; the ids of those runs."""
    removed = []
    for home in sorted(directory().iterdir()) if directory().is_dir() else []:
        lock = _lock_of_a_dead_run(home)
        if lock is not None:
            _remove(home)
            os.close(lock)
            removed.append(home.name)
    return removed


def _lock_of_a_dead_run(home: Path) -> int | None:
    """A run's lock, now ours, when the run is dead; None while it lives or when somebody else cleans up."""
    if home.name.startswith(_NASCENT) and time.time() - home.stat().st_mtime < _NASCENT_SECONDS:
        return None  # just being made, perhaps not locked yet
    try:
        lock = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:  # not a run's directory, or gone since it was listed
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
    if group is not None and group.name == PREFIX + home.name.removeprefix(
        _NASCENT
    ):  # never anything with another name
        remove_cgroup(group)
    shutil.rmtree(home, ignore_errors=True)


def remove_cgroup(group: Path) -> None:
    """End every process in a cgroup of ours and remove it with those below."""
    deadline = time.monotonic() + _PATIENCE
    while group.is_dir():
        for directory_below in cgroups.tree(group):
            for pid in cgroups.processes(directory_below):
                if pid not in (0, os.getpid()):
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
            try:
                directory_below.rmdir()
            except OSError as error:
                if error.errno not in (errno.EBUSY, errno.ENOENT):
                    raise
        if group.is_dir():
            if time.monotonic() > deadline:
                raise HarnessError(f"remove cgroup {group}", "EBUSY: processes in it do not end", "end them by hand")
            time.sleep(0.005)
