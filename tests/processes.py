"""The processes of a test: whether one outlives it. Others of pytest (a kernel being built) are not its affair."""

from __future__ import annotations

import os
from pathlib import Path


def children() -> frozenset[int]:
    """The pids whose parent this process is, ended ones that nobody waited for among them."""
    return frozenset(_children())


def _children() -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            status = (folder / "stat").read_text()
        except OSError:  # it ended meanwhile
            continue
        if int(status.rpartition(")")[2].split()[1]) == os.getpid():  # proc(5): (comm) state ppid
            found.append(int(folder.name))
    return found
