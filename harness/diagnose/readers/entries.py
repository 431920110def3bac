"""Logs as entries: a line that begins with a stamp, and the lines up to the next. Equal ones become one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import NamedTuple

from harness.diagnose.decode import shown
from harness.diagnose.facts import Note, NoteKind
from harness.diagnose.limits import LIMITS
from harness.diagnose.sections import Section

LONGEST = 1 << 16  # characters of one entry: a verifier log of a thousand lines
_WRAP_MIN, _WRAP_MAX = 60, 82  # columns at which mail clients wrap


class Entry(NamedTuple):
    """One entry: what its first line's pattern matched, where it stands, its text to the end."""

    match: re.Match[str]
    line: int  # index of its first line in the section
    message: str
    times: int  # how many are equal
    since: str | None  # the stamp of the first of the equal ones


def entries(section: Section, pattern: re.Pattern[str], key: Callable[[re.Match[str]], object]) -> Iterator[Entry]:
    """The entries of a section, the latest of each that are equal, in the order of their last occurrence.

    pattern matches the beginning of an entry's first line, has a group `time`, and ends before the message. key: what
    beside the message makes two entries different. At most LIMITS.entries different ones, the last.
    """
    lines = section.lines
    width = _width(lines)
    latest: dict[object, Entry] = {}
    begun: re.Match[str] | None = None
    at = 0
    for index, line in enumerate(lines):
        match = pattern.match(line)
        if match is None:
            continue
        if begun is not None:
            _add(latest, begun, at, _message(lines, begun, at, index, width), key)
        begun, at = match, index
    if begun is not None:
        _add(latest, begun, at, _message(lines, begun, at, len(lines), width), key)
    rows = list(latest.values())
    yield from rows[-LIMITS.entries :]


def left_out(section: Section, pattern: re.Pattern[str], found: int) -> Iterator[Note]:
    """A note where the number of different entries reached its limit."""
    if found >= LIMITS.entries:
        what = f"entries before the last {LIMITS.entries} different ones"
        yield Note(NoteKind.LEFT_OUT, section.document, what, section.first)


def _add(
    latest: dict[object, Entry],
    match: re.Match[str],
    index: int,
    message: str,
    key: Callable[[re.Match[str]], object],
) -> None:
    same = (key(match), message)
    before = latest.pop(same, None)
    count, since = (before.times + 1, before.since) if before else (1, match["time"])
    latest[same] = Entry(match, index, message, count, since)
    if len(latest) > 2 * LIMITS.entries:
        for old in list(latest)[: LIMITS.entries]:
            del latest[old]


def _message(lines: list[str], match: re.Match[str], begin: int, end: int, width: int) -> str:
    first = lines[begin][match.end() :]
    if end == begin + 1:
        return shown(first.strip(), LONGEST)
    pieces, length, before = [first.strip()], len(first), lines[begin]
    for line in lines[begin + 1 : end]:
        length += len(line) + 1
        if length > LONGEST:
            break
        word = line.split(None, 1)
        if width and word and len(before) + 1 + len(word[0]) > width:
            pieces[-1] += " " + line.strip()
        else:
            pieces.append(line.rstrip())
        before = line
    while pieces and not pieces[-1]:
        pieces.pop()
    return shown("\n".join(pieces), LONGEST)


def _width(lines: list[str]) -> int:
    """The column at which a mail client wrapped, or 0: then no line of several words is longer."""
    longest = 0
    for line in lines[:20_000]:
        if len(line) > longest:
            if len(line) <= _WRAP_MAX:
                longest = len(line)
            elif len(line.split(None, 1)) > 1:
                return 0
    return longest if longest >= _WRAP_MIN else 0


def when(text: str | None, read: Callable[[str | None], datetime | None], count: int) -> datetime | None:
    """The moment of the first of several equal entries; None for one that stands alone."""
    return read(text) if count > 1 else None
