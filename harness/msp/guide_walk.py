"""The guide's text walked: its sections, tables, steps, code blocks and the names in it, each with an id and a line.

An id is the section's path and what it is within it: `new.linux#row3`, `setup.attach#block2`, `reset.how#step1`,
`service.windows#eBPFCore`. Rules name these ids; what no rule names is a gap, which a test finds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from harness.msp import guide

TEXT = "troubleshooting-guide.md"

# A short word for each heading; a heading that is not here gets a slug of its own, so that nothing is overlooked.
_WORDS: Mapping[str, str] = {
    "Troubleshooting guide": "guide",
    guide.NEW_VM: "new",
    "Windows": "windows",
    "Linux": "linux",
    guide.NOT_APPLIED: "applied",
    "Confirming the issue still exists": "confirm",
    "1. Get status.json file:": "status-json",
    '2. Check `proxyAgentStatus` in  the json file and ensure it\'s "SUCCESS." If it\'s not "SUCCESS", '
    "check these other statuses:": "chain",
    guide.SERVICE: "service",
    "Windows VM": "windows",
    "Linux VM": "linux",
    guide.SETUP_FAILED: "setup",
    "eBPF setup failed": "ebpf",
    guide.LOAD_FAILED: "load",
    guide.ATTACH_FAILED: "attach",
    guide.KEY_REJECTED: "key",
    guide.KEY_RESET: "reset",
    "Resetting a Key": "how",
}
_OWN_ROOT = frozenset({"new", "applied", "reset"})  # chapters: their ids begin anew


class Kind(StrEnum):
    SECTION = "section"
    ROW = "table row"
    STEP = "step"
    BLOCK = "code block"
    NAME = "name"  # set in `code` or **bold**
    NOTE = "note"


@dataclass(frozen=True)
class Item:
    """One thing of the guide. path: the headings above it, outermost first; line: of the guide's file, from 1."""

    id: str
    kind: Kind
    path: tuple[str, ...]
    line: int
    text: str

    @property
    def section(self) -> str:
        return self.id.partition("#")[0]

    @property
    def breadcrumb(self) -> str:
        """`New … failures > Linux, table row 3`."""
        where = " > ".join(_short(heading) for heading in self.path)
        what = self.id.partition("#")[2]
        if self.kind in (Kind.SECTION, Kind.NAME):
            return where
        number = re.sub(r"\D", "", what)
        return f"{where}, {self.kind} {number}".rstrip()


_SHORT = {guide.NEW_VM: "New VM or scale set: deployment failures", guide.NOT_APPLIED: "MSP enabled, but not applied"}


def _short(heading: str) -> str:
    """A heading as people name it: without its number, marks and subordinate clause."""
    if heading in _SHORT:
        return _SHORT[heading]
    if heading.startswith("2. Check"):
        return "Check proxyAgentStatus"
    return re.sub(r"^\d+\.\s*|[`:]", "", heading).strip()


def _slug(heading: str) -> str:
    return _WORDS.get(heading) or re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


_HEADING = re.compile(r"^(#{1,6})\s+(.*\S)\s*$")
_ROW = re.compile(r"^\|(.*)\|\s*$")
_STEP = re.compile(r"^\s*(?:\d+\.|-)\s+(.*)$")
_NAME = re.compile(r"`([^`\n]+)`|\*\*([^*\n]+)\*\*")


def walk(text: str) -> list[Item]:
    """The items of a guide in Markdown, in its order. Front matter is left out."""
    return list(_Walk(text).items())


class _Walk:
    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()
        self.path: list[tuple[int, str, str]] = []  # (level, heading, word)
        self.counts: dict[tuple[str, Kind], int] = {}
        self.names: set[str] = set()

    def items(self) -> Iterator[Item]:
        number = self._after_front_matter()
        table_line = 0  # lines into a table: its head and rule come first
        while number < len(self.lines):
            line = self.lines[number]
            if line.startswith("```"):
                end = self._fence_end(number)
                yield self._item(Kind.BLOCK, number, "\n".join(self.lines[number + 1 : end]))
                number, table_line = end + 1, 0
                continue
            if match := _HEADING.match(line):
                yield self._heading(len(match.group(1)), match.group(2), number)
            elif match := _ROW.match(line):
                table_line += 1
                if table_line > 2:
                    yield self._item(Kind.ROW, number, match.group(1).strip())
                    yield from self._named(line, number)
                number += 1
                continue
            elif line.startswith("> [!"):
                yield self._item(Kind.NOTE, number, self.lines[number + 1].lstrip("> "))
            else:
                if match := _STEP.match(line):
                    yield self._item(Kind.STEP, number, match.group(1))
                yield from self._named(line, number)
            table_line = 0
            number += 1

    def _after_front_matter(self) -> int:
        if self.lines[:1] != ["---"]:
            return 0
        return self.lines.index("---", 1) + 1

    def _fence_end(self, begin: int) -> int:
        for number in range(begin + 1, len(self.lines)):
            if self.lines[number].startswith("```"):
                return number
        return len(self.lines)

    def _heading(self, level: int, heading: str, number: int) -> Item:
        self.path = [step for step in self.path if step[0] < level]
        self.path.append((level, heading, _slug(heading)))
        return Item(self._section(), Kind.SECTION, self._headings(), number + 1, heading)

    def _headings(self) -> tuple[str, ...]:
        return tuple(heading for level, heading, _ in self.path if level > 1) or tuple(row[1] for row in self.path)

    def _section(self) -> str:
        words = [word for _, _, word in self.path]
        for number, word in enumerate(words):
            if word in _OWN_ROOT:
                words = words[number:]
        # `applied.setup.ebpf` would say less than `setup.ebpf`: the chapter has one branch each
        if words[0] == "applied" and words[1:2] in (["service"], ["setup"]):
            words = words[1:]
        if len(words) > 1 and words[0] == "guide":
            words = words[1:]
        return ".".join(words) or "top"

    def _item(self, kind: Kind, number: int, text: str) -> Item:
        section = self._section()
        count = self.counts[section, kind] = self.counts.get((section, kind), 0) + 1
        word = {Kind.ROW: "row", Kind.STEP: "step", Kind.BLOCK: "block", Kind.NOTE: "note"}[kind]
        return Item(f"{section}#{word}{count}", kind, self._headings(), number + 1, text)

    def _named(self, line: str, number: int) -> Iterator[Item]:
        for match in _NAME.finditer(line):
            name = (match.group(1) or match.group(2)).strip()
            identifier = f"{self._section()}#{name}"
            if identifier not in self.names:
                self.names.add(identifier)
                yield Item(identifier, Kind.NAME, self._headings(), number + 1, name)


@cache
def items() -> Mapping[str, Item]:
    """Everything in the guide by its id, in the guide's order."""
    return {item.id: item for item in walk(guide.excerpt(TEXT))}


def place(identifier: str) -> Item:
    """One item. Raises KeyError for an id that is not in the guide."""
    return items()[identifier]


@cache
def _order() -> Mapping[str, int]:
    return {identifier: number for number, identifier in enumerate(items())}


def position(identifier: str) -> int:
    """Where an item stands among all, from 0; what is not in the guide stands behind it."""
    return _order().get(identifier, len(_order()))


def gaps(named: Sequence[str], text: str | None = None) -> list[Item]:
    """What of the guide is not among these ids: what no rule has taken up."""
    found = items().values() if text is None else walk(text)
    return [item for item in found if item.id not in set(named)]
