"""The text to explain: a file's or standard input's, up to a limit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

from harness.errors import HarnessError, errno_text

LARGEST = 64 << 20  # bytes; a verifier log is at most 16 MB, an agent's log is rotated long before


def read(name: str, stdin: BinaryIO | None = None) -> bytes:
    """The bytes of a file, or of standard input for `-`; of more than 64 MiB the last 64.

    The end is kept since a log's reason stands there. Raises HarnessError when the file cannot be read.
    """
    try:
        if name == "-":
            return (stdin or sys.stdin.buffer).read()[-LARGEST:]
        with Path(name).open("rb") as file:
            if file.seekable():  # a pipe or /proc file is not, or has no size
                size = file.seek(0, 2)
                file.seek(max(0, size - LARGEST))
            return file.read(LARGEST)
    except OSError as error:
        raise HarnessError(
            f"read {name}",
            errno_text(error.errno or 0),
            "give a verifier log, a status.json or the agent's log, or - for standard input",
            errno=error.errno or 0,
        ) from error
