"""From what a customer sends to Evidence. Being built: the readers come one by one; the interface stands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from harness.diagnose.facts import Evidence


def read(paths: Sequence[str | Path] = (), *, stdin: BinaryIO | None = None) -> Evidence:
    """The evidence in paths (directories, archives, files) or, for `-`, in standard input.

    Never raises for what is in them. Raises HarnessError when a path given is not there.
    """
    return Evidence(())


def read_bytes(data: bytes, name: str = "text") -> Evidence:
    """The evidence in one document: a file's bytes, an archive's, or a pasted text's. Never raises."""
    return Evidence(())
