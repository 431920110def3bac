"""Which readers a text is for, by what it contains, whatever its name; and the facts that they make of it.

A row of READERS is tried where one of its signs is in the text, or its pattern is in the command or the name that the
text stands under. Readers are imported when they are first needed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from types import FunctionType
from typing import NamedTuple

from harness.diagnose import json_values
from harness.diagnose.facts import (
    AgentVersion,
    CloudInitVersion,
    CommandOutput,
    ExtensionInstalled,
    Fact,
    Identity,
    IdentityKind,
    Note,
    NoteKind,
    ProvisioningError,
)
from harness.diagnose.limits import LIMITS
from harness.diagnose.readers import Found
from harness.diagnose.readers.table import READERS
from harness.diagnose.sections import Section, split

MOST_FACTS = 50_000  # of one document
_LONGEST_OUTPUT = 2_000
_SHORT = 120  # characters of a text that may be one word, and then has no sign
_DEEPEST = 3  # texts in strings of JSON in texts …


_COMPILED = tuple((row, re.compile(row.said) if row.said else None) for row in READERS)


@cache
def _function(name: str) -> FunctionType:
    module, _, function = name.partition(":")
    found: FunctionType = getattr(import_module(f"harness.diagnose.readers.{module}"), function)
    return found


class Read(NamedTuple):
    """What was found in one document."""

    facts: list[Fact]
    notes: list[Note]
    kinds: tuple[str, ...]


def read(document: str, text: str, first: int = 1) -> Read:
    """The facts in a document's text (as decode.text_of gives it). Never raises; see limits for what it may cost.

    first: the number of the text's first line, where it is a part of the document.
    """
    kinds: dict[str, None] = {}
    found: list[Found] = []
    begins = text[:400].lstrip()
    if begins[:1] in ("{", "["):
        whole = Section(document, text, first)
        if _whole(whole, found, kinds):
            return _result(document, found, kinds)
    _texts(split(document, text, first), found, kinds, 0)
    return _result(document, found, kinds)


def _result(document: str, found: list[Found], kinds: dict[str, None]) -> Read:
    facts = list(_once([item for item in found if isinstance(item, Fact)]))
    notes = [item for item in found if isinstance(item, Note)]
    if len(facts) > MOST_FACTS:
        notes.append(Note(NoteKind.LEFT_OUT, document, f"facts after the first {MOST_FACTS:,}"))
        del facts[MOST_FACTS:]
    return Read(facts, notes, tuple(kinds))


def _once(facts: list[Fact]) -> Iterator[Fact]:
    """Facts that say the same as one before, of a kind where that adds nothing, are left out."""
    seen: set[object] = set()
    for fact in facts:
        match fact:
            case Identity(_, kind, value):
                key: object = (kind, value)
            case ProvisioningError(_, code, message, _):
                key = (code, message)
            case CloudInitVersion(_, version) | AgentVersion(_, version):
                key = (type(fact), version)
            case ExtensionInstalled(_, name, version):
                key = (name, version)
            case _:
                yield fact
                continue
        if key not in seen:
            seen.add(key)
            yield fact


def _whole(section: Section, found: list[Found], kinds: dict[str, None]) -> bool:
    """A document that is one JSON value of a known shape: nothing else is looked for."""
    try:
        value = json.loads(section.text)
    except (ValueError, RecursionError):
        return False
    return _shaped(value, section, 0, len(section.text), found, kinds, 0)


def _shaped(
    value: object, section: Section, begin: int, end: int, found: list[Found], kinds: dict[str, None], depth: int
) -> bool:
    """Whether the value is of a known shape; then its facts are added."""
    shapes = import_module("harness.diagnose.shapes")
    shape = shapes.of(value)
    if shape is None:
        return _strings(value, section, begin, found, kinds, depth)
    kinds[shape.kind] = None
    found.extend(_function(shape.read)(value, section, begin, end))
    if shape.texts:
        _strings(value, section, begin, found, kinds, depth)
    return True


def _strings(
    value: object, section: Section, begin: int, found: list[Found], kinds: dict[str, None], depth: int
) -> bool:
    """The texts in the strings of a value of no known shape: the output of a run command, say."""
    if depth >= _DEEPEST:
        return False
    shapes = import_module("harness.diagnose.shapes")
    before = len(found)
    for text in shapes.texts(value):
        line = section.at(begin).line
        at = section.text.find(json.dumps(text[:40])[1:-1][:40], begin)
        if at >= 0:
            line = section.at(at, "").line
        _texts(split(section.document, text, line, pinned=True), found, kinds, depth + 1)
    return len(found) > before


def _texts(parts: list[Section], found: list[Found], kinds: dict[str, None], depth: int) -> None:
    for part in parts:
        before = len(found)
        rest = _json(part, found, kinds, depth)
        if rest.text.strip() or part.command or not part.text:
            _lines(rest, found, kinds)
        if part.command:
            output = part.text.strip("\n")[:_LONGEST_OUTPUT]
            found.append(CommandOutput(part.prompt, part.command[:400], output, part.ended))
            kinds["commands"] = None
            if not output.strip() and not part.ended:
                what = f"nothing stands behind `{part.command[:80]}`: whether it printed nothing is not known"
                found.append(Note(NoteKind.DAMAGED, part.document, what, part.prompt.line))
        if part.host:
            found.append(Identity(part.prompt, IdentityKind.HOST, part.host))
        if len(found) - before > MOST_FACTS:
            return


def _json(section: Section, found: list[Found], kinds: dict[str, None], depth: int) -> Section:
    """Take the JSON of known shapes out of a text; what is left, with as many lines."""
    text = section.text
    if "{" not in text:
        return section
    pieces, at = [], 0
    logs: list[tuple[object, int, int]] = []
    for value, begin, end in json_values.values(text):
        if isinstance(value, dict) and "__REALTIME_TIMESTAMP" in value:
            logs.append((value, begin, end))
        elif not _shaped(value, section, begin, end, found, kinds, depth):
            continue
        pieces += [text[at:begin], "\n" * text.count("\n", begin, end)]
        at = end
    if logs:
        kinds["journal"] = None
        found.extend(_function("journal:of_values")(logs, section))
    if not pieces:
        return section
    return section.with_text("".join((*pieces, text[at:])))


def _lines(section: Section, found: list[Found], kinds: dict[str, None]) -> None:
    text, named = section.text, section.named
    if len(text) < _SHORT:
        named += "\n" + text.lower()
    cut = _cut(section) if len(text) > LIMITS.line else section
    if cut is not section:
        what = f"lines longer than {LIMITS.line:,} characters were cut there"
        found.append(Note(NoteKind.LEFT_OUT, section.document, what, section.first))
    for row, said in _COMPILED:
        if any(sign in text for sign in row.signs) or (said and said.search(named)):
            before = len(found)
            read = _function(row.read)
            found.extend(read(section if row.long else cut))
            count = sum(isinstance(item, Fact) for item in found[before:])
            if count:
                kinds[row.kind] = None
            most = read.__globals__.get("MOST", MOST_FACTS)
            if count >= most:
                what = f"{row.kind}: what follows the first {most:,}"
                found.append(Note(NoteKind.LEFT_OUT, section.document, what, section.first))


def _cut(section: Section) -> Section:
    lines = section.text.split("\n")
    if max(map(len, lines)) <= LIMITS.line:
        return section
    return section.with_text("\n".join(line[: LIMITS.line] for line in lines))
