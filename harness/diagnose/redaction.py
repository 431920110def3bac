"""A bundle that exists, once more and without its secrets: each text redacted as the collector does it."""

from __future__ import annotations

import io
import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from harness.diagnose import mail
from harness.diagnose.collector import redact
from harness.diagnose.decode import name_of, text_of
from harness.diagnose.facts import Note, NoteKind
from harness.diagnose.intake import Intake
from harness.diagnose.limits import Limits
from harness.errors import HarnessError, errno_text

_MIB = 1 << 20
LIMITS = Limits(document=64 * _MIB, unpacked=256 * _MIB, total=4096 * _MIB, inflated=8192 * _MIB)
"""Texts are written as they come, so that only one is held at a time: more of them may be read than for a diagnosis."""

INDEX = "REDACTED.txt"


@dataclass
class Redacted:
    """What became of a bundle: how many secrets of each kind, by how many texts; and what is not in the new one."""

    texts: int = 0
    secrets: Counter[str] = field(default_factory=Counter)
    notes: Sequence[Note] = ()

    def index(self) -> str:
        """For the person who opens the new bundle."""
        lines = ["Redacted by msp-harness. What was replaced:"]
        lines += [f"{count:>8}  {name}" for name, count in sorted(self.secrets.items())] or ["  nothing was found"]
        lines += ["", "Not in this copy, or not whole:"]
        lines += [f"  {note.document}: {note.what}" for note in self.notes] or ["  nothing: every text is here"]
        return "\n".join(lines) + "\n"


def redact_bundle(paths: Sequence[str | Path], output: Path, *, stdin: BinaryIO | None = None) -> Redacted:
    """Write a .tar.gz with every text of paths (as harness.diagnose.intake takes them), redacted.

    What is no text cannot be looked through, and is left out. output must not be there yet; it appears whole, readable
    by its owner only. Raises HarnessError when it cannot be written or a path cannot be opened.
    """
    with _fresh(output) as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        copying = _Copying(archive)
        copying.take(paths, stdin)
        done = copying.done
        done.notes = copying.evidence().notes
        _add(archive, INDEX, done.index())
    return done


class _Copying(Intake):
    def __init__(self, archive: tarfile.TarFile):
        super().__init__(LIMITS)
        self._archive = archive
        self._names: set[str] = set()
        self.done = Redacted()

    def text(self, name: str, begin: bytes, end: bytes, dropped: int) -> None:
        self._budget.spend("documents", 1)
        self._budget.spend("total", len(begin) + len(end))
        if mail.is_mail(begin):  # one that could not be taken apart: its parts may be encoded, secrets with them
            self.note(NoteKind.LEFT_OUT, name, "a mail whose parts cannot be read")
            return
        text, rest = text_of(begin), text_of(end)
        if text is None or rest is None:
            self.note(NoteKind.LEFT_OUT, name, "it is no text, and what is in it cannot be told")
            return
        if dropped:
            self.note(NoteKind.LEFT_OUT, name, f"{dropped:,} bytes in its middle")
            text += f"\n[{dropped} bytes left out]\n{rest}"
        clean, counts = redact(text)
        self.done.texts += 1
        self.done.secrets.update(counts)
        _add(self._archive, self._free(name), clean)

    def _free(self, name: str) -> str:
        """A member's name that leads nowhere and that no other member has."""
        shown, _ = redact(name_of(name))
        parts = [part for part in shown.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        wanted = free = "/".join(parts) or "text"
        number = 1
        while free in self._names or free == INDEX:
            number += 1
            free = f"{wanted}.{number}"
        self._names.add(free)
        return free


def _add(archive: tarfile.TarFile, name: str, text: str) -> None:
    data = text.encode("utf-8", "backslashreplace")
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o600
    archive.addfile(member, io.BytesIO(data))


@contextmanager
def _fresh(path: Path) -> Iterator[BinaryIO]:
    """A file that appears at path when all went well, and replaces nothing."""
    work = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(work, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
            os.link(work, path)
        finally:
            work.unlink()
    except OSError as error:
        number = error.errno or 0
        remedy = "give another --output: nothing is overwritten" if isinstance(error, FileExistsError) else ""
        raise HarnessError(f"write {path}", errno_text(number), remedy, errno=number) from error
