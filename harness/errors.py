"""The one exception that carries a message for the user, and errno by name."""

from __future__ import annotations

import errno
import os


class HarnessError(Exception):
    """Something that was attempted and did not work: what, what happened, and what to do next.

    str() is one line, `cannot ATTEMPTED: HAPPENED; REMEDY`; detail holds whatever is longer than a line.
    """

    def __init__(self, attempted: str, happened: str, remedy: str | None = None, *, detail: str = "", errno: int = 0):
        super().__init__(f"cannot {attempted}: {happened}" + (f"; {remedy}" if remedy else ""))
        self.attempted = attempted
        self.happened = happened
        self.remedy = remedy
        self.detail = detail
        self.errno = errno


def errno_name(number: int) -> str:
    """`EBADF`; `errno 999` where the number has no name."""
    return errno.errorcode.get(number, f"errno {number}")


def errno_text(number: int) -> str:
    """`EBADF (Bad file descriptor)`."""
    return f"{errno_name(number)} ({os.strerror(number)})"
