"""What find(1) in the appliance tells of every name, as entries of a Tree; and the names' text.

Names come from a stranger: what is not printable in them, or not UTF-8, is written out (\\xff), so that no terminal and
no report gets it. The bytes are kept beside for as long as contents are fetched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from harness.image.tree import Entry, Kind

FORMAT = r"%y %m %U %G %s %P\0%l\0"
"""For find's -printf: type, mode in octal, owner, group, size, the path below where it began, a link's target."""

_KINDS = {"f": Kind.FILE, "d": Kind.DIRECTORY, "l": Kind.LINK}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True)
class Named:
    """A name as it was found: raw is the path's bytes, without a slash at the begin."""

    raw: bytes
    entry: Entry


def text(name: bytes) -> str:
    """A name as text that can be printed."""
    shown = name.decode("utf-8", "backslashreplace")
    return _CONTROL.sub(lambda found: "".join(f"\\x{byte:02x}" for byte in _bytes(found.group())), shown)


def _bytes(character: str) -> bytes:
    return character.encode("utf-8", "surrogatepass")


def parse(listed: bytes, prefix: str = "/") -> Iterator[tuple[str, Named]]:
    """Paths with what they are. A record that is cut off, the last of a list that is too long, is left out."""
    fields = listed.split(b"\0")
    for head, target in zip(fields[:-1:2], fields[1:-1:2], strict=False):
        words = head.split(b" ", 5)
        if len(words) != 6:
            continue
        try:
            mode, uid, gid, size = int(words[1], 8), int(words[2]), int(words[3]), int(words[4])
        except ValueError:
            continue
        kind = _KINDS.get(words[0].decode("ascii", "replace"), Kind.OTHER)
        path = f"{prefix.rstrip('/')}/{text(words[5])}" if words[5] else prefix
        yield path, Named(words[5], Entry(kind, mode, uid, gid, size, text(target)))
