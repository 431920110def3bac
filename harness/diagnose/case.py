"""The evidence as rules look at it: the agent's status and messages as they stand now, the machine, what is installed.

Everything is worked out when first asked for. A thing that the evidence does not say is None, never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Generic, TypeVar

from harness.diagnose import facts as f
from harness.diagnose.facts import Evidence, Source
from harness.msp import messages
from harness.msp.messages import REDIRECTOR_FORMS, Form, Message
from harness.msp.status import Module

EBPF, KEY, LISTENER = "ebpfProgramStatus", "keyLatchStatus", "proxyListenerStatus"
CHAIN = (KEY, EBPF, LISTENER)
"""The guide's three, in its order."""

UNIT = "azure-proxy-agent.service"
EXTENSION = "Microsoft.CPlat.ProxyAgent.ProxyAgent"  # …Linux, …Windows
PLUGIN = "ProxyAgentVMExtension"  # what its status files call it
PACKAGE = "azure-proxy-agent"
EXECUTABLE = "/usr/sbin/azure-proxy-agent"

_EXTENSION_FOLDER = re.compile(r"/(Microsoft\.CPlat\.ProxyAgent\.ProxyAgent\w+)-(\d+(?:\.\d+){1,3})(?:/|$)")

_NOWHERE = Source("", 0, "")

_T = TypeVar("_T")


@dataclass(frozen=True)
class Known(Generic[_T]):
    """A value with the evidence for it."""

    value: _T
    source: Source


@dataclass(frozen=True)
class Said:
    """A message of the agent: about which part, where it stands, and its form where it is a known one."""

    part: str | None
    text: str
    message: Message | None
    source: Source
    at: datetime | None
    origin: str  # status, log, tag, report, extension

    @property
    def form(self) -> Form | None:
        return self.message.form if self.message else None


def version_of(text: str) -> tuple[int, ...] | None:
    """(24, 3, 1) for `24.3.1-0ubuntu0~22.04.1`, `v24.3.1`, `Cloud-Init/24.3.1`."""
    match = re.search(r"\d{1,6}(?:\.\d{1,6}){1,3}", text)
    return tuple(int(part) for part in match.group().split(".")) if match else None


def first_line(text: str, most: int = 200) -> str:
    """The first line that has something, at most so many characters of it; empty where there is none."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:most]


def part_of(message: Message) -> str:
    """Which part of the agent says a message of this form."""
    return EBPF if message.form in REDIRECTOR_FORMS or message.form is Form.GAVE_UP else KEY


def all_disabled(state: str) -> bool:
    """Whether a secureChannelState names no endpoint that is audited or enforced: `disabled`, or each one Disabled."""
    words = re.findall(r"disabled|audit|enforce|wireserver(?:andimds)?$|unknown", state.casefold())
    return bool(words) and set(words) == {"disabled"}


def is_agents_extension(name: str | None) -> bool:
    return bool(name) and (EXTENSION.casefold() in (name or "").casefold() or name == PLUGIN)


class Case:
    """The facts of one machine, with what follows from them directly. now: the moment of the diagnosis."""

    def __init__(self, evidence: Evidence, now: datetime | None = None) -> None:
        self.evidence = evidence
        self.of = evidence.of
        self.now = now or datetime.now(UTC)

    @cached_property
    def present(self) -> frozenset[type[f.Fact]]:
        return frozenset(type(fact) for fact in self.evidence.facts)

    # --- status.json ----------------------------------------------------------------------------------------------

    @cached_property
    def statuses(self) -> Sequence[f.AgentStatus]:
        """Every status.json, the newest first; those without a time in the order of the evidence, behind."""
        early = datetime.min.replace(tzinfo=UTC)
        return sorted(self.of(f.AgentStatus), key=lambda status: status.at or early, reverse=True)

    @cached_property
    def status(self) -> f.AgentStatus | None:
        """The newest that has an overall status, else the newest."""
        return next((row for row in self.statuses if row.status.status), self.statuses[0] if self.statuses else None)

    @cached_property
    def parts(self) -> Mapping[str, tuple[Module, Source, datetime | None]]:
        """Each part of the agent as the newest status that has it says."""
        found: dict[str, tuple[Module, Source, datetime | None]] = {}
        for row in self.statuses:
            for module in row.status.modules:
                source = _quoted(row.place(module.name), f"{module.name}: {module.status or 'no status'}")
                found.setdefault(module.name, (module, source, row.at))
        return found

    @cached_property
    def overall(self) -> Source | None:
        """Where proxyAgentStatus.status stands."""
        row = self.status
        return _quoted(row.source, f"proxyAgentStatus.status: {row.status.status}") if row else None

    def state(self, name: str) -> Known[str] | None:
        """keyLatchStatus.states[name], not empty."""
        part = self.parts.get(KEY)
        value = part[0].states.get(name) if part else None
        return Known(value, _quoted(part[1], f"{KEY}.states.{name}: {value}")) if part and value else None

    # --- messages -------------------------------------------------------------------------------------------------

    @cached_property
    def said(self) -> Sequence[Said]:
        """Every message of a known form, and every message of status.json, in the order of the evidence."""
        return list(self._said())

    def _said(self) -> Iterator[Said]:
        for name, (module, source, at) in self.parts.items():
            if module.message:
                words = f"{name} {module.status or ''}: {module.message}"
                yield _said(name, module.message, _quoted(source, words), at, "status")
        for tag in self.of(f.StatusTag):
            for name, text in tag.failures.items():
                yield _said(name, text, tag.source, None, "tag")
        for event in self.of(f.AgentLogEvent):
            if said := _of_log(event.message, event.source, event.at, "log"):
                yield said
        for line in self.of(f.UnitLog):
            about_agent = PACKAGE in f"{line.identifier} {line.unit}"
            if about_agent and (said := _of_log(line.message, line.source, line.at, "log")):
                yield said
        for report in self.of(f.ProvisioningReport):
            for name in ("stdout", "stderr"):
                words = report.fields.get(name, "")
                if said := _of_log(words, _quoted(report.source, f"{name}={words}"), None, "report"):
                    yield said
        for row in self.of(f.ExtensionStatus):
            for text in (row.message or "", *(message for _, _, message in row.substatus)):
                if said := _of_log(text, row.source, row.at, "extension"):
                    yield said

    @cached_property
    def standing(self) -> Mapping[str, Said]:
        """What each part says last: its status.json, or a log that is newer or all there is.

        A failure that the log tells of and that a later message undid is history, and not here.
        """
        found: dict[str, Said] = {}
        for said in self.said:
            if said.part and (said.part not in found or self._outdoes(said, found[said.part])):
                found[said.part] = said
        return found

    def _outdoes(self, said: Said, old: Said) -> bool:
        if said.form is Form.GAVE_UP or old.form is Form.GAVE_UP:  # it names no cause: whatever does is worth more
            return old.form is Form.GAVE_UP and said.form in REDIRECTOR_FORMS
        if old.origin in ("status", "tag"):
            if said.at and old.at:
                return said.at > old.at
            return old.form is None and not self.running(said.part or "")
        if said.at and old.at:
            return said.at >= old.at
        return said.origin == old.origin  # in a log without times the last one counts

    def uncut(self, said: Said) -> Said:
        """The same message as the log has it, whole, where status.json's is cut."""
        if not said.message or not said.message.cut:
            return said
        stem = _without_blanks(said.text.removesuffix(messages.CUT_MARK))
        rows = (row for row in self.said if row is not said and row.form is said.form and not _cut(row))
        return next((row for row in rows if stem in _without_blanks(row.text)), said)

    def failing(self, part: str, *forms: Form) -> Said | None:
        """The part's standing message, when it is of one of these forms."""
        said = self.standing.get(part)
        return said if said and said.form in forms else None

    def running(self, part: str) -> bool:
        """Whether status.json says that the part is RUNNING."""
        row = self.parts.get(part)
        return bool(row and row[0].status == "RUNNING")

    # --- the machine ----------------------------------------------------------------------------------------------

    @cached_property
    def system(self) -> str | None:
        """`linux`, `windows`, or None where nothing says so."""
        counts = {"linux": 0, "windows": 0}
        for kind, name in _SYSTEMS:
            counts[name] += len(self.of(kind))
        for release in self.of(f.OsRelease):
            counts["windows" if "windows" in (release.fields.get("NAME") or "").casefold() else "linux"] += 1
        for model in self.of(f.VmModel):
            if model.os_type and model.os_type.casefold() in counts:
                counts[model.os_type.casefold()] += 1
        for error in self.of(f.ProvisioningError):
            prefix = error.code.partition(".")[0].casefold()
            if prefix in counts:
                counts[prefix] += 1
        if counts["linux"] == counts["windows"]:
            return None
        return max(counts, key=lambda name: counts[name])

    @cached_property
    def kernel(self) -> f.KernelRelease | None:
        return next(iter(self.of(f.KernelRelease)), None)

    @cached_property
    def release(self) -> str | None:
        return self.kernel.release if self.kernel else None

    @cached_property
    def os(self) -> f.OsRelease | None:
        return next((row for row in self.of(f.OsRelease) if row.id), next(iter(self.of(f.OsRelease)), None))

    @cached_property
    def cloud_init(self) -> Known[tuple[int, ...]] | None:
        """cloud-init's version, from itself, its report or its package."""
        texts = [(row.version, row.source) for row in self.of(f.CloudInitVersion)]
        texts += [
            (row.agent, row.source)
            for row in self.of(f.ProvisioningReport)
            if row.agent and row.agent.casefold().startswith("cloud-init")
        ]
        texts += [
            (row.version, row.source)
            for row in self.of(f.Package)
            if row.name == "cloud-init" and row.installed and row.version
        ]
        for text, source in texts:
            if version := version_of(text):
                return Known(version, source)
        return None

    @property
    def knows_msp(self) -> bool | None:
        """Whether cloud-init is 24.3 or later."""
        return None if self.cloud_init is None else self.cloud_init.value >= (24, 3)

    # --- what is installed ----------------------------------------------------------------------------------------

    @cached_property
    def unit(self) -> f.UnitState | None:
        """The agent's unit; the one that says most."""
        rows = [row for row in self.of(f.UnitState) if row.name == UNIT]
        return max(rows, key=lambda row: sum(value is not None for value in (row.active, row.load, row.enabled)),
                   default=None)  # fmt: skip

    @cached_property
    def package(self) -> f.Package | None:
        return next((row for row in self.of(f.Package) if row.name == PACKAGE), None)

    @cached_property
    def extension(self) -> f.ExtensionInstalled | None:
        """The newest version of the agent's extension that is on the machine."""
        rows = [row for row in self.of(f.ExtensionInstalled) if is_agents_extension(row.name)]
        for path in self.of(f.PathSeen):
            if path.exists and (folder := _EXTENSION_FOLDER.search(path.path)):
                rows.append(f.ExtensionInstalled(path.source, folder[1], folder[2]))
        return max(rows, key=lambda row: version_of(row.version) or (), default=None)

    @cached_property
    def extension_status(self) -> f.ExtensionStatus | None:
        rows = [row for row in self.of(f.ExtensionStatus) if is_agents_extension(row.name) or _agents_document(row)]
        early = datetime.min.replace(tzinfo=UTC)
        return max(rows, key=lambda row: row.at or early, default=None)

    @cached_property
    def baked(self) -> Known[bool] | None:
        """Whether the agent is part of the image, as far as the evidence shows."""
        for package in self.of(f.Package):
            if package.name == PACKAGE:
                return Known(package.installed, package.source)
        for path in self.of(f.PathSeen):
            if path.path in (EXECUTABLE, PACKAGE):  # a shell that finds no such command names it without its folder
                return Known(path.exists, path.source)
        for report in self.of(f.ProvisioningReport):
            if "azure-proxy-agent not found" in (report.reason or ""):
                return Known(False, report.source)
        for version in self.of(f.AgentVersion):
            return Known(True, version.source)
        if self.unit and self.unit.load == "not-found":
            return Known(False, self.unit.source)
        if self.unit and self.unit.load == "loaded" and not self._units_executable_is_extensions:
            return Known(True, self.unit.source)
        for line in self.of(f.UnitLog):
            if line.identifier == PACKAGE:
                return Known(True, line.source)
        return None

    @cached_property
    def _units_executable_is_extensions(self) -> bool:
        texts = [self.unit.executable or "", self.unit.fragment or ""] if self.unit else []
        texts += [text for file in self.of(f.UnitFile) for text in file.exec_start]
        return any(EXTENSION in text for text in texts)

    @cached_property
    def service(self) -> Mapping[str, f.WindowsService]:
        """Windows' services by name, in lower case."""
        return {row.name.casefold(): row for row in self.of(f.WindowsService)}

    @cached_property
    def model(self) -> f.VmModel | None:
        """The VM's model, where the evidence has exactly one, however often."""
        models = {replace(row, source=_NOWHERE, path=""): row for row in self.of(f.VmModel)}
        return next(iter(models.values())) if len(models) == 1 else None

    @property
    def wants_msp(self) -> bool | None:
        """Whether the VM model enables MSP."""
        return self.model.enabled if self.model and self.model.has_settings else None

    # --- time -----------------------------------------------------------------------------------------------------

    @cached_property
    def collected(self) -> Known[datetime] | None:
        """The newest moment in the evidence that the agent's status did not give."""
        best: Known[datetime] | None = None
        for kind in (f.AgentLogEvent, f.UnitLog, f.WaagentEvent, f.WindowsEvent):
            for fact in self.of(kind):
                at = getattr(fact, "at", None)
                if at and (best is None or at > best.value):
                    best = Known(at, fact.source)
        return best

    @property
    def monitor_interval(self) -> timedelta:
        """How often the agent writes status.json: monitorIntervalInSeconds of its configuration, else 60 s."""
        for config in self.of(f.AgentConfig):
            value = config.values.get("monitorIntervalInSeconds")
            if isinstance(value, int) and 0 < value < 86400:
                return timedelta(seconds=value)
        return timedelta(seconds=60)


_SYSTEMS: tuple[tuple[type[f.Fact], str], ...] = (
    (f.UnitState, "linux"), (f.KernelRelease, "linux"), (f.Filesystems, "linux"), (f.Mounts, "linux"),
    (f.CommandLine, "linux"), (f.CloudInitVersion, "linux"), (f.ProvisioningReport, "linux"), (f.UnitLog, "linux"),
    (f.CloudInitEvent, "linux"), (f.CgroupPrograms, "linux"), (f.Package, "linux"), (f.WindowsService, "windows"),
    (f.WindowsEvent, "windows"),
)  # fmt: skip


def _agents_document(row: f.ExtensionStatus) -> bool:
    """A .status file says nothing of its extension's name; its folder does, and so do the agent's substatuses."""
    return EXTENSION in row.source.document or any("ProxyAgent" in name for name, _, _ in row.substatus)


def _quoted(source: Source, text: str) -> Source:
    """The same place with the words that matter there: of a JSON member, not its opening brace."""
    return replace(source, text=text)


def _said(part: str | None, text: str, source: Source, at: datetime | None, origin: str) -> Said:
    return Said(part, text, _parsed(text), source, at, origin)


def _of_log(text: str, source: Source, at: datetime | None, origin: str) -> Said | None:
    message = _parsed(text) if text else None
    return Said(part_of(message), text, message, source, at, origin) if message else None


_COUNT = re.compile(r"[ -]{1,4}\d{1,9}$")


def _parsed(text: str) -> Message | None:
    """The message in a text. Some versions end it with a count (`… ready to use. 122`); a mail goes on behind it."""
    if message := messages.parse(text):
        return message
    paragraph = text.partition("\n\n")[0]
    shorter = paragraph.rstrip()
    if count := _COUNT.search(shorter[-16:]):
        shorter = shorter[: len(shorter) - len(count.group())]
    return messages.parse(shorter) if shorter and shorter != text else None


def _without_blanks(text: str) -> str:
    """For comparing: logs lose blanks at the ends of lines on their way."""
    return "".join(text.split())


def _cut(said: Said) -> bool:
    return bool(said.message and said.message.cut)
