"""All that was read: facts, documents, and notes of what is not among the facts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from harness.diagnose.facts.base import Fact


class NoteKind(StrEnum):
    LEFT_OUT = "left out"  # a limit was reached, a link, a device, encrypted …
    DAMAGED = "damaged"  # cut or broken, read as far as it goes
    UNREADABLE = "unreadable"  # permission, I/O error, not there
    NOT_UNDERSTOOD = "not understood"  # no reader knows it


@dataclass(frozen=True, slots=True)
class Note:
    """Something of the evidence that is not among the facts, and why."""

    kind: NoteKind
    document: str
    what: str
    line: int = 0


@dataclass(frozen=True, slots=True)
class Document:
    """One text of the evidence: its name in the bundle, its size in bytes, what was recognized in it."""

    name: str
    size: int
    kinds: tuple[str, ...] = ()


_F = TypeVar("_F", bound=Fact)


@dataclass(frozen=True)
class Evidence:
    """All that was read, in the order of the documents and of their lines."""

    facts: Sequence[Fact]
    documents: Sequence[Document] = ()
    notes: Sequence[Note] = ()
    _kinds: dict[type[Fact], list[Any]] = field(default_factory=dict, repr=False, compare=False)

    def of(self, kind: type[_F]) -> Sequence[_F]:
        """The facts of one kind."""
        if not self._kinds:
            for fact in self.facts:
                self._kinds.setdefault(type(fact), []).append(fact)
        return self._kinds.get(kind, ())

    def first(self, kind: type[_F]) -> _F | None:
        found = self.of(kind)
        return found[0] if found else None

    def __iter__(self) -> Iterator[Fact]:
        return iter(self.facts)
