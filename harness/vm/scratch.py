"""Directories for the time of a block; what a killed run left of one is removed by the next."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def directory(name: str) -> Iterator[Path]:
    """A directory in the place for temporary files, for this user alone, with a lock that ends with its holder."""
    prefix = f"msp-harness-{name}-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError):
            _remove_unused(left)
    place, descriptor = _made(prefix)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(descriptor)


def _made(prefix: str) -> tuple[Path, int]:
    """A new directory and the descriptor that holds its lock."""
    while True:
        place = Path(tempfile.mkdtemp(prefix=prefix))
        with suppress(FileNotFoundError):  # another process took it for one that was left, before it had its lock
            descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if os.fstat(descriptor).st_nlink:
                return place, descriptor
            os.close(descriptor)


def _remove_unused(place: Path) -> None:
    """Remove a directory of this user's that nobody holds. Raises OSError where somebody does, or it is none."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_uid == os.geteuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(place, ignore_errors=True)
    finally:
        os.close(descriptor)
