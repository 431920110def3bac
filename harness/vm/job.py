"""What a guest is to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from harness.errors import HarnessError


@dataclass(frozen=True)
class Job:
    """A command line of msp-harness for a guest, with the files that it names; the guest adds --json itself.

    Files go into the directory in which the command runs, and are named by their relative paths. fresh: by a cold
    boot, without a saved guest. timeout is in seconds from its start; None: what measured boots give.
    """

    arguments: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
    fresh: bool = False
    timeout: float | None = None

    def __post_init__(self) -> None:
        """Raises HarnessError for a file that would lie elsewhere."""
        for name in self.files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or not path.parts:
                raise HarnessError(f"give the guest {name!r}", "it is no relative path", "name a file in its directory")
