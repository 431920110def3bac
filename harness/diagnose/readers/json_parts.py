"""JSON that holds what other readers know: statuses in arrays, instance metadata, the agent's telemetry events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.diagnose.decode import moment
from harness.diagnose.facts import AgentLogEvent, AgentVersion, Component, Identity, IdentityKind, Note, NoteKind
from harness.diagnose.readers import Found, extension, journal, status, vm_model
from harness.diagnose.sections import Section
from harness.diagnose.values import members, objects, text

MOST = 4_000
_BEFORE = 200  # characters in which the time stands before proxyAgentStatus


def of_inner_status(value: Mapping[str, Any], section: Section, begin: int, end: int) -> Iterator[Found]:
    """What stands under proxyAgentStatus, whole; what is around it is not there, or is cut."""
    before = section.text[max(0, begin - _BEFORE) : begin]
    time = list(status.TIME.finditer(before))
    yield from extension.of_inner(value, section, begin, time[-1][1] if time else None)
    if '"proxyAgentStatus"' in before:
        line = section.at(begin).line
        yield Note(NoteKind.DAMAGED, section.document, "the status is cut behind proxyAgentStatus", line)


def of_statuses(value: object, section: Section, begin: int, end: int) -> Iterator[Found]:
    for item in objects(value)[: status.MOST_PIECES]:
        yield from status.of_value(item, section, begin, end)


def of_journal(value: object, section: Section, begin: int, end: int) -> Iterator[Found]:
    yield from journal.of_values([(item, begin, end) for item in objects(value)], section)


def of_instance(value: Mapping[str, Any], section: Section, begin: int, end: int) -> Iterator[Found]:
    """IMDS's instance document."""
    compute = members(value.get("compute"))
    vm_id = text(compute.get("vmid"))
    if vm_id:
        at = section.text.find(vm_id, begin, end)
        yield Identity(section.at(at if at >= 0 else begin), IdentityKind.VM, vm_id.lower())
    yield from vm_model.of_compute(compute, section, begin, end)


def of_view(value: object, section: Section, begin: int, end: int) -> Iterator[Found]:
    yield from vm_model.of_view(members(value), section, begin, end)


def of_events(value: object, section: Section, begin: int, end: int) -> Iterator[Found]:
    """The agent's event files: arrays of {EventLevel, Message, Version, TimeStamp …}."""
    versions: set[str] = set()
    at = begin
    for item in objects(value)[:MOST]:
        time, message, version = text(item.get("TimeStamp")), text(item.get("Message")), text(item.get("Version"))
        found = section.text.find('"Message"', at, end)
        at = found + 1 if found >= 0 else at
        source = section.at(at, message)
        level = (text(item.get("EventLevel")) or "").upper() or None
        yield AgentLogEvent(source, Component.AGENT, time, moment(time, zone="UTC"), level, message or "")
        if version and version not in versions:
            versions.add(version)
            yield AgentVersion(source, version)
