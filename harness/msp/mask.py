"""Comparing a verifier log with the guide's: what differs from boot to boot is masked, and nothing else.

The mask is data, and printed with every comparison, so that a reader sees what was not compared.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Mask:
    """One thing that is masked: a pattern, what is put there, and why it differs."""

    pattern: str
    placeholder: str
    why: str


MASKS: tuple[Mask, ...] = (
    Mask(r"\b0x[0-9a-f]{16}\b", "<address>", "kernel addresses (of maps) are random at each boot"),
    Mask(r"(?<=[(,]id=)\d+|(?<=ref_obj_id=)\d+|(?<=map_id=)\d+", "<id>", "ids are counted from boot or within one run"),
    Mask(r"(?<=verification time )\d+(?= usec)", "<time>", "how long verification took"),
    Mask(
        r"(?<=processed )\d+(?= insns)|(?<=max_states_per_insn )\d+|(?<=total_states )\d+|(?<=peak_states )\d+"
        r"|(?<=mark_read )\d+",
        "<number>",
        "statistics depend on the kernel's pruning",
    ),
)
_COMPILED = tuple((re.compile(mask.pattern), mask.placeholder) for mask in MASKS)


def masked(line: str) -> str:
    """The line with everything in MASKS replaced, without blanks at its end."""
    for pattern, placeholder in _COMPILED:
        line = pattern.sub(placeholder, line)
    return line.rstrip()


def mask_text() -> str:
    """The mask, for a report: one line a row."""
    return "\n".join(f"{mask.placeholder}: {mask.why} (/{mask.pattern}/)" for mask in MASKS)


@dataclass(frozen=True)
class Line:
    """One line of a comparison: the same on both sides, only in the guide (ours is None), only in ours, or changed."""

    guide: str | None
    ours: str | None

    @property
    def same(self) -> bool:
        return self.guide is not None and self.ours is not None and masked(self.guide) == masked(self.ours)


@dataclass(frozen=True)
class Comparison:
    """Both logs side by side; the guide's is cut, so ours counts up to where the guide's ends."""

    lines: Sequence[Line]
    guide_total: int  # lines in the guide's text
    same: int  # of them the same in ours, in the same order

    @property
    def similarity(self) -> float:
        """The part of the guide's lines that ours has, from 0 to 1; 1 when the guide has none."""
        return self.same / self.guide_total if self.guide_total else 1.0

    @property
    def text(self) -> str:
        """A line each: blank for the same, `-` only in the guide, `+` only in ours."""
        rows = []
        for line in self.lines:
            if line.same:
                rows.append(f"  {line.guide}")
            else:
                rows += [f"{mark} {text}" for mark, text in (("-", line.guide), ("+", line.ours)) if text is not None]
        return "\n".join(rows)


def diff(guide: Sequence[str], ours: Sequence[str]) -> Comparison:
    """Compare line by line after masking. The guide may end in a cut line: `16: (85) cal...` stands for a beginning."""
    ours = list(ours)
    left = [masked(line) for line in guide]
    right = [masked(line) for line in ours]
    if left and left[-1].endswith("..."):
        left, guide, right, ours = _complete_last(left, list(guide), right, ours)
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
    lines: list[Line] = []
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag == "equal":
            lines += [Line(one, other) for one, other in zip(guide[a:b], ours[c:d], strict=True)]
        else:
            lines += [Line(one, None) for one in guide[a:b]] + [Line(None, other) for other in ours[c:d]]
    return Comparison(lines, len(left), sum(line.same for line in lines))


def _complete_last(
    left: list[str], guide: list[str], right: list[str], ours: list[str]
) -> tuple[list[str], list[str], list[str], list[str]]:
    """Put our line for the guide's cut one, and drop ours after it: what the guide does not show is not compared."""
    stem = left[-1].removesuffix("...")
    for number, line in enumerate(right):
        if stem and line.startswith(stem):
            return [*left[:-1], line], [*guide[:-1], ours[number]], right[: number + 1], ours[: number + 1]
    return left, guide, right, ours
