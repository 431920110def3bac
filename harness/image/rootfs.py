"""A root file system that is no disk: a directory, a tar archive, an OCI layout, or what `docker save` wrote."""

from __future__ import annotations

from collections.abc import Callable

from harness.errors import HarnessError
from harness.image.image import Image
from harness.image.source import Source


def read(source: Source, tell: Callable[[str], object]) -> Image:
    """Raises HarnessError where it cannot be read."""
    raise HarnessError(f"read {source.path.name}", f"{source.format} is not read yet")
