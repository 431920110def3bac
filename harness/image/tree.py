"""A file system tree in memory: the part of an image's system that is looked at, as it was read in the appliance.

Paths are absolute within the image. A symbolic link is followed as that system would follow it, with the image's root
as the top, so that none leads out of the tree. Checks see an image through this alone.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

_LINKS = 40  # that are followed for one path, as Linux has it


class Kind(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    OTHER = "other"  # a device, a socket, a pipe


@dataclass(frozen=True)
class Entry:
    """One name. data is None for a file whose content was not read: too large, or of no interest.

    mode holds the permission bits only. known is False where nothing but the name was read: kind is then a guess (a
    directory where names lie below it, else a file), and mode, uid, gid and size are 0.
    """

    kind: Kind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    target: str = ""  # of a link
    data: bytes | None = None
    attributes: Mapping[str, bytes] = field(default_factory=dict)  # extended ones: security.capability …
    known: bool = True


class Tree:
    """Entries by absolute path, "/" among them or not; parents that are missing are directories."""

    def __init__(self, entries: Mapping[str, Entry]):
        self._entries = dict(entries)
        self._names: dict[str, set[str]] = {}
        for path in list(self._entries):
            self._register(path)

    def _register(self, path: str) -> None:
        while path != "/":
            parent, _, name = path.rpartition("/")
            parent = parent or "/"
            names = self._names.setdefault(parent, set())
            if name in names:
                return
            names.add(name)
            self._entries.setdefault(parent, Entry(Kind.DIRECTORY, 0o755, known=False))
            path = parent

    def with_entries(self, entries: Mapping[str, Entry | None]) -> Tree:
        """A copy with other entries under these paths; None removes one with all below it."""
        found = dict(self._entries)
        for path, entry in entries.items():
            if entry is None:
                for below in [name for name in found if name == path or name.startswith(f"{path}/")]:
                    del found[below]
            else:
                found[path] = entry
        return Tree(found)

    def resolve(self, path: str, *, last: bool = True) -> str | None:
        """The path with every link followed (the last part's only if last); None where that leads to nothing."""
        waiting = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        here, links = "", 0
        while waiting:
            part = waiting.pop()
            if part == "..":
                here = here.rpartition("/")[0]
                continue
            entry = self._entries.get(f"{here}/{part}")
            if entry is None:
                return None
            if entry.kind is Kind.LINK and (waiting or last):
                links += 1
                if links > _LINKS:
                    return None
                if entry.target.startswith("/"):
                    here = ""
                waiting += [word for word in reversed(entry.target.split("/")) if word not in ("", ".")]
                continue
            if waiting and entry.kind is not Kind.DIRECTORY:
                return None
            here = f"{here}/{part}"
        return here or "/"

    def entry(self, path: str) -> Entry | None:
        """What the path leads to."""
        found = self.resolve(path)
        return None if found is None else self._entries.get(found)

    def link(self, path: str) -> str | None:
        """The target of a symbolic link, as it stands; None for anything else."""
        found = self.resolve(path, last=False)
        entry = None if found is None else self._entries.get(found)
        return entry.target if entry is not None and entry.kind is Kind.LINK else None

    def exists(self, path: str) -> bool:
        """Whether there is something, a link that leads to nothing included."""
        return self.resolve(path, last=False) is not None

    def is_file(self, path: str) -> bool:
        entry = self.entry(path)
        return entry is not None and entry.kind is Kind.FILE

    def is_directory(self, path: str) -> bool:
        entry = self.entry(path)
        return entry is not None and entry.kind is Kind.DIRECTORY

    def data(self, path: str) -> bytes | None:
        """A file's content; None where there is no such file, or its content was not read."""
        entry = self.entry(path)
        return entry.data if entry is not None and entry.kind is Kind.FILE else None

    def text(self, path: str) -> str | None:
        """The same as text: UTF-8, what is not decodable replaced."""
        data = self.data(path)
        return None if data is None else data.decode("utf-8", "replace")

    def names(self, directory: str) -> list[str]:
        """The names in a directory, sorted; none where there is no such directory."""
        found = self.resolve(directory)
        return sorted(self._names.get(found, ())) if found is not None else []

    def files(self, directory: str, pattern: str = "*") -> dict[str, str]:
        """The readable texts of the files right in a directory whose names are like the pattern, by path, sorted."""
        paths = [f"{directory.rstrip('/')}/{name}" for name in self.names(directory) if fnmatch.fnmatch(name, pattern)]
        return {path: text for path in paths if (text := self.text(path)) is not None}

    def glob(self, pattern: str) -> list[str]:
        """The paths, as they were read and sorted, that are like the pattern; * and ? do not match a slash."""
        words = ("[^/]*" if word == "*" else "[^/]" if word == "?" else re.escape(word) for word in pattern)
        found = re.compile("".join(words))
        return sorted(path for path in self._entries if found.fullmatch(path))

    def below(self, directory: str) -> Iterator[tuple[str, Entry]]:
        """Every entry below a directory, with its path, in order."""
        found = self.resolve(directory)
        if found is not None:
            begin = "/" if found == "/" else f"{found}/"
            for path in sorted(path for path in self._entries if path.startswith(begin) and path != begin):
                yield path, self._entries[path]
