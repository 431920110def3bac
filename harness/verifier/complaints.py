"""The catalogue of verifier complaints: the kernel's wording through its versions, and what it means.

The rows stand in catalogue_{calls,memory,structure}.py, by subject. A row's patterns are regular expressions for the
kernel's own wording (kernel/bpf/verifier.c and btf.c, 4.17 to 7.3); each is tried on one line, and each is bounded, so
that matching is linear. `unprovoked` is empty where a test provokes the complaint on the running kernel
and finds this row; else it says why the test cannot.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from harness.msp.codes import Code

LONGEST_LINE = 2000  # characters of a complaint's line that are looked at


@dataclass(frozen=True)
class Complaint:
    """One row. required and found may name groups of the patterns in braces."""

    id: str
    code: Code
    patterns: Sequence[str]
    says: str  # in plain words
    causes: Sequence[str]  # the usual ones
    change: str  # what to change
    required: str
    found: str
    relaxed: str = ""  # which kernels take what others refuse
    unprovoked: str = ""


@dataclass(frozen=True)
class Found:
    """A row that a line of the log matched, with what the pattern took from it."""

    row: Complaint
    line: str
    groups: dict[str, str]

    @property
    def says(self) -> str:
        return self.row.says.format_map(_Blanks(self.groups))

    @property
    def required(self) -> str:
        return self.row.required.format_map(_Blanks(self.groups))

    @property
    def found(self) -> str:
        return self.row.found.format_map(_Blanks(self.groups))


class _Blanks(dict[str, str]):
    """A group that this wording does not have reads as `?`."""

    def __missing__(self, key: str) -> str:
        return "?"


@cache
def rows() -> tuple[Complaint, ...]:
    """Every row, the special before the general."""
    from harness.verifier import catalogue_calls, catalogue_memory, catalogue_structure

    return (*catalogue_calls.ROWS, *catalogue_memory.ROWS, *catalogue_structure.ROWS)


@cache
def _compiled() -> tuple[tuple[Complaint, re.Pattern[str]], ...]:
    return tuple((row, re.compile(pattern)) for row in rows() for pattern in row.patterns)


def find(lines: Sequence[str]) -> Found | None:
    """The row for a complaint: of its lines the first that any row knows."""
    for line in lines:
        for row, pattern in _compiled():
            if match := pattern.search(line[:LONGEST_LINE]):
                groups = {name: text for name, text in match.groupdict().items() if text is not None}
                return Found(row, line, groups)
    return None
