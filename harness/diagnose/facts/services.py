"""Facts of services: systemd's units and journal, Windows' services and events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from harness.diagnose.facts.base import Fact


@dataclass(frozen=True, slots=True)
class UnitState(Fact):
    """A systemd unit: systemctl status, show, list-units, is-active … None is what the text does not say."""

    name: str  # azure-proxy-agent.service
    load: str | None = None  # loaded, not-found, masked, error, bad-setting
    enabled: str | None = None  # enabled, disabled, static, masked …
    active: str | None = None  # active, inactive, failed, activating, deactivating
    sub: str | None = None  # running, dead, exited, auto-restart …
    fragment: str | None = None  # the unit's file
    pid: int | None = None  # of the main process
    executable: str | None = None  # of the main process
    exit_code: str | None = None  # exited, killed, dumped
    exit_status: str | None = None  # 1/FAILURE, 9/KILL …
    result: str | None = None  # exit-code, signal, timeout …
    since: str | None = None
    since_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class UnitFile(Fact):
    """A unit's file: what it starts, and what it is ordered against."""

    name: str | None  # from its path, where the document has one
    path: str | None
    exec_start: tuple[str, ...]
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    wanted_by: tuple[str, ...] = ()


SERVICE_STATES: Mapping[int, str] = {
    1: "STOPPED",
    2: "START_PENDING",
    3: "STOP_PENDING",
    4: "RUNNING",
    5: "CONTINUE_PENDING",
    6: "PAUSE_PENDING",
    7: "PAUSED",
}
"""dwCurrentState of SERVICE_STATUS (winsvc.h): sc prints the number in every language."""


@dataclass(frozen=True, slots=True)
class WindowsService(Fact):
    """A service or driver: sc query, queryex, qc, Get-Service. Numbers decide, so that the language does not matter."""

    name: str
    exists: bool = True  # False: OpenService failed with 1060
    state: int | None = None  # a key of SERVICE_STATES
    type: int | None = None  # 1 kernel driver, 16 own process … (winnt.h)
    win32_exit_code: int | None = None
    service_exit_code: int | None = None
    pid: int | None = None
    start_type: int | None = None  # 0 boot, 1 system, 2 automatic, 3 on demand, 4 disabled
    path: str | None = None  # BINARY_PATH_NAME
    error: int | None = None  # what the tool itself failed with: 1060, 5 …

    @property
    def state_name(self) -> str | None:
        return SERVICE_STATES.get(self.state) if self.state is not None else None


@dataclass(frozen=True, slots=True)
class UnitLog(Fact):
    """A line of the journal or of syslog."""

    identifier: str | None  # azure-proxy-agent, systemd, kernel …
    unit: str | None  # only journalctl -o json says so
    host: str | None
    pid: int | None
    time: str | None
    at: datetime | None
    priority: int | None  # 0 to 7, syslog's
    message: str
    count: int = 1
    since_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class WindowsEvent(Fact):
    """An event of Windows' event log, from its XML or from wevtutil's or PowerShell's text."""

    provider: str | None
    id: int | None
    level: int | None  # 1 critical, 2 error, 3 warning, 4 information
    time: str | None
    at: datetime | None
    channel: str | None
    computer: str | None
    message: str | None
    data: tuple[tuple[str, str], ...] = ()  # (Name, text) of EventData
