"""Facts of the agent, its VM extension and what is installed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from harness.diagnose.facts.base import Fact, Source
from harness.msp.status import Status


@dataclass(frozen=True, slots=True)
class Connection:
    """A row of proxyConnectionSummary or failedAuthenticateSummary; None where the row does not say."""

    user: str | None
    ip: str | None
    port: int | None
    command: str | None
    status: str | None
    count: int | None


@dataclass(frozen=True, slots=True)
class AgentStatus(Fact):
    """A status.json, whole or a part of it. status.modules are the parts with status, message and states."""

    status: Status
    time: str | None = None
    at: datetime | None = None
    connections: tuple[Connection, ...] = ()
    failed: tuple[Connection, ...] = ()
    connection_count: int | None = None
    places: Mapping[str, Source] = field(default_factory=dict)  # by module name: where it stands

    def place(self, module: str) -> Source:
        return self.places.get(module, self.source)


class Component(StrEnum):
    """Whose log a line is from."""

    AGENT = "agent"  # ProxyAgent.log and its kin
    CONNECTIONS = "connections"  # ProxyAgent.Connection.log
    EXTENSION = "extension"  # the VM extension's handler
    SETUP = "setup"  # its set-up tool


@dataclass(frozen=True, slots=True)
class AgentLogEvent(Fact):
    """An entry of a log of the agent or its extension; message may have several lines (a verifier log)."""

    component: Component
    time: str | None
    at: datetime | None
    level: str | None  # as written: INFO, WARN, ERROR …
    message: str
    count: int = 1  # of entries with the same text in the document, of which this is the last
    since_at: datetime | None = None  # of the first of them


@dataclass(frozen=True, slots=True)
class StatusTag(Fact):
    """status.tag: empty after a success, else a line for each part that failed provisioning.

    Also from a provisioning report, which repeats these lines as what `azure-proxy-agent --status` printed.
    """

    failures: Mapping[str, str]  # ebpfProgramStatus → what it says


@dataclass(frozen=True, slots=True)
class AgentVersion(Fact):
    """The version that an executable of the agent says of itself (`azure-proxy-agent --version`)."""

    version: str


@dataclass(frozen=True, slots=True)
class AgentConfig(Fact):
    """proxy-agent.json (GuestProxyAgent.json on Windows): members whose value is a text, a number or a truth value."""

    values: Mapping[str, str | int | bool]


@dataclass(frozen=True, slots=True)
class ExtensionStatus(Fact):
    """What an extension's handler reports: a .status file, or the instance view's copy of it."""

    name: str | None  # Microsoft.CPlat.ProxyAgent.ProxyAgentLinux; None where the text does not say
    version: str | None
    operation: str | None
    status: str | None  # success, error, transitioning, warning; or Ready, Not Ready … of a handler
    code: int | None
    message: str | None
    time: str | None = None
    at: datetime | None = None
    substatus: tuple[tuple[str, str, str], ...] = ()  # (name, status, message)


@dataclass(frozen=True, slots=True)
class ExtensionInstalled(Fact):
    """A version of an extension is on the machine: its folder, its manifest or a line of waagent's log."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Package(Fact):
    """A package as dpkg, rpm … names it. installed is False where the tool says there is none."""

    name: str
    version: str | None
    installed: bool = True


@dataclass(frozen=True, slots=True)
class PathSeen(Fact):
    """A path of the machine: ls, which, command -v, stat, find; exists is False where the tool says there is none."""

    path: str
    exists: bool
    mode: str | None = None  # -rw------- of ls -l
    owner: str | None = None
    size: int | None = None
