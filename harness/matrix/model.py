"""A matrix: kernels down, programs across, a Report in each cell."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.report import EXIT_CHECK_FAILED, EXIT_OK, Outcome, Report
from harness.report.page import worst

_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")

LAB = "lab:"
"""What the SPEC of a lab kernel begins with: one that was built with things left out on purpose."""


@dataclass(frozen=True)
class Row:
    """A kernel as it was asked for, on a machine of some kind.

    variation says what is not as usual about the machine (`cgroup=hybrid`); release is `unknown` and digest empty
    where the kernel could not be had.
    """

    spec: str
    variation: str
    release: str
    origin: str
    digest: str

    @property
    def name(self) -> str:
        return f"{self.spec} {self.variation}" if self.variation else self.spec

    @property
    def altered(self) -> bool:
        """Whether it was built with things left out on purpose, so that its version says nothing of other kernels."""
        return self.spec.startswith(LAB)

    @property
    def version(self) -> tuple[int, ...]:
        """Of the release, to sort by; empty where it shows none."""
        found = _VERSION.match(self.release)
        return tuple(int(part or 0) for part in found.groups()) if found else ()

    @property
    def label(self) -> str:
        """`5.10 (bullseye)`."""
        version = self.version
        return f"{version[0]}.{version[1]} ({self.name})" if version else self.name


@dataclass(frozen=True)
class Program:
    """A column: one of our own programs (digest is None: it is part of the harness), or somebody's object."""

    name: str
    digest: str | None = None

    @property
    def own(self) -> bool:
        return self.digest is None


@dataclass(frozen=True)
class Cell:
    """What one program was found to do on one kernel.

    key: the hash of all that it depends on; reused: it was kept from an earlier run.
    """

    row: str
    program: str
    key: str
    report: Report
    reused: bool = False

    @cached_property
    def outcome(self) -> Outcome:
        return worst(self.report)


@dataclass(frozen=True)
class Matrix:
    """All of it. checks: the words of --checks; none: all but the slow ones. Times as in a Report."""

    rows: Sequence[Row]
    programs: Sequence[Program]
    checks: Sequence[str]
    cells: Sequence[Cell]
    harness_version: str
    started: str
    ended: str
    seconds: float

    @cached_property
    def by_place(self) -> Mapping[tuple[str, str], Cell]:
        return {(cell.row, cell.program): cell for cell in self.cells}

    def cell(self, row: Row, program: Program) -> Cell:
        return self.by_place[row.name, program.name]

    def count(self, outcome: Outcome) -> int:
        return sum(cell.outcome is outcome for cell in self.cells)

    @property
    def reused(self) -> int:
        return sum(cell.reused for cell in self.cells)


BAD = (Outcome.FAIL, Outcome.ERROR)


def exit_code(matrix: Matrix) -> int:
    """0: no cell has a FAIL or an ERROR; 1: else."""
    return EXIT_CHECK_FAILED if any(cell.outcome in BAD for cell in matrix.cells) else EXIT_OK


def headline(matrix: Matrix) -> tuple[Outcome, str]:
    """The whole in one sentence, and the outcome that stands for it."""
    total, failed, unknown = len(matrix.cells), matrix.count(Outcome.FAIL), matrix.count(Outcome.ERROR)
    pairs = f"{len(matrix.programs)} {_plural('program', len(matrix.programs))} on {len(matrix.rows)} "
    pairs += _plural("kernel", len(matrix.rows))
    if not total:
        return Outcome.SKIP, "nothing was measured"
    lost = f"; {unknown} could not be found out" if unknown else ""
    if failed:
        held = total - failed - unknown
        return Outcome.FAIL, f"{pairs}: {failed} of {total} {_plural('pair', total)} fail, {held} hold{lost}"
    if unknown:
        return Outcome.ERROR, f"{pairs}: {unknown} of {total} {_plural('pair', total)} could not be found out"
    return Outcome.PASS, f"{pairs}: all {total} hold" if total > 1 else f"{pairs}: it holds"


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
