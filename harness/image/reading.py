"""Questions to an image's tree that know the difference between "not there" and "not read".

A check that meets Unread answers ERROR: whoever did not look has not found anything out.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator

from harness.image.image import Image
from harness.image.tree import Entry, Kind

_NO_DISK = frozenset({"proc", "sysfs", "tmpfs", "devtmpfs", "devpts", "swap", "cgroup", "cgroup2", "none", "efivarfs"})


class Unread(Exception):
    """Something that a check needs and that was not read; str() is the reason, a clause."""


def exists(image: Image, path: str) -> bool:
    """Whether there is something of that name. Raises Unread where nobody looked."""
    if image.tree.exists(path):
        return True
    _looked(image, path)
    return False


def names(image: Image, directory: str) -> list[str]:
    """The names in a directory. Raises Unread where nobody looked."""
    found = image.tree.names(directory)
    if not found:
        _looked(image, f"{directory.rstrip('/')}/*")
    return found


def data(image: Image, path: str) -> bytes | None:
    """A file's content, None where there is no such file. Raises Unread where it was not read."""
    entry = image.tree.entry(path)
    if entry is None:
        _looked(image, path)
        return None
    if entry.kind is not Kind.FILE:
        return None
    if entry.data is None:
        raise Unread(f"the content of {path} was not read" + _why(image, path))
    return entry.data


def text(image: Image, path: str) -> str | None:
    """The same as text; what is not UTF-8 is replaced."""
    found = data(image, path)
    return None if found is None else found.decode("utf-8", "replace")


def texts(image: Image, directory: str, pattern: str = "*") -> dict[str, str]:
    """The texts of the files right in a directory whose names are like the pattern, by path, sorted."""
    paths = [f"{directory.rstrip('/')}/{name}" for name in names(image, directory) if fnmatch.fnmatch(name, pattern)]
    return {path: found for path in paths if (found := text(image, path)) is not None}


def first(image: Image, *paths: str) -> tuple[str, str] | None:
    """The first of these files that is there, with its text."""
    for path in paths:
        found = text(image, path)
        if found is not None:
            return path, found
    return None


def known(image: Image, path: str) -> Entry | None:
    """An entry with its mode and owner. Raises Unread where nothing but its name was read."""
    entry = image.tree.entry(path)
    if entry is None:
        _looked(image, path)
        return None
    if not entry.known:
        raise Unread(f"nothing but the name of {path} was read" + _why(image, path))
    return entry


def mounts(image: Image) -> Iterator[tuple[str, str, str, str]]:
    """The rows of /etc/fstab: what, where, type, options."""
    for line in (image.tree.text("/etc/fstab") or "").splitlines():
        words = line.split()
        if len(words) >= 3 and not words[0].startswith("#"):
            yield words[0], words[1].rstrip("/") or "/", words[2], words[3] if len(words) > 3 else ""


def _looked(image: Image, path: str) -> None:
    """Raises Unread where a path that is not in the tree may lie where nobody looked."""
    reason = _why(image, path)
    if reason:
        raise Unread(f"{path} was not looked for{reason}")
    for what, where, kind, _ in mounts(image):
        below = where != "/" and path.startswith(f"{where}/")
        if below and kind not in _NO_DISK and not image.tree.names(where):
            raise Unread(f"{path} was not looked for: /etc/fstab mounts {what} on {where}, and that was not read")


def _why(image: Image, path: str) -> str:
    """`: reason` where the path, or a directory above it, is among what could not be read, or where names were cut."""
    above = path
    while above:
        if above in image.unseen:
            return f": {image.unseen[above]}"
        above = above.rpartition("/")[0]
    everywhere = next((image.unseen[name] for name in ("/", "names", "depth") if name in image.unseen), "")
    return f": {everywhere}" if everywhere else ""
