"""What VM extensions say in JSON: status and heartbeat files, the manifest, the environment, waagent's aggregate."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from harness.diagnose.decode import moment
from harness.diagnose.facts import AgentStatus, ExtensionInstalled, ExtensionStatus, Source
from harness.diagnose.readers import Found
from harness.diagnose.readers import status as agent_status
from harness.diagnose.sections import Section
from harness.diagnose.values import members, number, objects, text
from harness.msp.status import MODULES

MOST = 200  # extensions, or statuses of one

FOLDER = re.compile(r"\b(Microsoft(?:\.[A-Za-z]\w{0,63}){1,6})[-/\\](\d{1,4}(?:\.\d{1,9}){1,3})(?![\w.])")
"""An extension's name and version, as its folder is named on Linux (`-`) and on Windows (a folder below)."""


def of_status(value: object, section: Section, begin: int, end: int) -> Iterator[Found]:
    """A .status file: an array of one, or the object alone."""
    name, version = _folder(section.document)
    for item in objects(value)[:MOST]:
        body = members(item.get("status"))
        time = text(item.get("timestampUTC"))
        own = text(body.get("name"))
        yield ExtensionStatus(
            section.at(_find(section, "status", begin, end)),
            name or own,
            version,
            text(body.get("operation")),
            text(body.get("status")),
            number(body.get("code")),
            _message(body),
            time,
            moment(time, zone="UTC"),
            _substatus(body.get("substatus")),
        )
        yield from _inner(body.get("substatus"), section, begin, end, time)


def of_heartbeat(value: object, section: Section, begin: int, end: int) -> Iterator[Found]:
    name, version = _folder(section.document)
    for item in objects(value)[:MOST]:
        body = members(item.get("heartbeat"))
        yield ExtensionStatus(
            section.at(begin), name, version, "heartbeat", text(body.get("status")), number(body.get("code")),
            _message(body),
        )  # fmt: skip


def of_environment(value: object, section: Section, begin: int, end: int) -> Iterator[Found]:
    """HandlerEnvironment.json: its paths name the extension and its version."""
    for item in objects(value)[:1]:
        body = members(item.get("handlerEnvironment"))
        for path in body.values():
            if isinstance(path, str) and (found := FOLDER.search(path)):
                yield ExtensionInstalled(section.at(_find(section, found[1], begin, end)), found[1], found[2])
                return


def of_manifest(value: object, section: Section, begin: int, end: int) -> Iterator[Found]:
    """HandlerManifest.json says nothing of its version; its folder does."""
    name, version = _folder(section.document)
    if name and version:
        yield ExtensionInstalled(section.at(begin), name, version)


def of_aggregate(value: Mapping[str, Any], section: Section, begin: int, end: int) -> Iterator[Found]:
    """waagent_status.json: what waagent reports of all handlers."""
    for handler in objects(members(value.get("aggregateStatus")).get("handleraggregatestatus"))[:MOST]:
        name, version = text(handler.get("handlerName")), text(handler.get("handlerVersion"))
        where = section.at(_find(section, name or "handlerName", begin, end))
        yield ExtensionStatus(
            where, name, version, None, text(handler.get("status")), number(handler.get("code")), _message(handler)
        )
        settings = members(members(handler.get("runtimeSettingsStatus")).get("settingsstatus"))
        body = members(settings.get("status"))
        if body:
            yield ExtensionStatus(
                where, name, version, text(body.get("operation")), text(body.get("status")), number(body.get("code")),
                _message(body), substatus=_substatus(body.get("substatus")),
            )  # fmt: skip
            yield from _inner(body.get("substatus"), section, begin, end, None)


def of_path(document: str) -> Iterator[ExtensionInstalled]:
    """The extension in whose folder a document lies."""
    if "Microsoft." in document and (found := FOLDER.search(document)):
        yield ExtensionInstalled(Source(document, 0, found[0]), found[1], found[2])


def _folder(document: str) -> tuple[str | None, str | None]:
    found = FOLDER.search(document)
    return (found[1], found[2]) if found else (None, None)


def _message(body: Mapping[str, Any]) -> str | None:
    plain = members(body)
    formatted = members(plain.get("formattedmessage"))
    return text(formatted.get("message")) if formatted else text(plain.get("message"))


def _substatus(value: object) -> tuple[tuple[str, str, str], ...]:
    rows = objects(value)[:MOST] if isinstance(value, list) else []
    return tuple((text(row.get("name")) or "", text(row.get("status")) or "", _message(row) or "") for row in rows)


def _inner(value: object, section: Section, begin: int, end: int, time: str | None) -> Iterator[Found]:
    """The agent's status that the extension passes on as a string in a substatus."""
    for row in objects(value)[:MOST] if isinstance(value, list) else []:
        message = members(members(row).get("formattedmessage")).get("message")
        if not isinstance(message, str) or not any(module in message for module in MODULES):
            continue
        try:
            inner = json.loads(message)
        except (ValueError, RecursionError):
            continue
        yield from of_inner(inner, section, _find(section, text(row.get("name")) or "substatus", begin, end), time)


def of_inner(inner: object, section: Section, at: int, time: str | None) -> Iterator[AgentStatus]:
    """The status in parsed JSON that stands in a string of a document; quoted from where the string is."""
    if not isinstance(inner, dict):
        return
    whole = inner if "proxyAgentStatus" in inner else {"proxyAgentStatus": inner, "timestamp": time}
    for found in agent_status.of_value(whole, section, at, at):
        if isinstance(found, AgentStatus):
            yield found


def _find(section: Section, word: str, begin: int, end: int) -> int:
    at = section.text.find(f'"{word}"', begin, end)
    return at if at >= 0 else begin
