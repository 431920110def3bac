"""A rendered report into a file: all of it or none."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import sys
from pathlib import Path

from harness.errors import HarnessError, errno_text

STDOUT = "-"

_STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}
_OPENED = re.compile(r"/dev/(stdout|stderr)|/(dev|proc/self)/fd/(?P<number>[0-9]{1,9})")
"""Descriptors that are open already. When they are files, opening them again would begin at their start (and renaming
would replace the file that the shell opened), over what was printed before."""

_REMEDIES = {
    errno.ENOSPC: "free some space there or give a path on another file system",
    errno.EDQUOT: "free some of the quota or give a path on another file system",
    errno.EACCES: "give a path in a directory that you may write to",
    errno.EPERM: "give a path in a directory that you may write to",
    errno.EROFS: "that file system is read-only: give a path on another one",
    errno.ENOENT: "make the directory first",
    errno.ENOTDIR: "a part of the path is a file: give a path below a directory",
    errno.EISDIR: "that is a directory: give the name of a file in it",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EPIPE: "whoever reads it went away: the report is not complete there",
    errno.EBADF: "that descriptor is not open for writing: give another one or a path",
    errno.ENXIO: "nobody reads it: start the reader first",
}


def write(path: str | Path, text: str) -> None:
    """Write the text as UTF-8 to the path; `-` is stdout.

    A file appears whole, or stays as it was: the text goes to a temporary file beside it, which is then renamed. What
    is there and no regular file (a FIFO, /dev/stdout) is written to directly. A symbolic link is followed. A file that
    is there keeps its mode, a new one gets what the umask leaves. Raises HarnessError with errno.
    """
    data = text.encode("utf-8", "backslashreplace")
    try:
        if str(path) == STDOUT:
            _to_stdout(data)
        elif opened := _OPENED.fullmatch(str(path)):
            sys.stdout.flush()
            sys.stderr.flush()
            _all_of(_STREAMS.get(str(path), int(opened["number"] or 0)), data)
        elif _direct(path):
            _directly(path, data)
        else:
            _atomically(Path(os.path.realpath(path)), data)
    except OSError as error:
        number = error.errno or 0
        raise HarnessError(
            f"write the report to {'stdout' if str(path) == STDOUT else path}",
            errno_text(number),
            _REMEDIES.get(number, "give another path"),
            errno=number,
        ) from error
    except ValueError as error:  # a null byte in the path
        raise HarnessError(f"write the report to {str(path)!r}", str(error), "give another path") from error


def _direct(path: str | Path) -> bool:
    try:
        return not stat.S_ISREG(Path(path).stat().st_mode)
    except FileNotFoundError:
        return False


def _to_stdout(data: bytes) -> None:
    sys.stdout.flush()
    binary = getattr(sys.stdout, "buffer", None)
    if binary is None:  # a stream of text that somebody put in the place of stdout
        sys.stdout.write(data.decode())
    else:
        binary.write(data)
    sys.stdout.flush()


def _directly(path: str | Path, data: bytes) -> None:
    with Path(path).open("wb", buffering=0) as file:
        _all_of(file.fileno(), data)


def _all_of(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _atomically(path: Path, data: bytes) -> None:
    # tempfile's files are 0600; this one gets what the umask leaves, which cannot be read without setting it.
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        try:
            if path.exists():
                os.fchmod(descriptor, stat.S_IMODE(path.stat().st_mode))
            _all_of(descriptor, data)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise
