"""A boot's events in order, from both sides: what reached the platform, and what the guest wrote of itself.

The guest's clock is put on the host's by moments that both saw: cloud-init's log says when it sends a report, the
fabric when that came. Without such a moment the guest's times are left out, and why is told; nothing is guessed.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from harness.image.azure.inside import Inside
from harness.image.azure.observation import Observation

MOST = 200
"""Rows that are kept; the first ones."""

_LONGEST = 240  # characters of a row
_CLOUD_INIT = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) - (\S+?)\[(\w+)\]: (.*)$", re.MULTILINE)
_AGENT = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z? \[(\w+)\] (.*)$", re.MULTILINE)
_SENDING = "Sending health report to Azure fabric"

_ASKS = {"status": "asks for its key's status", "acquire": "asks for a key", "attest": "attests its key"}

# What of cloud-init's log is told; the rest is its own affair.
_TOLD = (
    re.compile(r"Found provisioning metadata in "),
    re.compile(
        r"Could not|Failed to activate|Reported (?:ready|failure)|Attempting IMDS|Executing \['azure-proxy-agent"
    ),
    re.compile(r"reported failure|Reporting failure|Successfully sent health report", re.IGNORECASE),
)


@dataclass(frozen=True)
class Row:
    """at: seconds since power on. side: platform or guest. coarse: the source has whole seconds, cut off."""

    at: float
    side: str
    who: str  # cloud-init, agent, guest, …
    what: str
    coarse: bool = False

    def text(self) -> str:
        when = f"{self.at:5.0f}…  " if self.coarse else f"{self.at:8.2f}"
        return f"{when} s  {self.side:<8}  {self.who:<10}  {self.what}"


@dataclass(frozen=True)
class Timeline:
    """offset: seconds to add to the guest's clock to have the host's; None with a reason in unsaid."""

    rows: Sequence[Row]
    offset: float | None
    unsaid: str = ""


def timeline(seen: Observation, inside: Inside) -> Timeline:
    """The rows of both sides, in order."""
    rows = list(of_platform(seen))
    offset = clock(seen, inside)
    unsaid = ""
    if inside.problem:
        unsaid = f"the guest's side could not be read: {inside.problem}"
    elif offset is None:
        unsaid = "the guest's own times are left out: no moment was seen by both sides"
    else:
        rows += [
            Row(at + offset - seen.began, "guest", who, what[:_LONGEST], not at % 1)
            for at, who, what in (*_cloud_init(inside), *_agent(inside))
        ]
    return Timeline(sorted(rows, key=lambda row: row.at)[:MOST], offset, unsaid)


def clock(seen: Observation, inside: Inside) -> float | None:
    """Host time less guest time, in seconds; the median of all reports, which both sides saw."""
    sent = [at for at, _, text in entries(inside.cloud_init_log) if _SENDING in text]
    came = [row.at + seen.began for row in seen.asked if row.body]
    if not sent or len(sent) < len(came):  # fewer sent than came: the log is not whole
        return None
    return statistics.median(host - guest for guest, host in zip(sent, came, strict=False)) if came else None


def of_platform(seen: Observation) -> Iterator[Row]:
    """What the platform saw; a question that is put again and again, with the same answer, is one row."""
    for lease in seen.leases:
        yield Row(lease.at, "platform", "guest", f"DHCP {lease.what}")
    yield from _of_agent(seen)
    for row in seen.asked:
        if not row.provisioner:
            continue
        path = row.target.partition("?")[0] or "/"
        way = ("through the agent, signed" if row.signed else "through the agent") if row.through_agent else "directly"
        yield Row(
            row.at, "platform", "cloud-init", f"{row.method} {row.endpoint} {path} {way}: {row.status}"[:_LONGEST]
        )
    for report in seen.reports:
        said = report.report.state + (f": {report.report.reason}" if report.report.reason else "")
        yield Row(report.at, "platform", "cloud-init", f"reports {said}"[:_LONGEST])


def _of_agent(seen: Observation) -> Iterator[Row]:
    first: dict[str, float] = {}
    times: Counter[str] = Counter()
    for event in seen.events:
        if event.what in _ASKS:
            latched = event.what == "attest" and event.status == 200
            text = f"{_ASKS[event.what]}: {event.status}" + ", the key is latched" * latched
            first.setdefault(text, event.at - seen.began)
            times[text] += 1
    for text, at in first.items():
        yield Row(at, "platform", "agent", text + (f" ({times[text]} times in all)" if times[text] > 1 else ""))


def entries(log: str) -> Iterator[tuple[float, str, str]]:
    """Time (seconds since the epoch, by the guest's clock, which counts in UTC on Azure), place and text."""
    for match in _CLOUD_INIT.finditer(log):
        if (at := _seconds(match[1].replace(" ", "T"), match[2])) is not None:
            yield at, match[3], match[5]


def _cloud_init(inside: Inside) -> Iterator[tuple[float, str, str]]:
    for at, _, text in entries(inside.cloud_init_log):
        if any(pattern.search(text) for pattern in _TOLD):
            yield at, "cloud-init", text


def _agent(inside: Inside) -> Iterator[tuple[float, str, str]]:
    for log in inside.agent_logs.values():
        for match in _AGENT.finditer(log):
            if (at := _seconds(match[1], (match[2] or "0")[:3])) is not None:
                yield at, "agent", match[4]


def _seconds(text: str, fraction: str) -> float | None:
    try:
        whole: float = datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
    return whole + int(fraction.ljust(3, "0")) / 1000
