"""What is made once and kept: each entry appears whole, under one lock, or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import HarnessError, errno_text
from harness.program import headers

_REMEDY = "make room there, run as root, or name another directory with MSP_HARNESS_CACHE"


def directory() -> Path:
    """Where kernels and guests are kept: below MSP_HARNESS_CACHE, or below the cache of the kernel headers."""
    return Path(os.environ.get("MSP_HARNESS_CACHE") or headers.CACHE) / "vm"


def kept(kind: str, name: str, make: Callable[[Path], None]) -> Path:
    """The entry kind/name of the cache. Where it is not there yet, make fills a directory, which is then renamed.

    One process at a time makes an entry; what a killed one left half done is removed by the next. Raises HarnessError
    when the cache cannot be written, and whatever make raises.
    """
    place = directory() / kind
    entry, work = place / name, place / f".{name}.unfinished"
    if entry.is_dir():
        return entry
    try:
        with locked(kind, name):
            if not entry.is_dir():  # nobody was quicker
                shutil.rmtree(work, ignore_errors=True)
                work.mkdir()
                make(work)
                work.rename(entry)
    except OSError as error:
        number = error.errno or 0
        happened = f"{errno_text(number)}: {error.filename or error}"
        raise HarnessError(f"keep {name} in {place}", happened, _REMEDY, errno=number) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return entry


@contextmanager
def locked(kind: str, name: str) -> Iterator[None]:
    """One process at a time works on kind/name. The kernel lets go of the lock when its holder dies."""
    place = directory() / kind
    place.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(place / f".{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
