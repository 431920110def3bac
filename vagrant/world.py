"""A private world for Vagrant: boxes, libvirt and a copy of the project of its own, and namespaces that hold it all.

Everything lies in one directory of the cache, which its run keeps locked; the processes live in a pid namespace whose
first process the kernel ends with the run, however that ends, and all others with it. So a killed run leaves a
directory and no process, and the next run removes the directory. The network namespace has a loopback interface and
nothing else: no port of the host's is taken, and a guest reaches nothing.
"""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from harness import interruption
from harness.errors import HarnessError, errno_text
from harness.kernel import processes
from harness.vm import cache

ROOT = Path(__file__).resolve().parent.parent
USER, GROUP = "nobody", "nogroup"
"""Who runs Vagrant and libvirt: libvirt's session daemon refuses root."""

_KIND = "worlds"
_OF_USER = ("home", "project", "run", "vagrant", "tmp")
_NOT_COPIED = (".git", ".vagrant", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis")
_PATIENCE = 5.0  # seconds for the processes of a world that has just been killed to let go of its files


@dataclass(frozen=True)
class World:
    """A living world: its directory, and the descriptor whose lock says that it lives."""

    home: Path
    lock: int

    def run(self, words: Sequence[str]) -> int:
        """`python -m vagrant.inside DIRECTORY WORDS…` in namespaces of its own; gives its exit status."""
        command = [
            "setpriv", "--pdeathsig", "KILL",  # which unshare keeps
            "unshare", "--mount", "--net", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc",
            sys.executable, "-m", "vagrant.inside", str(self.home), *words,
        ]  # fmt: skip
        # A session of its own: Ctrl-C reaches this process alone, and it ends the others.
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True, pass_fds=[self.lock]
        )
        try:
            status = process.wait()
            interruption.check()
            return status
        finally:
            with processes.signals_held():
                _end(process)


@contextmanager
def begin() -> Iterator[World]:
    """Remove what dead worlds left, then own a directory with a copy of the project until the end of the with block."""
    sweep()
    place = cache.directory() / _KIND
    home = place / secrets.token_hex(4)
    lock = -1
    try:
        with _errors(home):
            with cache.locked(_KIND, "register"):
                home.mkdir(mode=0o755)
                lock = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
                fcntl.flock(lock, fcntl.LOCK_EX)
            _furnish(home)
        yield World(home, lock)
    finally:
        with processes.signals_held():
            _remove(home)
            if lock >= 0:
                os.close(lock)


@contextmanager
def _errors(home: Path) -> Iterator[None]:
    """An OSError as what a user can do something about."""
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        happened = f"{errno_text(number)}: {error.filename}"
        if isinstance(error, shutil.Error):  # of a whole tree: what each file met
            happened = f"{error.args[0][0][2]} (and {len(error.args[0]) - 1} more)"
        remedy = "make room there, or name another directory with MSP_HARNESS_CACHE"
        raise HarnessError(f"make a private world in {home}", happened, remedy, errno=number) from error


def sweep() -> list[str]:
    """Remove the worlds that no run owns any more; their names."""
    removed = []
    with cache.locked(_KIND, "register"):
        for home in sorted(path for path in (cache.directory() / _KIND).iterdir() if path.is_dir()):
            lock = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(home)
                removed.append(home.name)
            os.close(lock)
    return removed


def _furnish(home: Path) -> None:
    shutil.copytree(ROOT, home / "project", symlinks=True, ignore=shutil.ignore_patterns(*_NOT_COPIED))
    for name in _OF_USER:
        (home / name).mkdir(exist_ok=True)
    shutil.copy(Path(__file__).with_name("session.Vagrantfile"), home / "vagrant/Vagrantfile")
    settings = home / "home/.config/libvirt/qemu.conf"
    settings.parent.mkdir(parents=True)
    settings.write_text('stdio_handler = "file"\n')  # no virtlogd beside libvirtd


def hand_over(home: Path) -> None:
    """Give what Vagrant and libvirt work with to their user."""
    for name in _OF_USER:
        for path in (home / name, *(home / name).rglob("*")):
            os.chown(path, pwd.getpwnam(USER).pw_uid, grp.getgrnam(GROUP).gr_gid, follow_symlinks=False)
    (home / "run").chmod(0o700)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the first process of the namespace, and wait until unshare says that it is gone, and with it all others."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    with suppress(OSError):  # it has ended by itself
        while process.poll() is None:
            for child in children.read_text().split():
                os.kill(int(child), signal.SIGKILL)
            time.sleep(0.01)
    process.wait()


def _remove(home: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while home.exists():
        shutil.rmtree(home, ignore_errors=time.monotonic() < deadline)
