"""The agent's log file: a line a message, uncut; a second file takes over what is old."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

LARGEST = 10 << 20  # bytes; then the file is moved to `.1`


class Log:
    """A log that cannot be written is no reason to end: the line is lost."""

    def __init__(self, path: Path):
        self._path = path
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, message: str, level: str = "info") -> None:
        line = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} [{level}] {message}\n".encode("utf-8", "replace")
        with contextlib.suppress(OSError):
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                os.write(file, line)
                if os.fstat(file).st_size > LARGEST:
                    self._path.replace(self._path.with_suffix(".log.1"))
            finally:
                os.close(file)
