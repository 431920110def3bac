"""The bundles of a fleet, one after the other: entries of a directory, members of an archive, lines of NDJSON.

A bundle is the evidence of one machine. Each has a name and a stamp, which changes when its content does, so that a
restart knows what was judged already. Whatever the fleet's size, one bundle is held at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from harness.diagnose import streams, tar_members, zip_members
from harness.diagnose.budget import Budget
from harness.diagnose.limits import LIMITS
from harness.diagnose.streams import CHUNK, Damaged, Stream
from harness.errors import HarnessError, errno_text

_HEAD = 1024
_FLEET = replace(LIMITS, documents=1 << 40, total=1 << 60, inflated=1 << 60, directory=1 << 32)
"""A fleet has no size; what holds one bundle in memory is LIMITS.archive."""

_STATS = 2_000  # files of a directory that its stamp looks at
_NAMES = ("name", "vmName", "vm", "host", "hostname", "vmId", "id")
"""Members of an NDJSON line that name its machine, the first that is there."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """One machine's evidence: a path, or documents (name, bytes). problem: why it is not read."""

    name: str
    stamp: str
    path: str | None = None
    documents: tuple[tuple[str, bytes], ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Source:
    """Where the bundles come from. size: bytes that done() will have counted at the end; None where nobody knows."""

    size: int | None
    bundles: Iterator[Bundle]
    done: Callable[[], int]


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """The bundles of a directory, an archive or an NDJSON file (which may be compressed).

    Raises HarnessError when it cannot be opened, and when it is none of these.
    """
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            yield Source(None, _entries(path), lambda: 0)
            return
        with path.open("rb") as file:
            yield _of_file(path, file, found.st_size)
    except OSError as error:
        number = error.errno or 0
        remedy = "give a directory of bundles, an archive of them, or NDJSON"
        raise HarnessError(f"read the fleet {path}", errno_text(number), remedy, errno=number) from error


def _of_file(path: Path, file: BinaryIO, size: int) -> Source:
    head = file.read(_HEAD)
    file.seek(0)
    if head.startswith(zip_members.MAGIC):
        return Source(size, _of_zip(file), lambda: 0)
    content = _unpacked(file)
    if tar_members.is_tar(content.peek(_HEAD)):
        prefix = _common(member for member in tar_members.members(content, Budget(_FLEET)))
        file.seek(0)
        return Source(size, _of_tar(_unpacked(file), prefix), file.tell)
    if not content.peek(_HEAD).lstrip().startswith((b"{", b'"', b"[")):
        happened = "it is no archive, and its first line is no JSON"
        raise HarnessError(f"read the fleet {path}", happened, "give a directory, an archive or NDJSON")
    return Source(size, _lines(content), file.tell)


def _unpacked(file: BinaryIO) -> Stream:
    content = Stream(iter(lambda: file.read(CHUNK), b""))
    packed = streams.kind(content.peek(_HEAD))
    return streams.unpacked(content, packed, Budget(_FLEET)) if packed else content


# --- a directory --------------------------------------------------------------------------------------------------


def _entries(folder: Path) -> Iterator[Bundle]:
    """Each entry is a machine's: a file, an archive, or a directory with everything below it."""
    with os.scandir(folder) as listing:
        for entry in listing:
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError as error:
                yield Bundle(entry.name, "", problem=errno_text(error.errno or 0))
                continue
            if stat.S_ISREG(status.st_mode):
                yield Bundle(entry.name, f"{status.st_size}:{status.st_mtime_ns}", entry.path)
            elif stat.S_ISDIR(status.st_mode):
                yield Bundle(entry.name, _stamp_of_tree(entry.path), entry.path)
            else:
                yield Bundle(entry.name, "", problem="a link, device, pipe or socket, which is not followed")


def _stamp_of_tree(top: str) -> str:
    digest, count = hashlib.blake2b(digest_size=16), 0
    for folder, folders, files in os.walk(top):
        folders.sort()
        for name in sorted(files):
            count += 1
            if count > _STATS:
                return digest.hexdigest()
            try:
                status = os.lstat(f"{folder}/{name}")
            except OSError:
                continue
            line = f"{folder}/{name}\0{status.st_size}:{status.st_mtime_ns}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


# --- an archive ---------------------------------------------------------------------------------------------------


def _common(members: Iterator[tar_members.Member]) -> str:
    """The folder that holds every file of the archive, "" for none; what is directly below it are the bundles."""
    common: list[str] | None = None
    try:
        for member in members:
            if member.type is tar_members.Type.FILE:
                common = _shared(common, member.name)
    except Damaged:
        pass  # told when it is read
    return "/".join(common or [])


def _shared(common: list[str] | None, name: str) -> list[str]:
    folders = [part for part in name.split("/")[:-1] if part not in ("", ".")]
    if common is None:
        return folders
    same = 0
    while same < min(len(common), len(folders)) and common[same] == folders[same]:
        same += 1
    return common[:same]


def _of_tar(content: Stream, prefix: str) -> Iterator[Bundle]:
    def files() -> Iterator[tuple[str, Stream]]:
        for member in tar_members.members(content, Budget(_FLEET)):
            if member.type is tar_members.Type.FILE:
                yield member.name, Stream(content.pieces(member.size))

    return _grouped(files(), prefix)


def _of_zip(file: BinaryIO) -> Iterator[Bundle]:
    members = [member for member in zip_members.members(file, Budget(_FLEET)) if member.stream is not None]
    common: list[str] | None = None
    for member in members:
        common = _shared(common, member.name)
    files = ((member.name, member.stream) for member in members if member.stream is not None)
    return _grouped(files, "/".join(common or []))


def _grouped(files: Iterator[tuple[str, Stream]], prefix: str) -> Iterator[Bundle]:
    """Files of one machine lie together, as tar writes a folder; what a bundle has over LIMITS.archive is left out."""
    current, documents, size = "", list[tuple[str, bytes]](), 0
    try:
        for name, content in files:
            parts = [part for part in name.split("/") if part not in ("", ".")]
            below = parts[len(prefix.split("/")) if prefix else 0 :]
            owner = below[0] if below else name
            if documents and owner != current:
                yield _bundle(current, documents)
                documents, size = [], 0
            current = owner
            data = content.read(max(0, LIMITS.archive - size))
            size += len(data)
            documents.append(("/".join(below[1:]) or owner, data))
    except Damaged as error:
        if documents:
            yield _bundle(current, documents)
        yield Bundle("(the archive)", "", problem=f"damaged: {error}")
        return
    if documents:
        yield _bundle(current, documents)


def _bundle(name: str, documents: list[tuple[str, bytes]]) -> Bundle:
    digest = hashlib.blake2b(digest_size=16)
    for document, data in documents:
        digest.update(document.encode("utf-8", "surrogateescape") + b"\0" + data)
    return Bundle(name, digest.hexdigest(), documents=tuple(documents))


# --- NDJSON -------------------------------------------------------------------------------------------------------


def _lines(content: Stream) -> Iterator[Bundle]:
    """A line is a machine's: {"name": …, "files": {name: text}}, {"name": …, "text": …}, or evidence itself."""
    number, held, over = 0, bytearray(), False
    for piece in content.pieces():
        held += piece
        *lines, rest = held.split(b"\n")
        for line in lines:
            number += 1
            if over:
                yield Bundle(f"line {number}", "", problem=f"a line of more than {LIMITS.document >> 20} MiB")
                over = False
            elif line.strip():
                yield _of_line(bytes(line), number)
        held = bytearray(rest)
        if len(held) > LIMITS.document:
            held, over = bytearray(), True
    if over:
        yield Bundle(f"line {number + 1}", "", problem=f"a line of more than {LIMITS.document >> 20} MiB")
    elif held.strip():
        yield _of_line(bytes(held), number + 1)
    if content.damage:
        yield Bundle("(the file)", "", problem=f"damaged: {content.damage}")


def _of_line(line: bytes, number: int) -> Bundle:
    stamp = hashlib.blake2b(line, digest_size=16).hexdigest()
    name, document = f"line {number}", "line.json"
    if not any(f'"{word}"'.encode() in line for word in (*_NAMES, "files", "text")):
        return Bundle(name, stamp, documents=((document, line),))  # most are: no need to parse them twice
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        return Bundle(name, stamp, documents=((document, line),))
    named = next((str(content[word]) for word in _NAMES if isinstance(content.get(word), str)), "")
    name = f"{name}: {named}" if named else name
    files, text = content.get("files"), content.get("text")
    if isinstance(files, dict):
        documents = tuple((str(key), str(value).encode("utf-8", "replace")) for key, value in files.items())
        return Bundle(name, stamp, documents=documents)
    if isinstance(text, str):
        return Bundle(name, stamp, documents=(("text", text.encode("utf-8", "replace")),))
    return Bundle(name, stamp, documents=((document, line),))
