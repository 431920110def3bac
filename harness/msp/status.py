"""Reading a status.json of any version of the agent: whole, cut, a fragment, or one that went through a word processor.

A status is data from a stranger: what is there is read, what is not is missing, and nothing raises. Whole JSON goes
through json; anything else through a scan for the members of interest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.msp.paste import decode, plain, unescape_once

MODULES = (
    "monitorStatus",
    "keyLatchStatus",
    "ebpfProgramStatus",
    "proxyListenerStatus",
    "telemetryLoggerStatus",
)
"""The members of proxyAgentStatus that say how a part of the agent is; older versions lack the last."""

LARGEST = 32 << 20  # characters that are looked at
_DEPTH = 200  # braces nested deeper are no status
_KEY = re.compile(rf'"({"|".join(MODULES)})"\s{{0,40}}:\s{{0,40}}\{{')
_AGENT = re.compile(r'"proxyAgentStatus"\s{0,40}:\s{0,40}\{')
_STRING = r'"([^"\\]*(?:\\.[^"\\]*)*)("|\\?\Z)'
_MEMBER = re.compile(rf'"(status|message|version)"\s{{0,40}}:\s{{0,40}}{_STRING}', re.DOTALL)
_STATES = re.compile(r'"states"\s{0,40}:\s{0,40}\{([^{}]{0,8192})')
_PAIR = re.compile(rf'"(\w{{1,64}})"\s{{0,40}}:\s{{0,40}}{_STRING}', re.DOTALL)
# A string of JSON holds no bare line end: one that is there is where a mail client wrapped, in place of a blank.
_WRAP = re.compile(r"[ \t]{0,8}\r?\n(?:> ?){0,8}[ \t]{0,40}")
_NESTED = re.compile(r'\\"(?:' + "|".join((*MODULES, "proxyAgentStatus")) + r')\\"')


@dataclass(frozen=True)
class Module:
    """One part of the agent."""

    name: str
    status: str | None = None  # RUNNING, STOPPED, UNKNOWN
    message: str | None = None
    states: Mapping[str, str] = field(default_factory=dict)
    truncated: bool = False  # the text ends inside it


@dataclass(frozen=True)
class Status:
    """What a status.json says."""

    modules: Sequence[Module]
    status: str | None = None  # proxyAgentStatus.status
    version: str | None = None  # the agent's
    whole: bool = False  # it was valid JSON with a proxyAgentStatus

    def module(self, name: str) -> Module | None:
        return next((module for module in self.modules if module.name == name), None)


def read(data: str | bytes) -> Status | None:
    """The status in a text; None when there is nothing of a status in it."""
    text = plain(decode(data))[:LARGEST]
    if _NESTED.search(text):  # a status inside a JSON string
        text = unescape_once(text)
    return _whole(text) or _scanned(text)


def _whole(text: str) -> Status | None:
    stripped = text.strip()
    if not stripped.startswith("{") or stripped[:4096].count("{") > _DEPTH:
        return None
    try:
        data = json.loads(stripped)
    except (ValueError, RecursionError):
        return None
    return of(data)


def of(data: object) -> Status | None:
    """The status in parsed JSON; None when it has no proxyAgentStatus."""
    agent = data.get("proxyAgentStatus") if isinstance(data, dict) else None
    if not isinstance(agent, dict):
        return None
    modules = [_module(name, agent[name]) for name in MODULES if isinstance(agent.get(name), dict)]
    return Status(modules, _text(agent.get("status")), _text(agent.get("version")), whole=True)


def _module(name: str, data: Mapping[str, Any]) -> Module:
    states = data.get("states")
    pairs = {str(key): str(value) for key, value in states.items()} if isinstance(states, dict) else {}
    return Module(name, _text(data.get("status")), _text(data.get("message")), pairs)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _scanned(text: str) -> Status | None:
    """Member by member: each module's text goes to where the next begins."""
    begins = list(_KEY.finditer(text))
    agent = _AGENT.search(text)
    if not begins and not agent:
        return None
    ends = [match.start() for match in begins[1:]] + [len(text)]
    modules = [
        _scanned_module(match.group(1), text[match.end() : end]) for match, end in zip(begins, ends, strict=False)
    ]
    head = text[agent.end() : begins[0].start() if begins else agent.end() + 4096] if agent else ""
    members = _members(head)
    return Status(modules, members.get("status", (None,))[0], members.get("version", (None,))[0])


def _members(text: str) -> dict[str, tuple[str, bool]]:
    """(text, whether it is complete) of each member that is a string, as it first stands."""
    found: dict[str, tuple[str, bool]] = {}
    for match in _MEMBER.finditer(text):
        name, raw, end = match.groups()
        found.setdefault(name, (unescape_once(_WRAP.sub(" ", raw)), end == '"'))
    return found


def _scanned_module(name: str, text: str) -> Module:
    members = _members(text)
    status, message = members.get("status"), members.get("message")
    states = _STATES.search(text)
    pairs = {key: unescape_once(value) for key, value, _ in _PAIR.findall(states.group(1))} if states else {}
    cut = any(not complete for _, complete in members.values()) or "}" not in text
    return Module(name, status[0] if status else None, message[0] if message else None, pairs, cut)
