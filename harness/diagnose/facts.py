"""The typed facts that evidence gives: what was read, never what it means.

Readers make them, rules read them. Each fact stands on its own and names its source: the document, the line and the
text that is quoted for it. All texts are shown as they are safe to show: no control characters but line ends and
tabs (harness.diagnose.decode.shown), each of bounded length. What could not be read is a Note.

Times: `time` is the text as it stands; `at` the moment in UTC, None where the text has no year, no zone or no date.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from harness.kernel.cgroups import Mount
from harness.msp.status import Status


@dataclass(frozen=True, slots=True)
class Source:
    """Where a fact stands: the document's name in the bundle (`a.zip/logs/status.json`), its line from 1, the quote.

    line is 0 where the fact is about the document as a whole (a file's name, say).
    """

    document: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}" if self.line else self.document


@dataclass(frozen=True, slots=True)
class Fact:
    source: Source


# --- the agent ----------------------------------------------------------------------------------------------------


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


# --- extensions and packages --------------------------------------------------------------------------------------


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


# --- services -----------------------------------------------------------------------------------------------------


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


# --- the kernel and its cgroups -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KernelRelease(Fact):
    """uname: the release, and of `uname -a` the rest."""

    release: str
    version: tuple[int, int] | None = None  # (5, 10); what it says is for people, verdicts rest on evidence
    host: str | None = None
    machine: str | None = None  # x86_64, aarch64


@dataclass(frozen=True, slots=True)
class OsRelease(Fact):
    """/etc/os-release, by name; lsb_release and hostnamectl give PRETTY_NAME, systeminfo NAME and VERSION."""

    fields: Mapping[str, str]

    @property
    def id(self) -> str | None:
        return self.fields.get("ID")

    @property
    def version(self) -> str | None:
        return self.fields.get("VERSION_ID")

    @property
    def pretty(self) -> str | None:
        return self.fields.get("PRETTY_NAME")


@dataclass(frozen=True, slots=True)
class Filesystems(Fact):
    """/proc/filesystems. whole is False for the output of `grep cgroup`: then only cgroup names can be looked for."""

    names: frozenset[str]
    whole: bool

    @property
    def cgroup2(self) -> bool:
        return "cgroup2" in self.names


@dataclass(frozen=True, slots=True)
class Mounts(Fact):
    """mount, findmnt, /proc/mounts or mountinfo, in the text's order (findmnt and the agent take the first cgroup2).

    only is the type or word that the text was limited to (`mount | grep cgroup2`, `findmnt -t cgroup2`), "" for a
    whole table, None where that is not known: then what is missing proves nothing.
    """

    mounts: tuple[Mount, ...]
    only: str | None

    @property
    def cgroup2(self) -> tuple[Mount, ...]:
        return tuple(mount for mount in self.mounts if mount.type == "cgroup2")

    @property
    def v1(self) -> tuple[Mount, ...]:
        return tuple(mount for mount in self.mounts if mount.type == "cgroup")

    def says_about(self, kind: str) -> bool:
        """Whether a file system of this type would stand here if it were mounted."""
        return self.only is not None and self.only in kind


@dataclass(frozen=True, slots=True)
class CommandLine(Fact):
    """/proc/cmdline."""

    words: tuple[str, ...]

    def get(self, name: str) -> str | None:
        """The last value of NAME=value; "" for a bare NAME; None where it is not there."""
        for word in reversed(self.words):
            if word.partition("=")[0] == name:
                return word.partition("=")[2]
        return None


@dataclass(frozen=True, slots=True)
class BpfProgram:
    """A program, as bpftool prog lists it."""

    id: int
    type: str  # cgroup_sock_addr, kprobe …
    name: str | None = None
    tag: str | None = None
    loaded: str | None = None
    uid: int | None = None
    pids: tuple[tuple[int, str], ...] = ()  # (pid, command) of who holds it


@dataclass(frozen=True, slots=True)
class BpfPrograms(Fact):
    programs: tuple[BpfProgram, ...]


@dataclass(frozen=True, slots=True)
class AttachedProgram:
    """A line of bpftool cgroup show or tree."""

    cgroup: str | None  # None: the text does not say
    id: int
    attach_type: str  # cgroup_inet4_connect (connect4 in older bpftool), as in BPF's uapi, lower case
    flags: str  # "", multi, override
    name: str | None

    @property
    def connect4(self) -> bool:
        return self.attach_type in ("connect4", "cgroup_inet4_connect")


@dataclass(frozen=True, slots=True)
class CgroupPrograms(Fact):
    programs: tuple[AttachedProgram, ...]
    whole: bool  # a whole tree: what is missing is not attached
    effective: bool = False  # asked for with `effective`


@dataclass(frozen=True, slots=True)
class VerifierLog(Fact):
    """A verifier log that stands by itself; one in a message stays in the message."""

    text: str


# --- provisioning -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CloudInitVersion(Fact):
    version: str  # 24.3.1-0ubuntu0~22.04.1, as it stands


@dataclass(frozen=True, slots=True)
class CloudInitEvent(Fact):
    """An entry of cloud-init.log."""

    time: str | None
    at: datetime | None
    place: str | None  # azure.py, util.py …
    level: str | None
    message: str
    count: int = 1
    since_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class CloudInitState(Fact):
    """cloud-init status, result.json or its status.json."""

    status: str | None  # done, error, running, degraded …
    datasource: str | None
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProvisioningReport(Fact):
    """The line that cloud-init (or another) reports to the platform: `result=error|reason=…|agent=…`."""

    result: str  # error, success
    reason: str | None
    agent: str | None  # Cloud-Init/24.3.1
    fields: Mapping[str, str]  # everything, vm_id, timestamp, exit_code … included


@dataclass(frozen=True, slots=True)
class ProvisioningError(Fact):
    """An error of the portal or of an ARM deployment: the innermost code with its text."""

    code: str  # OSProvisioningInternalError, Linux.OSProvisioningInternalError …
    message: str | None
    target: str | None = None


@dataclass(frozen=True, slots=True)
class WaagentEvent(Fact):
    """An entry of waagent.log."""

    time: str | None
    at: datetime | None
    level: str | None
    subject: str | None  # ExtHandler, Daemon, or an extension's name-version
    message: str
    count: int = 1
    since_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class OvfEnv(Fact):
    """ovf-env.xml. None: the element is not there."""

    provision_guest_proxy_agent: bool | None
    hostname: str | None = None
    preprovisioned: bool | None = None


@dataclass(frozen=True, slots=True)
class VmModel(Fact):
    """A VM or scale set as ARM, az or PowerShell prints it, with its ProxyAgentSettings.

    Values are as written (Enforce, Audit, Disabled …). Where whole is False, it is a part, and what is not there may
    have been cut off; else has_settings is False where the model has none.
    """

    name: str | None
    kind: str  # vm, vmss, vmss-instance
    has_settings: bool
    enabled: bool | None = None
    mode: str | None = None
    key_incarnation_id: int | None = None
    imds_mode: str | None = None
    imds_profile: str | None = None  # inVMAccessControlProfileReferenceId
    wireserver_mode: str | None = None
    wireserver_profile: str | None = None
    add_extension: bool | None = None
    os_type: str | None = None  # Linux, Windows
    image: str | None = None  # publisher:offer:sku:version, or an image's id
    provisioning_state: str | None = None
    vm_id: str | None = None
    path: str = ""  # where the model stands in its document: "", "[3]", "value[0]" …
    whole: bool = True


@dataclass(frozen=True, slots=True)
class InstanceStatus(Fact):
    """A status of a VM's instance view: ProvisioningState/…, PowerState/…, the VM agent."""

    about: str  # vm, vmAgent, an extension's or disk's name
    code: str
    display: str | None
    message: str | None
    time: str | None = None
    at: datetime | None = None


# --- around all this ----------------------------------------------------------------------------------------------


class IdentityKind(StrEnum):
    HOST = "host name"
    VM = "vmId"
    MACHINE = "machine-id"


@dataclass(frozen=True, slots=True)
class Identity(Fact):
    """Which machine a document is from; two of one kind with different values are two machines."""

    kind: IdentityKind
    value: str


@dataclass(frozen=True, slots=True)
class CommandOutput(Fact):
    """A command that stands behind a prompt, with what it printed; output is "" where it printed nothing.

    What a reader understood of it is a fact of its own beside this one. ended is False where nothing stands behind
    it: then the output may have been cut off.
    """

    command: str
    output: str
    ended: bool = True


class NoteKind(StrEnum):
    LEFT_OUT = "left out"  # a limit was reached, a link, a device, encrypted …
    DAMAGED = "damaged"  # cut or broken, read as far as it goes
    UNREADABLE = "unreadable"  # permission, I/O error, not there
    NOT_UNDERSTOOD = "not understood"  # no reader knows it


@dataclass(frozen=True, slots=True)
class Note:
    """Something of the evidence that is not among the facts, and why."""

    kind: NoteKind
    document: str
    what: str
    line: int = 0


@dataclass(frozen=True, slots=True)
class Document:
    """One text of the evidence: its name in the bundle, its size in bytes, what was recognized in it."""

    name: str
    size: int
    kinds: tuple[str, ...] = ()


_F = TypeVar("_F", bound=Fact)


@dataclass(frozen=True)
class Evidence:
    """All that was read, in the order of the documents and of their lines."""

    facts: Sequence[Fact]
    documents: Sequence[Document] = ()
    notes: Sequence[Note] = ()
    _kinds: dict[type[Fact], list[Any]] = field(default_factory=dict, repr=False, compare=False)

    def of(self, kind: type[_F]) -> Sequence[_F]:
        """The facts of one kind."""
        if not self._kinds:
            for fact in self.facts:
                self._kinds.setdefault(type(fact), []).append(fact)
        return self._kinds.get(kind, ())

    def first(self, kind: type[_F]) -> _F | None:
        found = self.of(kind)
        return found[0] if found else None

    def __iter__(self) -> Iterator[Fact]:
        return iter(self.facts)
