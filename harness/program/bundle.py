"""A bundle: program images in one file, each under the hash of the source that it was compiled from.

A guest has neither BCC nor clang; it is given a bundle. MSP_HARNESS_PROGRAMS names the file. What is in it is used for
exactly that source (text, functions, definitions, headers), and for no other.

    msp-harness-programs 1
    DIGEST OF THE SOURCE  CHECKSUM OF THE REST  IMAGE AS JSON
    …
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError, errno_text
from harness.program.image import Image

VARIABLE = "MSP_HARNESS_PROGRAMS"
"""The environment variable with the path of a bundle."""

_HEAD = "msp-harness-programs 1"
_LARGEST = 64 << 20  # bytes; all of the harness's programs together have 0.2 MB
_REMEDY = f"make it again on the machine that has BCC, or unset {VARIABLE}"


def pack(images: Mapping[str, Image]) -> bytes:
    """The bundle of these images by their sources' digests."""
    lines = [_HEAD]
    for digest, image in sorted(images.items()):
        text = image.dump()
        lines.append(f"{digest} {_checksum(digest, text)} {text}")
    return "".join(f"{line}\n" for line in lines).encode()


def _checksum(digest: str, text: str) -> str:
    """Of the source's digest as well: an image that was moved to another source's line is noticed."""
    return hashlib.sha256(f"{digest} {text}".encode()).hexdigest()


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read; an image is taken apart only when it is wanted."""

    name: str
    rows: Mapping[str, tuple[str, str]]  # digest of the source → checksum, image

    @classmethod
    def parse(cls, data: bytes, name: str = "a bundle") -> Bundle:
        """Raises HarnessError for what is no bundle, or only a part of one."""
        attempted = f"read the programs of {name}"
        head, *lines = data.decode("utf-8", "replace").split("\n")
        if head != _HEAD:
            raise HarnessError(attempted, f"it is no bundle of this form: it does not begin with {_HEAD!r}", _REMEDY)
        if lines[-1:] != [""]:
            raise HarnessError(attempted, "its end is missing", _REMEDY)
        rows = {}
        for number, line in enumerate(lines[:-1], 2):
            digest, _, rest = line.partition(" ")
            checksum, _, text = rest.partition(" ")
            if not text or digest in rows:
                raise HarnessError(attempted, f"line {number} is no program, or one that was there before", _REMEDY)
            rows[digest] = (checksum, text)
        return cls(name, rows)

    def find(self, digest: str) -> Image | None:
        """The image of the source with this digest; None when it has none. Raises HarnessError for a damaged one."""
        row = self.rows.get(digest)
        if row is None:
            return None
        checksum, text = row
        if checksum != _checksum(digest, text):
            happened = f"it is damaged: the image of source {digest[:19]}… is not the one that was put there"
            raise HarnessError(f"use the programs of {self.name}", happened, _REMEDY)
        return Image.parse(text)


def given() -> Bundle | None:
    """The bundle that MSP_HARNESS_PROGRAMS names; None where it names none. Raises HarnessError when it cannot be read.

    Read once for each state of the file.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        return None
    try:
        status = Path(path).stat()
        return _read(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        happened = errno_text(error.errno or 0)
        raise HarnessError(f"read the programs of {path}", happened, _REMEDY, errno=error.errno or 0) from error


@functools.lru_cache(maxsize=1)
def _read(path: str, changed: int, size: int) -> Bundle:
    if size > _LARGEST:
        raise HarnessError(f"read the programs of {path}", f"it has {size} bytes", _REMEDY)
    return Bundle.parse(Path(path).read_bytes(), path)
