"""What find(1) in the appliance tells of every name, as entries of a Tree; and the names' text.

Names come from a stranger: what is not printable in them, or not UTF-8, is written out (\\xff), so that no terminal and
no report gets it. The bytes are kept beside for as long as contents are fetched.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.image.tree import Entry, Kind

FORMAT = r"%y %m %U %G %s %p\0%l\0"
"""For find's -printf: type, mode in octal, owner, group, size, the path, a link's target."""
NAME_ONLY = r"%y - - - - %p\0%l\0"
"""The same without what takes a look at the inode: under TCG that is most of the time."""

_KINDS = {"f": Kind.FILE, "d": Kind.DIRECTORY, "l": Kind.LINK}


@dataclass(frozen=True)
class Named:
    """A name as it was found: raw is the path's bytes, relative to the system's root."""

    raw: bytes
    entry: Entry


def text(name: bytes) -> str:
    """A name as text that can be printed."""
    shown = name.decode("utf-8", "backslashreplace")
    return shown if shown.isprintable() else "".join(each if each.isprintable() else _hex(each) for each in shown)


def _hex(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))


def parse(listed: bytes) -> Iterator[tuple[str, Named]]:
    """Paths with what they are. A record that is cut off, the last of a list that is too long, is left out."""
    fields = listed.split(b"\0")
    for head, target in zip(fields[:-1:2], fields[1:-1:2], strict=False):
        words = head.split(b" ", 5)
        if len(words) != 6:
            continue
        known = words[1] != b"-"
        try:
            mode, uid, gid, size = (int(words[1], 8), *map(int, words[2:5])) if known else (0, 0, 0, 0)
        except ValueError:
            continue
        kind = _KINDS.get(words[0].decode("ascii", "replace"), Kind.OTHER)
        raw = words[5].removeprefix(b"./")
        path = "/" if raw == b"." else f"/{text(raw)}"
        yield path, Named(raw, Entry(kind, mode, uid, gid, size, text(target), known=known))
