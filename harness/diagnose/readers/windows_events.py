"""Windows' event log: XML of wevtutil and the event viewer, wevtutil's and PowerShell's text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from harness.diagnose.decode import moment, shown
from harness.diagnose.facts import Identity, IdentityKind, Note, NoteKind, WindowsEvent
from harness.diagnose.limits import LIMITS
from harness.diagnose.readers import Found
from harness.diagnose.sections import Section
from harness.diagnose.values import number

MOST = 4_000
_MOST_DATA = 64

_EVENT = re.compile(r"<Event(?:\s[^>]{0,200})?>")
_END = "</Event>"
_FIELDS = {
    "provider": re.compile(r"<Provider\s[^>]{0,200}?Name=['\"]([^'\"]{1,200})['\"]"),
    "id": re.compile(r"<EventID(?:\s[^>]{0,100})?>\s{0,4}(\d{1,9})"),
    "level": re.compile(r"<Level>\s{0,4}(\d{1,3})"),
    "time": re.compile(r"<TimeCreated\s[^>]{0,40}?SystemTime=['\"]([^'\"]{1,60})['\"]"),
    "channel": re.compile(r"<Channel>([^<]{1,200})"),
    "computer": re.compile(r"<Computer>([^<]{1,200})"),
    "message": re.compile(r"<Message>([^<]{1,8000})"),
}
_TEXT = re.compile(r"^Event\[\d{1,9}\]:?[ \t]*$", re.MULTILINE)
_TEXT_FIELD = re.compile(
    r"^[ \t]{0,4}(Log Name|Source|Date|Event ID|Level|Computer|Description):[ \t]?(.*)$", re.MULTILINE
)
_LIST = re.compile(
    r"^(TimeCreated|ProviderName|Id|LevelDisplayName|Message|MachineName|LogName)\s{1,20}: (.*)$", re.MULTILINE
)
_LEVELS = {"critical": 1, "error": 2, "warning": 3, "information": 4}


def read_xml(section: Section) -> Iterator[Found]:
    computers: dict[str, int] = {}
    at, count, damaged = 0, 0, 0
    while count < MOST and (match := _EVENT.search(section.text, at)):
        end = section.text.find(_END, match.end())
        whole = end >= 0
        end = end + len(_END) if whole else min(len(section.text), match.start() + LIMITS.xml)
        piece = section.text[match.start() : min(end, match.start() + LIMITS.xml)]
        event = _parsed(piece, section, match.start()) if whole else None
        if event is None:
            damaged += 1
            event = _scanned(piece, section, match.start())
        if event:
            count += 1
            yield event
            if event.computer:
                computers.setdefault(event.computer, match.start())
        at = end
    if damaged:
        yield Note(NoteKind.DAMAGED, section.document, f"{damaged} events are no whole XML: read element by element")
    if count >= MOST:
        yield Note(NoteKind.LEFT_OUT, section.document, f"events after the first {MOST}")
    for computer, where in list(computers.items())[:8]:
        yield Identity(section.at(where), IdentityKind.HOST, computer)


def _parsed(piece: str, section: Section, begin: int) -> WindowsEvent | None:
    from defusedxml import ElementTree
    from defusedxml.common import DefusedXmlException

    try:
        tree = ElementTree.fromstring(piece)
    except (DefusedXmlException, ElementTree.ParseError, ValueError, RecursionError):
        return None
    fields: dict[str, str] = {}
    data: list[tuple[str, str]] = []
    message = None
    for element in tree.iter():
        name = _local(element)
        text = (element.text or "").strip()
        if name == "Provider":
            fields["provider"] = element.get("Name", "")
        elif name == "TimeCreated":
            fields["time"] = element.get("SystemTime", "")
        elif name in ("EventID", "Level", "Channel", "Computer"):
            fields.setdefault(name.lower(), text)
        elif name == "Message":
            message = text
        elif name in ("Data", "param1", "param2", "param3", "param4") and len(data) < _MOST_DATA:
            data.append((shown(element.get("Name", name), 64), shown(text, 8192)))
    fields["id"] = fields.pop("eventid", "")
    return _event(section, begin, fields, message, tuple(data))


def _local(element: Any) -> str:
    return element.tag.rsplit("}", 1)[-1] if isinstance(element.tag, str) else ""


def _scanned(piece: str, section: Section, begin: int) -> WindowsEvent | None:
    found = {name: hit[1] for name, pattern in _FIELDS.items() if (hit := pattern.search(piece))}
    return _event(section, begin, found, found.get("message"), ()) if "id" in found or "provider" in found else None


def _event(
    section: Section, begin: int, fields: dict[str, str], message: str | None, data: tuple[tuple[str, str], ...]
) -> WindowsEvent:
    time = fields.get("time") or None
    what = message or "; ".join(value for _, value in data if value)
    head = f"{fields.get('provider', '')} {fields.get('id', '')} {what}".strip()
    return WindowsEvent(
        section.at(begin, head or None),
        shown(fields["provider"], 200) if fields.get("provider") else None,
        number(fields.get("id")),
        number(fields.get("level")),
        shown(time, 60) if time else None,
        moment(time, zone="UTC"),
        shown(fields["channel"], 200) if fields.get("channel") else None,
        shown(fields["computer"], 200) if fields.get("computer") else None,
        shown(message, 8192) if message else None,
        data,
    )


def read_text(section: Section) -> Iterator[Found]:
    """wevtutil /f:text (`Event[0]:`) and PowerShell's Format-List."""
    starts = [match.start() for match in _TEXT.finditer(section.text)][:MOST]
    for begin, end in zip(starts, [*starts[1:], len(section.text)], strict=False):
        piece = section.text[begin : min(end, begin + 16_000)]
        fields = {match[1]: match[2].strip() for match in _TEXT_FIELD.finditer(piece)}
        described = piece.find("Description:")
        message = piece[described + len("Description:") :].strip() if described >= 0 else None
        named = {"provider": fields.get("Source", ""), "id": fields.get("Event ID", ""), "time": fields.get("Date", ""),
                 "level": str(_LEVELS.get(fields.get("Level", "").lower(), "")), "channel": fields.get("Log Name", ""),
                 "computer": fields.get("Computer", "")}  # fmt: skip
        yield _event(section, begin, named, message, ())
    if not starts:
        yield from _listed(section)


def _listed(section: Section) -> Iterator[Found]:
    fields: dict[str, str] = {}
    begin = 0
    for count, match in enumerate(_LIST.finditer(section.text)):
        if count > MOST * 7:
            break
        if match[1] in fields:
            yield from _of_list(section, begin, fields)
            fields = {}
        begin = match.start() if not fields else begin
        fields[match[1]] = match[2].strip()
    yield from _of_list(section, begin, fields)


def _of_list(section: Section, begin: int, fields: dict[str, str]) -> Iterator[WindowsEvent]:
    if "ProviderName" in fields and "Id" in fields:
        named = {"provider": fields["ProviderName"], "id": fields["Id"], "time": fields.get("TimeCreated", ""),
                 "level": str(_LEVELS.get(fields.get("LevelDisplayName", "").lower(), "")),
                 "channel": fields.get("LogName", ""), "computer": fields.get("MachineName", "")}  # fmt: skip
        yield _event(section, begin, named, fields.get("Message"), ())
