"""What one read() has spent of its limits, and the notes it made on the way."""

from __future__ import annotations

from collections import Counter

from harness.diagnose.facts import Note, NoteKind
from harness.diagnose.limits import LIMITS, Limits


class Exhausted(Exception):
    """A limit of the whole read is reached: what comes next is not looked at."""


class Budget:
    def __init__(self, limits: Limits = LIMITS):
        self.limits = limits
        self._left = {"documents": limits.documents, "total": limits.total, "inflated": limits.inflated}
        self._notes: list[Note] = []
        self._same: Counter[tuple[NoteKind, str]] = Counter()
        self._more: Counter[tuple[NoteKind, str]] = Counter()
        self._stopped = ""

    def spend(self, what: str, amount: int) -> None:
        """Raises Exhausted when there is not so much left."""
        self._left[what] -= amount
        if self._left[what] < 0:
            raise Exhausted(what)

    def left(self, what: str) -> int:
        return max(0, self._left[what])

    def note(self, kind: NoteKind, document: str, what: str, line: int = 0) -> None:
        self.add(Note(kind, document, what, line))

    def add(self, note: Note) -> None:
        """Keep a note; after the first few of one kind, and the first limits.notes of all, they are only counted."""
        same = (note.kind, note.what)
        self._same[same] += 1
        if len(self._notes) < self.limits.notes and self._same[same] <= self.limits.same_notes:
            self._notes.append(note)
        else:
            self._more[same] += 1

    def stop(self, document: str, error: Exhausted) -> None:
        """The note that says where reading ended, once."""
        words = {
            "documents": f"more than {self.limits.documents:,} files",
            "total": f"more than {self.limits.total >> 20} MiB of text",
            "inflated": f"the archives unpack to more than {self.limits.inflated >> 20} MiB",
        }
        if not self._stopped:
            self._stopped = words[str(error)]
            what = f"{self._stopped}: nothing is read from here on"
            self._notes.append(Note(NoteKind.LEFT_OUT, document, what))

    def notes(self) -> list[Note]:
        more = [
            Note(kind, "(others)", f"{count:,} more: {what}")
            for (kind, what), count in self._more.most_common(self.limits.notes)
        ]
        return [*self._notes, *more]
