"""What nobody asks for any more: entries that each change of code makes anew, the least recently used first."""

from __future__ import annotations

from pathlib import Path

from harness.vm import cache


def all_but(count: int, kind: str) -> None:
    """Keep this many entries of a kind, those that were used last, and whatever somebody uses now."""
    for entry in sorted(cache.entries(kind), key=last_use, reverse=True)[count:]:
        cache.remove(kind, entry.name)


def last_use(entry: Path) -> float:
    """When it was used last, in seconds since the epoch; 0 for one that is being removed."""
    for path in (entry / cache.USED, entry):
        try:
            return path.stat().st_mtime
        except OSError:
            continue
    return 0
