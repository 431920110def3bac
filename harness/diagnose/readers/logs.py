"""Logs that stamp each entry: the agent's, its extension's, cloud-init's, waagent's, the serial console's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

from harness.diagnose.decode import moment
from harness.diagnose.facts import (
    AgentLogEvent,
    AgentVersion,
    CloudInitEvent,
    Component,
    ExtensionInstalled,
    WaagentEvent,
)
from harness.diagnose.readers import Found
from harness.diagnose.readers.entries import entries, left_out, when
from harness.diagnose.readers.extension import FOLDER
from harness.diagnose.sections import Section

_UTC = partial(moment, zone="UTC")

# 2024-09-13T18:52:00.123Z [INFO]    message: the header is filled up to 34 characters
AGENT = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,9})?Z?)\s{1,4}\[?(?P<level>(?i:trace|debug|information|info|"
    r"warning|warn|error|verbose))\]\s{0,8}(?:-\s)?"
)
# 2024-02-08 01:03:25,691 - azure.py[INFO]: message
CLOUD_INIT = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) - (?P<place>[\w.-]{1,64})\[(?P<level>[A-Z]{1,12})\]: "
)
# 2024-09-13T18:52:00.123456Z INFO ExtHandler ExtHandler message; before 2.2.46 2019/09/19 02:15:27.620278 INFO message
WAAGENT = re.compile(
    r"(?P<time>\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d\.\d{6}Z?) (?P<level>VERBOSE|INFO|WARNING|ERROR) "
    r"(?:(?P<thread>Daemon|ExtHandler|MonitorHandler|EnvHandler|SendTelemetryHandler|CollectLogsHandler|"
    r"TelemetryEventsCollector|Agent|MainThread|LogCollector) )?(?:(?P<subject>ExtHandler|Daemon|\[[^\]\n]{1,160}\]) )?"
)
# 2026-01-02T03:04:05.678Z azure-proxy-agent_1.0.30(812) - message: what the agent writes to the console
CONSOLE = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,9}Z) azure-proxy-agent_"
    r"(?P<version>[\w.+-]{1,40})\((?P<pid>\d{1,9})\) - "
)
_COMPONENTS = (
    ("connection", Component.CONNECTIONS),
    ("proxyagentextension", Component.EXTENSION),
    ("setup", Component.SETUP),
    ("extension", Component.EXTENSION),
    ("commandexecution", Component.EXTENSION),
    ("handler", Component.EXTENSION),
)
_EXTENSION_TEXT = re.compile(
    r"GuestProxyAgentVMExtension|ProxyAgentExt\b|HandlerEnvironment|update\.tag|status/\d+\.status"
)
_VERSION = re.compile(
    r"(?:azure-proxy-agent|GuestProxyAgent|ProxyAgent|proxy agent)[^\n]{0,80}?(?:version:?|\(| v)\s{0,2}"
    r"(\d{1,4}(?:\.\d{1,9}){1,3})\b",
    re.IGNORECASE,
)


def component(section: Section) -> Component:
    """Whose log it is: by the document's name, else by what it speaks of."""
    name = section.document.rsplit("/", 1)[-1].lower()
    for word, found in _COMPONENTS:
        if word in name:
            return found
    head = section.text[:20_000]
    return Component.EXTENSION if _EXTENSION_TEXT.search(head) and "ProxyAgent.log" not in name else Component.AGENT


def read_agent(section: Section) -> Iterator[Found]:
    whose, count = component(section), 0
    versions: set[str] = set()
    for entry in entries(section, AGENT, lambda match: match["level"]):
        count += 1
        time = entry.match["time"]
        since = when(entry.since, _UTC, entry.times)
        source = section.source(entry.line)
        yield AgentLogEvent(
            source, whose, time, _UTC(time), entry.match["level"].upper(), entry.message, entry.times, since
        )
        found = _VERSION.search(entry.message) if whose is Component.AGENT and "ersion" in entry.message else None
        if found and found[1] not in versions:
            versions.add(found[1])
            yield AgentVersion(source, found[1])
    yield from left_out(section, AGENT, count)


def read_console(section: Section) -> Iterator[Found]:
    """What the agent wrote to the serial console; its lines stand among those of others."""
    versions: set[str] = set()
    for entry in entries(section, CONSOLE, lambda match: match["version"]):
        source, time = section.source(entry.line), entry.match["time"]
        message = section.lines[entry.line][entry.match.end() :].strip()  # others' lines stand behind it
        since = when(entry.since, _UTC, entry.times)
        yield AgentLogEvent(source, Component.AGENT, time, _UTC(time), None, message, entry.times, since)
        if entry.match["version"] not in versions:
            versions.add(entry.match["version"])
            yield AgentVersion(source, entry.match["version"])


def read_cloud_init(section: Section) -> Iterator[Found]:
    count = 0
    for entry in entries(section, CLOUD_INIT, lambda match: (match["place"], match["level"])):
        count += 1
        time, level = entry.match["time"], entry.match["level"]
        since = when(entry.since, _UTC, entry.times)
        yield CloudInitEvent(
            section.source(entry.line),
            time,
            _UTC(time),
            entry.match["place"],
            level,
            entry.message,
            entry.times,
            since,
        )
    yield from left_out(section, CLOUD_INIT, count)


def read_waagent(section: Section) -> Iterator[Found]:
    count, versions = 0, set()
    for entry in entries(section, WAAGENT, lambda match: (match["subject"], match["level"])):
        count += 1
        time = entry.match["time"]
        subject = (entry.match["subject"] or entry.match["thread"] or "").strip("[]") or None
        since = when(entry.since, _UTC, entry.times)
        source = section.source(entry.line)
        yield WaagentEvent(source, time, _UTC(time), entry.match["level"], subject, entry.message, entry.times, since)
        found = FOLDER.search(subject or "") or FOLDER.search(entry.message[:400])
        if found and "ProxyAgent" in found[1] and found.groups() not in versions:
            versions.add(found.groups())
            yield ExtensionInstalled(source, found[1], found[2])
    yield from left_out(section, WAAGENT, count)
