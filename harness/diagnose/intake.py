"""From what a customer sends to Evidence: directories, archives in archives, files, standard input, pasted text.

What is in it is found by its content, not by names. Everything is bounded (harness.diagnose.limits), read once, one
document at a time, and nothing is written anywhere; whatever is left out is told in a Note.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from harness.diagnose import binary, mail, recognize, streams, tar_members, zip_members
from harness.diagnose.budget import Budget, Exhausted
from harness.diagnose.decode import name_of, text_of
from harness.diagnose.facts import Document, Evidence, Fact, NoteKind
from harness.diagnose.limits import LIMITS, Limits
from harness.diagnose.readers import extension
from harness.diagnose.streams import CHUNK, Damaged, Stream
from harness.errors import HarnessError, errno_name, errno_text

_HEAD = 1024  # bytes by which a kind of file is told


def read(paths: Sequence[str | Path] = (), *, stdin: BinaryIO | None = None, limits: Limits = LIMITS) -> Evidence:
    """The evidence in paths (directories, archives, files; `-` is standard input).

    Never raises for what is in them. Raises HarnessError when a path that was given cannot be opened.
    """
    intake = Intake(limits)
    intake.take(paths, stdin)
    return intake.evidence()


def read_bytes(data: bytes, name: str = "(text)", *, limits: Limits = LIMITS) -> Evidence:
    """The evidence in one document: a file's bytes, an archive's, or a pasted text's. Never raises."""
    intake = Intake(limits)
    if not _is_packed(data[:_HEAD]):
        with intake.bounds(name):
            intake.document(name, data, b"", 0)
    else:
        intake.guarded(name, Stream(iter([data])))
    return intake.evidence()


def _standard_input() -> BinaryIO:
    import sys

    return sys.stdin.buffer


def _is_packed(head: bytes) -> bool:
    return streams.kind(head) is not None or head.startswith(zip_members.MAGIC) or tar_members.is_tar(head)


class _Bounds:
    """Ends the reading of one document, or of all, where a limit is reached."""

    def __init__(self, budget: Budget, document: str):
        self._budget = budget
        self._document = document

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, Exhausted):
            self._budget.stop(self._document, error)
            return True
        if isinstance(error, MemoryError):
            self._budget.note(NoteKind.LEFT_OUT, self._document, "not enough memory to read it")
            return True
        return False


class Intake:
    """Finds the documents in what it is given. text() reads each into facts; a subclass may do otherwise."""

    def __init__(self, limits: Limits):
        self._limits = limits
        self._budget = Budget(limits)
        self._facts: list[Fact] = []
        self._documents: list[Document] = []
        self._folders: set[str] = set()  # of extensions, told once
        self._mails = 0  # mails in mails that are being read

    def evidence(self) -> Evidence:
        return Evidence(self._facts, self._documents, self._budget.notes())

    def take(self, paths: Sequence[str | Path], stdin: BinaryIO | None = None) -> None:
        """Everything in paths. Raises HarnessError when one of them cannot be opened."""
        for path in paths:
            if str(path) == "-":
                self.guarded("(standard input)", Stream(_file_chunks(stdin or _standard_input())))
            else:
                self.path(Path(path), alone=len(paths) == 1)

    def bounds(self, name: str) -> _Bounds:
        return _Bounds(self._budget, name_of(name))

    def note(self, kind: NoteKind, name: str, what: str) -> None:
        self._budget.note(kind, name_of(name), what)

    def guarded(self, name: str, stream: Stream) -> None:
        with self.bounds(name):
            self.stream(name, stream, 0)

    # --- the file system ------------------------------------------------------------------------------------------

    def path(self, path: Path, *, alone: bool) -> None:
        """A path that the user gave: a link there is followed, below it none is."""
        try:
            found = path.stat()
        except (OSError, ValueError) as error:
            number = getattr(error, "errno", None) or errno.EINVAL
            remedy = "give a directory, an archive, files, or - for standard input"
            raise HarnessError(f"read {path}", errno_text(number), remedy, errno=number) from error
        with self.bounds(str(path)):
            if stat.S_ISDIR(found.st_mode):
                self._directory(path, "" if alone else f"{path.name}/", 0)
            elif stat.S_ISBLK(found.st_mode) or stat.S_ISSOCK(found.st_mode):
                self.note(NoteKind.LEFT_OUT, str(path), "a device or socket")
            else:
                self._open(path, str(path), given=True)

    def _directory(self, folder: Path, prefix: str, depth: int) -> None:
        if depth > self._limits.folders:
            self.note(NoteKind.LEFT_OUT, prefix, f"folders more than {self._limits.folders} deep")
            return
        try:
            with os.scandir(folder) as listing:
                entries = sorted(self._first(listing, prefix), key=lambda entry: entry.name)
        except OSError as error:
            self.note(NoteKind.UNREADABLE, prefix or str(folder), errno_text(error.errno or 0))
            return
        for entry in entries:
            name = prefix + entry.name
            try:
                mode = entry.stat(follow_symlinks=False).st_mode
            except OSError as error:
                self.note(NoteKind.UNREADABLE, name, errno_text(error.errno or 0))
                continue
            if stat.S_ISDIR(mode):
                self._directory(Path(entry.path), name + "/", depth + 1)
            elif stat.S_ISREG(mode):
                self._open(Path(entry.path), name, given=False)
            else:
                what = "a link, which is not followed" if stat.S_ISLNK(mode) else "a device, pipe or socket"
                self.note(NoteKind.LEFT_OUT, name, what)

    def _first(self, listing: Iterator[os.DirEntry[str]], prefix: str) -> list[os.DirEntry[str]]:
        entries: list[os.DirEntry[str]] = []
        for entry in listing:
            if len(entries) >= self._limits.documents:
                self.note(NoteKind.LEFT_OUT, prefix or ".", f"files after the first {self._limits.documents:,}")
                break
            entries.append(entry)
        return entries

    def _open(self, path: Path, name: str, *, given: bool) -> None:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | (0 if given else os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            descriptor = os.open(path, flags)
        except OSError as error:
            number = error.errno or 0
            if given:
                raise HarnessError(f"read {path}", errno_text(number), errno=number) from error
            self.note(NoteKind.UNREADABLE, name, errno_text(number))
            return
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            try:
                self._file(file, name)
            except OSError as error:
                self.note(NoteKind.UNREADABLE, name, f"{errno_name(error.errno or 0)} while it was read")

    def _file(self, file: io.FileIO, name: str) -> None:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size == 0:  # a pipe, or a file of /proc
            self.stream(name, Stream(_file_chunks(file)), 0)
            return
        head = file.read(_HEAD) or b""
        file.seek(0)
        if head.startswith(zip_members.MAGIC):
            self._zip(name, file, 0)
        elif _is_packed(head):
            self.stream(name, Stream(_file_chunks(file)), 0)
        elif found.st_size <= self._limits.document:
            self.document(name, _all(file, self._limits.document), b"", 0)
        else:
            first = self._limits.document // 10
            begin = _all(file, first)
            file.seek(found.st_size - (self._limits.document - first))
            end = _all(file, self._limits.document - first)
            self.document(name, begin, end, found.st_size - self._limits.document)

    # --- archives -------------------------------------------------------------------------------------------------

    def stream(self, name: str, stream: Stream, depth: int) -> None:
        """Bytes of any kind. Raises Exhausted."""
        head = stream.peek(_HEAD)
        packed = streams.kind(head)
        if depth > self._limits.nesting and (packed or _is_packed(head)):
            self.note(NoteKind.LEFT_OUT, name, f"archives more than {self._limits.nesting} deep in each other")
        elif packed:
            inner = streams.unpacked(stream, packed, self._budget)
            self.stream(_without_suffix(name), inner, depth + 1)
            if inner.damage:
                self.note(NoteKind.DAMAGED, name, inner.damage)
        elif head.startswith(zip_members.MAGIC):
            self._zip_in_memory(name, stream, depth)
        elif tar_members.is_tar(head):
            self._tar(name, stream, depth)
        else:
            self._streamed(name, stream)

    def _tar(self, name: str, stream: Stream, depth: int) -> None:
        try:
            for member in tar_members.members(stream, self._budget):
                full = f"{name}/{member.name}"
                if member.type is tar_members.Type.FILE:
                    self._climbs(full, member.name)
                    self.stream(full, Stream(stream.pieces(member.size)), depth + 1)
                elif member.type is not tar_members.Type.DIRECTORY:
                    self.note(NoteKind.LEFT_OUT, full, f"a {member.type}")
        except Damaged as error:
            self.note(NoteKind.DAMAGED, name, str(error))

    def _zip_in_memory(self, name: str, stream: Stream, depth: int) -> None:
        data = stream.read(self._limits.archive)
        if stream.peek(1):
            self.note(NoteKind.LEFT_OUT, name, f"a zip in an archive of more than {self._limits.archive >> 20} MiB")
            return
        self._zip(name, io.BytesIO(data), depth)

    def _zip(self, name: str, file: BinaryIO | io.FileIO, depth: int) -> None:
        try:
            for member in zip_members.members(file, self._budget):
                full = f"{name}/{member.name}"
                if member.stream is None:
                    self.note(NoteKind.LEFT_OUT, full, member.problem)
                    continue
                self._climbs(full, member.name)
                self.stream(full, member.stream, depth + 1)
                if member.stream.damage:
                    self.note(NoteKind.DAMAGED, full, member.stream.damage)
        except Damaged as error:
            self.note(NoteKind.DAMAGED, name, str(error))

    def _climbs(self, full: str, name: str) -> None:
        if name.startswith("/") or ".." in name.replace("\\", "/").split("/"):
            self.note(NoteKind.LEFT_OUT, full, "its name leads out of the archive: its text is read, no file is made")

    # --- documents ------------------------------------------------------------------------------------------------

    def _streamed(self, name: str, stream: Stream) -> None:
        """A document of unknown length: its beginning, and its end where it is long."""
        first = self._limits.document // 10
        begin, end, taken, dropped = stream.read(first), bytearray(), 0, 0
        for piece in stream.pieces():
            taken += len(piece)
            end += piece
            if len(end) > 2 * self._limits.document:
                dropped += len(end) - (self._limits.document - first)
                del end[: len(end) - (self._limits.document - first)]
            if taken > self._limits.unpacked:
                self.note(NoteKind.LEFT_OUT, name, f"what follows the first {self._limits.unpacked >> 20} MiB")
                break
        surplus = len(end) - (self._limits.document - first)
        if surplus > 0:
            dropped += surplus
            del end[:surplus]
        if dropped:
            self.document(name, begin, bytes(end), dropped)
        else:
            self.document(name, begin + bytes(end), b"", 0)

    def document(self, name: str, begin: bytes, end: bytes, dropped: int) -> None:
        """One document's bytes: all of them, or its beginning and its end with `dropped` bytes between."""
        if dropped or not mail.is_mail(begin) or not self._mail(name, begin):
            self.text(name, begin, end, dropped)

    def text(self, name: str, begin: bytes, end: bytes, dropped: int) -> None:
        """A document that packs no others, whether it is text or not."""
        size = len(begin) + len(end) + dropped
        self._budget.spend("documents", 1)
        self._budget.spend("total", len(begin) + len(end))
        shown = name_of(name)
        text = None if binary.kind(begin) else text_of(begin)
        if text is None:
            self._documents.append(Document(shown, size, ("binary",)))
            self.note(NoteKind.NOT_UNDERSTOOD, name, binary.describe(begin))
            return
        kinds, told = self._read(shown, text, 1)
        if dropped:
            first = text.count("\n") + 2
            what = f"{dropped:,} bytes in its middle; the lines behind them are counted from line {first}"
            self.note(NoteKind.LEFT_OUT, name, what)
            rest = text_of(end)
            kinds = tuple(dict.fromkeys((*kinds, *self._read(shown, rest or "", first)[0])))
        self._documents.append(Document(shown, size, kinds))
        if not kinds and not told and text.strip():
            self.note(NoteKind.NOT_UNDERSTOOD, name, "no reader knows what is in it")

    def _mail(self, name: str, data: bytes) -> bool:
        """Read a saved mail's texts and attachments; False where it is to be read as the text that it is."""
        if self._mails >= self._limits.nesting:
            return False
        self._mails += 1
        try:
            parts = list(mail.parts(data))
            for part, payload in parts:
                self._climbs(f"{name}/{part}", part)
                self.stream(f"{name}/{part}", Stream(iter([payload])), self._mails)
        except ValueError as error:
            self.note(NoteKind.DAMAGED, name, str(error))
            return False
        finally:
            self._mails -= 1
        return bool(parts)

    def _read(self, name: str, text: str, first: int) -> tuple[tuple[str, ...], bool]:
        """Add a text's facts and notes; gives what was recognized, and whether anything was told of it."""
        found = recognize.read(name, text, first)
        self._facts += found.facts
        for note in found.notes:
            self._budget.add(note)
        for fact in extension.of_path(name):
            if fact.source.text not in self._folders:
                self._folders.add(fact.source.text)
                self._facts.append(fact)
        return found.kinds, bool(found.notes)


def _all(file: io.FileIO, size: int) -> bytes:
    """Up to size bytes: read(2) may give fewer at a time."""
    pieces = bytearray()
    while len(pieces) < size:
        piece = file.read(size - len(pieces))
        if not piece:
            break
        pieces += piece
    return bytes(pieces)


def _file_chunks(file: BinaryIO | io.FileIO) -> Iterator[bytes]:
    while True:
        try:
            chunk = file.read(CHUNK)
        except OSError as error:
            raise Damaged(f"{errno_name(error.errno or 0)} while it was read") from error
        if not chunk:
            return
        yield chunk


def _without_suffix(name: str) -> str:
    """`a.log.gz` packs `a.log`; `a.tgz` stays, so that its members' names begin with the archive's."""
    for suffix in (".gz", ".bz2", ".xz", ".zst", ".zstd"):
        if name.lower().endswith(suffix) and not name.lower().endswith(f".tar{suffix}"):
            return name[: -len(suffix)]
    return name
