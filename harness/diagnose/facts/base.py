"""What every fact has: where it stands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Source:
    """Where a fact stands: the document's name in the bundle (`a.zip/logs/status.json`), its line from 1, the quote.

    line is 0 where the fact is about the document as a whole (a file's name, say).
    """

    document: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}" if self.line else self.document


@dataclass(frozen=True, slots=True)
class Fact:
    source: Source
