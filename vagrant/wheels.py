"""The wheels that set-up installs, fetched beforehand for a machine that reaches no package index."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from harness.command import run
from harness.vm import cache
from setup.environment import LEVELS

ROOT = Path(__file__).resolve().parent.parent
_SECONDS = 600


def get() -> Path:
    """The directory of the wheels that the runtime's locks name, for this Python; pip checks their hashes.

    Raises HarnessError in pip's words.
    """
    locks = [ROOT / name for name in LEVELS["runtime"]]
    digest = hashlib.sha256(repr(sys.version_info[:2]).encode() + b"".join(lock.read_bytes() for lock in locks))
    return cache.kept("wheels", digest.hexdigest()[:16], lambda place: _fetch(locks, place))


def _fetch(locks: list[Path], place: Path) -> None:
    words = [word for lock in locks for word in ("-r", str(lock))]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet", "download"]
    run([*pip, "--require-hashes", "--only-binary=:all:", "--no-deps", "-d", place, *words], timeout=_SECONDS)
