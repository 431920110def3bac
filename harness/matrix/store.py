"""Reports that are kept, each under the hash of all that it depends on.

A Report appears whole or not at all, and the moment its cell is done: an interrupted matrix finds there what it had,
and two matrices at once share what either finds out. What could not be found out is not kept: it is asked again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import harness
from harness.errors import HarnessError
from harness.program import source
from harness.report import Outcome, Report
from harness.report import json as report_json
from harness.report.write import write
from harness.vm import cache

_KEPT_DAYS = 90  # since it was last used


def harness_digest() -> str:
    """The hash of this package and of the C sources: whatever runs in a guest."""
    found = hashlib.sha256()
    for top in (Path(harness.__file__).parent, source.directory()):
        for path in sorted(top.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                content = path.read_bytes()
                found.update(f"{path.relative_to(top)}\0{len(content)}\0".encode() + content)
    return found.hexdigest()


def key(**parts: object) -> str:
    """The hash of everything that a Report depends on: whatever json.dumps takes."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def find(name: str) -> Report | None:
    """The Report kept under a key; None where there is none, or none that can be read."""
    path = _path(name)
    try:
        report = report_json.load(path.read_text())
    except (OSError, ValueError, HarnessError):  # ValueError: not UTF-8
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return report


def keep(name: str, report: Report) -> bool:
    """Keep a Report under a key, unless something in it could not be found out. False where it was not kept."""
    if report.count(Outcome.ERROR):
        return False
    path = _path(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, report_json.dump(report))
    except (OSError, HarnessError):  # a full disk costs the next run time, and this one nothing
        return False
    return True


def prune() -> None:
    """Remove what was not used for long, and what a killed writer left."""
    oldest = time.time() - _KEPT_DAYS * 86400
    with contextlib.suppress(OSError):
        for path in _path("x").parent.iterdir():
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < oldest:
                    path.unlink()


def last(question: Mapping[str, object]) -> Path:
    """Where the last matrix that answered this question is kept, to be compared with the next."""
    return cache.directory() / "matrices" / f"{key(**question)[:32]}.json"


def keep_last(question: Mapping[str, object], text: str) -> None:
    """Keep a matrix for the next run's comparison; a cache that cannot be written costs that only."""
    path = last(question)
    with contextlib.suppress(OSError, HarnessError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, text)


def _path(name: str) -> Path:
    return cache.directory() / "reports" / f"{name}.json"
