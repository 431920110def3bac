"""What is made once and kept: each entry appears whole, under one lock, or not at all.

Who uses an entry holds a shared lock on its directory until the process ends, so that nobody removes it meanwhile.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.errors import HarnessError, errno_text
from harness.program import headers

USED = ".used"
"""An empty file in an entry; its time of change is that of the last use."""

_REMEDY = "make room there, run as root, or name another directory with MSP_HARNESS_CACHE"
_UNFINISHED, _LOCK = ".unfinished", ".lock"
_FULL = 1 << 20  # bytes: with less than this free, whatever failed failed of that

_held: dict[Path, int] = {}


class Busy(Exception):
    """Another process has the lock."""


def directory() -> Path:
    """Where kernels and guests are kept: below MSP_HARNESS_CACHE, or below the cache of the kernel headers.

    A user who may not write there has a cache of their own: below XDG_CACHE_HOME, or ~/.cache.
    """
    named = os.environ.get("MSP_HARNESS_CACHE")
    if named:
        return Path(named) / "vm"
    return shared() if _writable(shared()) else _own()


def shared() -> Path:
    """The machine's cache, which root writes and others may read."""
    return headers.CACHE / "vm"


def _writable(place: Path) -> bool:
    there = next((each for each in (place, *place.parents) if each.exists()), place)
    return os.access(there, os.W_OK | os.X_OK)


def _own() -> Path:
    named = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(named) if named.startswith("/") else Path(os.environ.get("HOME") or "/nonexistent") / ".cache"
    return base / "msp-harness" / "vm"


def kept(kind: str, name: str, make: Callable[[Path], None], damage: Callable[[Path], str] = lambda entry: "") -> Path:
    """The entry kind/name of the cache. Where it is not there yet, make fills a directory, which is then renamed.

    damage says what is wrong with an entry that is there, or nothing; one with damage is made anew. One process at a
    time makes an entry; what a killed one left half done is removed by the next. Raises HarnessError when the cache
    cannot be written, and whatever make raises.
    """
    place = directory() / kind
    entry, work = place / name, place / f".{name}{_UNFINISHED}"
    if hold(entry) and not damage(entry):
        return entry
    attempted = f"keep {name} in {place}"
    while True:
        with writing(attempted), locked(kind, name):
            shutil.rmtree(work, ignore_errors=True)
            try:
                if not entry.is_dir() or damage(entry):  # nobody was quicker
                    with writing(attempted):  # a full disk is one before this work is removed
                        work.mkdir()
                        make(work)
                        _discard(entry)
                        work.rename(entry)
            finally:
                shutil.rmtree(work, ignore_errors=True)
        if hold(entry):  # nobody removed it just then
            return entry


def name(content: object) -> str:
    """A name for what depends on this content, which JSON can say: 16 hex digits of its SHA-256."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def hold(entry: Path) -> bool:
    """Keep an entry from being removed until this process ends; False where there is none."""
    before = _held.get(entry)
    if before is not None and _is_still(before, entry):
        return True
    try:
        descriptor = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    if not _is_still(descriptor, entry):  # removed meanwhile
        os.close(descriptor)
        return False
    if before is not None:
        os.close(before)
    _held[entry] = descriptor
    with suppress(OSError):  # a cache that is read only
        (entry / USED).touch()
    return True


def _is_still(descriptor: int, path: Path) -> bool:
    """Whether the path still leads to the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _locks(descriptor: int, operation: int) -> bool:
    """flock(2): False where another process has it and there is no waiting."""
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        return False
    return True


@contextmanager
def writing(attempted: str) -> Iterator[None]:
    """Around what writes to the cache: a disk that is full or read only is told as that, with what to do."""
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        happened = f"{errno_text(number)}: {error.filename or error}"
        raise HarnessError(attempted, happened, _REMEDY, errno=number) from error
    except HarnessError as error:
        if error.errno == errno.ENOSPC or not full():
            raise
        happened = f"{errno_text(errno.ENOSPC)}: {directory()}"
        raise HarnessError(attempted, happened, _REMEDY, errno=errno.ENOSPC, detail=str(error)) from error


def full() -> bool:
    """Whether whatever was written to the cache may have failed of there being no room."""
    try:
        status = os.statvfs(directory())
    except OSError:
        return False
    return status.f_bavail * status.f_frsize < _FULL


@contextmanager
def locked(kind: str, name: str, *, wait: bool = True) -> Iterator[None]:
    """One process at a time works on kind/name. The kernel lets go of the lock when its holder dies.

    Raises Busy where another has it and this one is not to wait.
    """
    place = directory() / kind
    place.mkdir(parents=True, exist_ok=True)
    path = place / f".{name}{_LOCK}"
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _locks(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB)):
                raise Busy
            if not _is_still(descriptor, path):  # its last holder removed it
                continue
            yield
            return
        finally:
            os.close(descriptor)


def note(place: Path, content: str | bytes) -> None:
    """Keep something small that can be found out again: whole or not at all. That there is no room does no harm."""
    work = place.with_name(f".{place.name}.{os.getpid()}")
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        work.write_bytes(content.encode() if isinstance(content, str) else content)
        work.replace(place)


def entries(kind: str) -> list[Path]:
    """The whole entries of a kind, by name."""
    place = directory() / kind
    if not place.is_dir():
        return []
    return sorted(path for path in place.iterdir() if path.is_dir() and path.name[0] != "." and not path.is_symlink())


def unfinished(kind: str) -> list[str]:
    """The names of entries that were begun: somebody is at it, or was killed. Names of locks alone are among them."""
    place = directory() / kind
    if not place.is_dir():
        return []
    names = {path.name for path in place.iterdir() if path.name[0] == "."}
    found = {name.removesuffix(end)[1:] for name in names for end in (_UNFINISHED, _LOCK) if name.endswith(end)}
    return sorted(name for name in found if not (place / name).is_dir())


def unfinished_size(kind: str, name: str) -> int:
    """Bytes on disk of what was begun of an entry."""
    work = directory() / kind / f".{name}{_UNFINISHED}"
    return size(work) if work.is_dir() else 0


def in_use(entry: Path) -> bool:
    """Whether another process, or this one, holds an entry."""
    try:
        descriptor = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _locks(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


def is_locked(kind: str, name: str) -> bool:
    """Whether another process is at work on kind/name."""
    try:
        with locked(kind, name, wait=False):
            return False
    except Busy:
        return True


def remove(kind: str, name: str) -> bool:
    """Remove an entry, or what a killed process left of one; False where somebody uses it or makes it."""
    place = directory() / kind
    entry = place / name
    try:
        with locked(kind, name, wait=False):
            if entry.is_dir() and not _discard(entry, only_unused=True):
                return False
            shutil.rmtree(place / f".{name}{_UNFINISHED}", ignore_errors=True)
            (place / f".{name}{_LOCK}").unlink(missing_ok=True)
            return True
    except Busy:
        return False


def _discard(entry: Path, *, only_unused: bool = False) -> bool:
    """Take an entry away, under its lock. It has another name before the first file of it goes."""
    away = entry.with_name(f".{entry.name}{_UNFINISHED}")
    if away.exists():  # the work that is to replace it
        away = entry.with_name(f".{entry.name}.old{_UNFINISHED}")
        shutil.rmtree(away, ignore_errors=True)
    try:
        descriptor = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        if only_unused and not _locks(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB):
            return False
        entry.rename(away)
    finally:
        os.close(descriptor)
    shutil.rmtree(away, ignore_errors=True)
    return True


def size(path: Path) -> int:
    """Bytes that a directory or file takes on disk; of a file that has other names too, this one's share."""
    found = [each.lstat() for each in ([path, *path.rglob("*")] if path.is_dir() else [path])]
    return sum(each.st_blocks * 512 // (each.st_nlink if stat.S_ISREG(each.st_mode) else 1) for each in found)
