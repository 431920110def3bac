"""Archives that are made here."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping


def tarred(files: Mapping[str, bytes]) -> bytes:
    """A tar archive of these files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()
