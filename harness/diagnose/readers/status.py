"""status.json of any version: whole, cut, a fragment, escaped, several after each other; status.tag."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from harness.diagnose.decode import moment, shown
from harness.diagnose.facts import AgentStatus, Connection, Note, NoteKind, Source, StatusTag
from harness.diagnose.readers import Found
from harness.diagnose.sections import Section
from harness.diagnose.values import number, objects, text
from harness.msp import status
from harness.msp.paste import unescape_once
from harness.msp.status import MODULES, Module, Status

MOST_PIECES = 64  # statuses in one text
MOST_ROWS = 500  # of a summary
_ROUNDS = 3  # of escaping that are undone

_BEGINS = re.compile(rf'"(proxyAgentStatus|{"|".join(MODULES)})"\s{{0,40}}:\s{{0,40}}\{{')
_ESCAPED = re.compile(rf'\\"(?:proxyAgentStatus|{"|".join(MODULES)})\\{{0,7}}"')
TIME = re.compile(r'"timestamp"\s{0,40}:\s{0,40}"([^"\n]{10,40})"')
_COUNT = re.compile(r'"proxyConnectionsCount"\s{0,40}:\s{0,40}(\d{1,18})(?!\d)')
_TAG = re.compile(rf"^[ \t]{{0,8}}({'|'.join(MODULES)}) - ([^\n]*)$", re.MULTILINE)


def of_value(value: Mapping[str, Any], section: Section, begin: int, end: int) -> Iterator[Found]:
    """The status that a JSON object is; begin and end: where it stands in the section."""
    read = status.of(value)
    if read is None:
        return
    time = text(value.get("timestamp"))
    agent = value["proxyAgentStatus"]
    yield AgentStatus(
        _source(section, begin, end, "proxyAgentStatus"),
        _safe(read),
        time,
        moment(time, zone="UTC"),
        _connections(value.get("proxyConnectionSummary")),
        _connections(value.get("failedAuthenticateSummary")),
        number(agent.get("proxyConnectionsCount")),
        {module.name: _source(section, begin, end, module.name) for module in read.modules},
    )


def read(section: Section) -> Iterator[Found]:
    """The statuses in what is no whole JSON."""
    for part in _unescaped(section):
        yield from _scanned(part)


def read_tag(section: Section) -> Iterator[Found]:
    """status.tag by its lines, or by its name where it is empty."""
    if section.named.endswith("status.tag") and not section.text.strip():
        yield StatusTag(section.source(0, "(empty)"), {})
        return
    found = list(_TAG.finditer(section.text))
    if found:
        failures = {match[1]: shown(match[2].strip()) for match in found}
        yield StatusTag(section.at(found[0].start()), failures)


def _unescaped(section: Section) -> Iterator[Section]:
    r"""The section, or where a status stands in it escaped (`\"keyLatchStatus\"`), each such line unescaped.

    Unescaping makes new lines; what is found in them is quoted from the line where it stood.
    """
    if not _ESCAPED.search(section.text):
        yield section
        return
    for index, line in enumerate(section.lines):
        if not _ESCAPED.search(line):
            continue
        for _ in range(_ROUNDS):
            line = unescape_once(line)
            if not _ESCAPED.search(line):
                break
        piece = Section(section.document, line, section.source(index).line, pinned=True)
        yield piece
    yield section  # what stands in it as it is


def _scanned(section: Section) -> Iterator[Found]:
    pieces = list(_pieces(section.text))
    for begin, end in pieces[:MOST_PIECES]:
        part = section.part(begin, end)
        read = status.read(part.text)
        if read is None:
            continue
        time = TIME.search(part.text)
        count = _COUNT.search(part.text)
        places = {match[1]: part.at(match.start()) for match in _BEGINS.finditer(part.text)}
        first = next(iter(places.values()), None) or part.at(0)
        yield AgentStatus(
            first,
            _safe(read),
            shown(time[1]) if time else None,
            moment(time[1], zone="UTC") if time else None,
            connection_count=int(count[1]) if count else None,
            places=places,
        )
        if any(module.truncated for module in read.modules):
            yield Note(NoteKind.DAMAGED, section.document, "the status is cut: read as far as it goes", first.line)
    if len(pieces) > MOST_PIECES:
        yield Note(NoteKind.LEFT_OUT, section.document, f"{len(pieces) - MOST_PIECES} more statuses in one text")


def _pieces(text: str) -> Iterator[tuple[int, int]]:
    """The stretches that each hold one status: a new one begins where a member comes again."""
    seen: set[str] = set()
    starts = [(match.start(), match[1]) for match in _BEGINS.finditer(text)]
    if not starts:
        return
    previous_time = text.rfind('"timestamp"', 0, starts[0][0])
    begin = max(previous_time, 0)
    for at, name in starts:
        again = name in seen or (name == "proxyAgentStatus" and seen)
        if again:
            time = text.rfind('"timestamp"', begin, at)
            end = time if time > begin and '"proxyAgentStatus"' not in text[time:at] and at - time < 200 else at
            yield begin, end
            begin, seen = end, set()
        seen.add(name)
    yield begin, len(text)


def _safe(read: Status) -> Status:
    """The status with nothing in it that could drive a terminal."""
    modules = [
        module if _is_plain(module) else Module(
            module.name,
            shown(module.status) if module.status else module.status,
            shown(module.message) if module.message else module.message,
            {shown(key): shown(value) for key, value in module.states.items()},
            module.truncated,
        )
        for module in read.modules
    ]  # fmt: skip
    status = shown(read.status, 200) if read.status else read.status
    version = shown(read.version, 200) if read.version else read.version
    return replace(read, modules=modules, status=status, version=version)


def _is_plain(module: Module) -> bool:
    message = module.message or ""
    return message.isascii() and message.isprintable() and (module.status or "").isalpha() and not module.states


def _source(section: Section, begin: int, end: int, member: str) -> Source:
    at = section.text.find(f'"{member}"', begin, end)
    return section.at(at if at >= 0 else begin)


def _connections(value: object) -> tuple[Connection, ...]:
    rows = objects(value)[:MOST_ROWS] if isinstance(value, list) else []
    return tuple(
        Connection(
            text(row.get("userName")),
            text(row.get("ip")),
            number(row.get("port")),
            text(row.get("processCmdLine")),
            text(row.get("responseStatus")),
            number(row.get("count")),
        )
        for row in rows
    )
