"""How kernels of different generations print one verification: which lines of a log differ from the guide's, and why.

The guide's log is of a kernel from 5.3 to 5.6. A row says what later ones print differently, from which mainline
version on, and how that is told in a log; a difference that no row names is not one of generations.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.msp import mask
from harness.msp.mask import Comparison, Line


@dataclass(frozen=True)
class Generation:
    """One thing that later kernels print differently.

    ours: a pattern of a line, or (part) of a part of a line, that only they print. guide: one of a line that only
    the guide's kernel prints. stable: also in the later updates of older kernels. since is empty for what hangs on
    the log's level. Versions are mainline's; of "precision hidden" it is known that 5.10 tells it and 6.1 does not.
    """

    name: str
    since: str
    why: str
    ours: str = ""
    guide: str = ""
    part: bool = False
    stable: bool = False

    @property
    def reason(self) -> str:
        updates = " (and in updates of older ones)" if self.stable else ""
        return f"from {self.since} on{updates} {self.why}" if self.since else self.why


GENERATIONS = (
    Generation("state beside", "5.17", "what an instruction changed is printed behind it",
               ours=r"\s+; (?:frame\d+: )?[Rrf]\w*=.*$", part=True),
    Generation("place", "6.10", "a source line is printed with its file and number",
               ours=r"(?<=.) @ \S*:\d+$", part=True),
    Generation("source once", "6.10", "a source line is not printed again where the next instruction is of it too",
               guide=r"; "),
    Generation("precision", "6.4", "what is followed back for precision is told with `mark_precise:`",
               ours=r"mark_precise: ", guide=r"last_idx |regs=\w+ stack=\w+ before "),
    Generation("precision hidden", "6.1", "what is followed back for precision is told at log level 2 only",
               guide=r"last_idx |regs=\w+ stack=\w+ before "),
    Generation("precision again", "6.2", "each store of the same zero is followed back again", stable=True,
               ours=r"last_idx |regs=\w+ stack=\w+ before |parent (?:didn't have|already had) "),
    Generation("functions", "", "at log level 2 functions are listed", ours=r"func#\d+ @\d+$"),
    Generation("state", "", "at log level 2 (from 5.16 on always at first) registers have lines of their own",
               ours=r"(?:\d+: )?(?:frame\d+: )?R\d+\w*="),
    Generation("live registers", "6.15", "the registers that are read later are listed at log level 2",
               ours=r"Live regs before insn:|\s+\d+: [.\d]{10} "),
)  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """A line that only one side has, or of which ours has more; row: why, None where no row names it."""

    line: Line
    row: Generation | None

    @property
    def text(self) -> str:
        shown = f"- {self.line.guide}" if self.line.ours is None else f"+ {self.line.ours}"
        return f"{shown}  [{'not explained' if self.row is None else self.row.reason}]"


@dataclass(frozen=True)
class Named:
    """A comparison after what later kernels put into lines was set aside, with the reason of each difference."""

    comparison: Comparison
    differences: Sequence[Difference]
    parts: Sequence[Generation]  # whose parts of lines were set aside

    @property
    def unexplained(self) -> list[str]:
        return [one.text for one in self.differences if one.row is None]

    @property
    def text(self) -> str:
        """Side by side: blank for the same, `-` only in the guide, `+` only in ours, each with its reason."""
        reasons = {id(one.line): one for one in self.differences}
        rows = [f"{line.guide and '  ' + line.guide}" if line.same else reasons[id(line)].text
                for line in self.comparison.lines]  # fmt: skip
        return "\n".join(rows)


def named(guide: Sequence[str], ours: Sequence[str]) -> Named:
    """Compare our log with the guide's line by line, and name every difference."""
    bare, parts = list[str](), dict[Generation, None]()
    for line in ours:
        for row in (row for row in GENERATIONS if row.part):
            shorter = re.sub(row.ours, "", line)
            if shorter != line:
                parts[row] = None
                line = shorter
        bare.append(line)
    comparison = mask.diff(guide, bare)
    there = {mask.masked(line) for line in bare}
    anew = any(line.startswith("mark_precise: ") for line in bare)
    differences = [Difference(line, _row(line, there, anew)) for line in comparison.lines if not line.same]
    return Named(comparison, differences, tuple(parts))


def _row(line: Line, there: set[str], anew: bool) -> Generation | None:
    """The row of a difference. there: all of our lines; anew: precision is told as from 6.4 on."""
    for row in GENERATIONS:
        if row.part:
            continue
        if line.ours is not None and row.ours and re.match(row.ours, line.ours):
            return row
        if line.guide is not None and row.guide and re.match(row.guide, line.guide):
            if row.name == "source once" and mask.masked(line.guide) not in there:
                continue  # not printed at all
            if row.name == "precision" and not anew:
                continue
            return row
    return None
