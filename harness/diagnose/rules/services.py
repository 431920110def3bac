"""The agent's service on Linux: missing, stopped, failing, disabled; image and extension at odds; prerequisites."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from harness.diagnose import facts as f
from harness.diagnose.case import EBPF, EXECUTABLE, EXTENSION, PACKAGE, UNIT, Case, version_of
from harness.diagnose.rule import Ask, Because, Finding, Role, Rule, Sure, because
from harness.msp import diagnosis_codes as codes
from harness.msp.messages import Form

SYSTEMCTL = Ask(
    "systemctl status azure-proxy-agent.service --no-pager",
    "is the agent's service there, and does it run?",
    f"{codes.AGENT_NOT_INSTALLED.id} not found, {codes.AGENT_NOT_RUNNING.id} inactive, {codes.AGENT_CRASHED.id} failed",
)
JOURNAL = Ask(
    "journalctl -u azure-proxy-agent -b --no-pager | tail -50",
    "what were the agent's last words?",
    "why it ended",
)
DOCUMENTED_FLOOR, MEASURED_FLOOR = (5, 15), (5, 7)

_INSTALL = (
    "Add the VM extension: az vm extension set --publisher Microsoft.CPlat.ProxyAgent --name ProxyAgentLinux "
    "--vm-name VM -g GROUP. Or use an image that has azure-proxy-agent in it.",
    "Then enable MSP in the VM model, and look at `systemctl status azure-proxy-agent.service`.",
)

EXITS: Mapping[str, str] = {
    "203": "the executable cannot be run: missing, of another architecture, or not executable",
    "EXEC": "the executable cannot be run: missing, of another architecture, or not executable",
    "226": "systemd could not set up its namespaces",
    "217": "the unit's user does not exist",
    "127": "a library or command is missing",
    "9": "it was killed (SIGKILL): by somebody, or by the kernel for lack of memory",
    "KILL": "it was killed (SIGKILL): by somebody, or by the kernel for lack of memory",
    "11": "it crashed (SIGSEGV)",
    "SEGV": "it crashed (SIGSEGV)",
    "6": "it aborted (SIGABRT)",
    "ABRT": "it aborted (SIGABRT)",
    "15": "it was asked to end (SIGTERM)",
    "TERM": "it was asked to end (SIGTERM)",
    "101": "it panicked (Rust's exit code)",
}
"""By the number or word of systemd's `status=`."""


def _exit_text(unit: f.UnitState) -> str:
    return _exit_words(unit.exit_code or "exited", unit.exit_status) if unit.exit_status else (unit.result or "")


def _exit_words(code: str, status: str) -> str:
    """`exited, status=203/EXEC: the executable cannot be run …`."""
    number, _, word = status.partition("/")
    meaning = EXITS.get(word) or EXITS.get(number)
    return f"{code}, status={status}" + (f": {meaning}" if meaning else "")


def not_installed(case: Case) -> Iterator[Finding]:
    """No unit, no package, no executable, no extension."""
    if case.extension or (case.package and case.package.installed) or case.of(f.AgentVersion):
        return
    reasons = []
    if case.unit and case.unit.load == "not-found":
        reasons.append(because(case.unit, "there is no such unit"))
    if case.package and not case.package.installed:
        reasons.append(because(case.package, "the package is not installed"))
    reasons += [because(path, "the executable is not there") for path in case.of(f.PathSeen)
                if path.path in (EXECUTABLE, PACKAGE) and not path.exists]  # fmt: skip
    if not reasons or (case.unit and case.unit.load == "loaded") or case.of(f.ProvisioningError):
        return
    yield Finding(
        codes.AGENT_NOT_INSTALLED,
        "The agent is neither part of the image nor installed by its VM extension.",
        tuple(reasons),
        Sure.CERTAIN if case.unit else Sure.LIKELY,
        steps=_INSTALL,
        asks=() if case.unit else (SYSTEMCTL,),
    )


def stopped(case: Case) -> Iterator[Finding]:
    unit = case.unit
    if unit and unit.active in ("inactive", "deactivating") and unit.load not in ("not-found", "masked"):
        since = f" since {unit.since}" if unit.since else ""
        yield Finding(
            codes.AGENT_NOT_RUNNING,
            f"{UNIT} is {unit.active}{since}.",
            (because(unit, f"the unit is {unit.active}"),),
            steps=(
                "sudo systemctl enable --now azure-proxy-agent",
                "After a minute, look at /var/log/azure-proxy-agent/status.json.",
            ),
            asks=(JOURNAL,),
        )


def crashed(case: Case) -> Iterator[Finding]:
    """failed, or restarted again and again."""
    unit = case.unit
    if unit and "masked" in (unit.load, unit.enabled):
        return  # it cannot be started at all, which `disabled` tells
    if unit and (unit.active == "failed" or unit.sub == "auto-restart" or unit.load in ("error", "bad-setting")):
        how = _exit_text(unit)
        told = any(row.form in _TELLING for row in case.standing.values())
        yield Finding(
            codes.AGENT_CRASHED,
            f"{UNIT} {'fails to load' if unit.load in ('error', 'bad-setting') else 'fails'}"
            f"{f' ({how})' if how else ''}.",
            (because(unit, "the unit's state"), *_last_words(case)),
            role=Role.SYMPTOM if told else Role.CAUSE,
            steps=(
                f"{JOURNAL.command} shows its last words; mend that.",
                "sudo systemctl restart azure-proxy-agent",
            ),
            asks=() if _last_words(case) else (JOURNAL,),
        )


_ENDED = re.compile(
    r"azure-proxy-agent\.service: (?:Main process exited, code=(?P<code>\w+), status=(?P<status>[\w/]+)"
    r"|Failed with result|Start request repeated too quickly)"
)
_BEGUN = re.compile(r"Started (?:azure-proxy-agent\.service|Microsoft Azure GuestProxyAgent)")


def crashed_by_journal(case: Case) -> Iterator[Finding]:
    """systemd's lines, where nobody asked for the unit's state: the last of them counts."""
    if case.unit:
        return
    last: f.UnitLog | None = None
    ended = ""
    for line in case.of(f.UnitLog):
        if line.identifier != "systemd":
            continue
        if match := _ENDED.search(line.message):
            if match["status"]:
                ended = _exit_words(match["code"], match["status"])
            last = line
        elif _BEGUN.search(line.message):
            last = None
    if last and ended != "exited, status=0/SUCCESS":
        told = any(row.form in _TELLING for row in case.standing.values())
        yield Finding(
            codes.AGENT_CRASHED,
            f"systemd's last word on {UNIT} is that it ended{f' ({ended})' if ended else ''}.",
            (because(last, "systemd's last line about it"), *_last_words(case)),
            Sure.LIKELY,
            Role.SYMPTOM if told else Role.CAUSE,
            asks=(SYSTEMCTL,),
        )


_TELLING = frozenset(
    {Form.LOAD, Form.ATTACH_LINK, Form.ATTACH_OTHER, Form.OPEN_CGROUP, Form.LOAD_OBJECT, Form.GET_MAP, Form.GET_PROGRAM}
)


def _last_words(case: Case) -> tuple[Because, ...]:
    words = [line for line in case.of(f.UnitLog) if line.identifier == PACKAGE and (line.priority or 6) <= 4]
    words = words or [line for line in case.of(f.UnitLog) if line.identifier == PACKAGE]
    killed = [line for line in case.of(f.UnitLog) if "oom" in line.message.casefold() and PACKAGE[:15] in line.message]
    return tuple(because(line, "its last words") for line in words[-1:]) + tuple(
        because(line, "the kernel killed it for lack of memory") for line in killed[-1:]
    )


def disabled(case: Case) -> Iterator[Finding]:
    unit = case.unit
    if unit and "masked" in (unit.load, unit.enabled):
        yield Finding(
            codes.AGENT_DISABLED,
            f"{UNIT} is masked: it cannot be started at all.",
            (because(unit, "the unit is masked"),),
            steps=("sudo systemctl unmask azure-proxy-agent", "sudo systemctl enable --now azure-proxy-agent"),
        )
    elif unit and unit.enabled == "disabled" and unit.active == "active":
        yield Finding(
            codes.AGENT_DISABLED,
            f"{UNIT} runs, but is disabled: after a reboot it will not.",
            (because(unit, "the unit is disabled"),),
            role=Role.NOTE,
            steps=("sudo systemctl enable azure-proxy-agent",),
        )


def two_agents(case: Case) -> Iterator[Finding]:
    """The image's package and the extension, of different versions."""
    package, extension = case.package, case.extension
    if not (package and package.installed and package.version and extension):
        return
    ours, theirs = version_of(package.version), version_of(extension.version)
    if ours and theirs and ours[:3] != theirs[:3]:
        yield Finding(
            codes.TWO_AGENTS,
            f"The image has the package {package.version}, the VM extension brought {extension.version}.",
            (because(package, "the image's agent"), because(extension, "the extension's agent"), *_runs(case)),
            Sure.LIKELY if not any(case.failing(part, *Form) for part in ("ebpfProgramStatus",)) else Sure.CERTAIN,
            Role.NOTE if _healthy_chain(case) else Role.CAUSE,
            steps=(
                "`systemctl cat azure-proxy-agent` shows which one the unit starts.",
                "Keep one: remove the package (`sudo apt-get remove azure-proxy-agent` or `sudo dnf remove`), or the "
                "extension (az vm extension delete --name ProxyAgentLinux --vm-name VM -g GROUP).",
                "sudo systemctl daemon-reload; sudo systemctl restart azure-proxy-agent",
            ),
        )


def _healthy_chain(case: Case) -> bool:
    return all(case.running(part) for part in ("keyLatchStatus", "ebpfProgramStatus", "proxyListenerStatus"))


def _runs(case: Case) -> tuple[Because, ...]:
    version = case.status.status.version if case.status else None
    return (because(case.status, f"the agent that ran says {version}"),) if case.status and version else ()


def mixed_files(case: Case) -> Iterator[Finding]:
    """The unit starts one agent, the object is the other's."""
    starts = [(text, file) for file in case.of(f.UnitFile) for text in file.exec_start if PACKAGE in text.casefold()
              or "ProxyAgent" in text]  # fmt: skip
    if case.unit and case.unit.executable:
        starts.append((case.unit.executable, case.unit))  # type: ignore[arg-type]
    objects: list[tuple[str, f.Fact]] = []
    for config in case.of(f.AgentConfig):
        name = config.values.get("ebpfProgramName")
        if isinstance(name, str) and "/" in name:
            objects.append((name, config))
    for said in case.said:
        if said.message and said.form is Form.LOAD_OBJECT:
            objects.append((said.message.fields["path"], f.Fact(said.source)))
    for start, unit in starts:
        for path, fact in objects:
            if (EXTENSION in start) != (EXTENSION in path):
                yield Finding(
                    codes.MIXED_FILES,
                    f"The unit starts {start.split()[0]} while the eBPF object is {path}.",
                    (because(unit, "what the unit starts"), because(fact, "where the object is taken from")),
                    Sure.CERTAIN,
                    Role.NOTE if _healthy_chain(case) else Role.CAUSE,
                )
                return


def extension_failed(case: Case) -> Iterator[Finding]:
    row = case.extension_status
    if case.system == "windows" or not row:
        return
    if (row.status or "").casefold() in ("error", "not ready", "unresponsive"):
        code = f" (code {row.code})" if row.code else ""
        text = (row.message or "").strip().splitlines()
        yield Finding(
            codes.EXTENSION_FAILED,
            f"The agent's extension reports `{row.status}`{code}{': ' + text[0][:160] if text else ''}",
            (because(row, "the extension's status"),),
            Sure.CERTAIN,
            Role.SYMPTOM if any(case.failing(part, *Form) for part in ("ebpfProgramStatus",)) else Role.CAUSE,
            steps=_EXTENSION_STEPS,
        )


_FAILS = re.compile(r"exit code:? ?(-?\d{1,6})|has failed|failed to|non-?zero|ExtensionOperationError", re.IGNORECASE)


def extension_failed_by_waagent(case: Case) -> Iterator[Finding]:
    """waagent.log's last error about the agent's extension, where no status of it is at hand."""
    if case.extension_status or case.system == "windows":
        return
    for event in reversed(case.of(f.WaagentEvent)):
        if EXTENSION not in f"{event.subject or ''} {event.message}" or event.level not in ("ERROR", "WARNING"):
            continue
        match = _FAILS.search(event.message)
        if match:
            yield Finding(
                codes.EXTENSION_FAILED,
                f"waagent could not run the agent's extension{f' (exit code {match[1]})' if match[1] else ''}.",
                (because(event, "waagent's log"),),
                Sure.LIKELY,
                steps=_EXTENSION_STEPS,
                asks=(SYSTEMCTL,) if not case.unit else (),
            )
            return


_EXTENSION_STEPS = (
    "Read /var/log/azure/Microsoft.CPlat.ProxyAgent.ProxyAgentLinux/*.log from its last start.",
    "Install it again: az vm extension set --publisher Microsoft.CPlat.ProxyAgent --name ProxyAgentLinux "
    "--vm-name VM -g GROUP --force-update",
)


def below_floor(case: Case) -> Iterator[Finding]:
    """The guide's prerequisite; a version alone decides nothing, so this is a note, beside the measured floor."""
    kernel = case.kernel
    if not kernel or not kernel.version or kernel.version >= DOCUMENTED_FLOOR or case.system == "windows":
        return
    if case.failing(EBPF, Form.LOAD, Form.LOAD_OTHER):
        return  # what the verifier says is worth more, and names both floors
    works = case.running(EBPF)
    if works:
        measured = "and yet ebpfProgramStatus is RUNNING: the agent's programs load here"
    elif kernel.version < MEASURED_FLOOR:
        measured = "and below the measured floor (mainline 5.7) too: it refuses connect4, unless that was backported"
    else:
        measured = "but above the measured floor (mainline 5.7): the agent's programs may well load"
    yield Finding(
        codes.BELOW_DOCUMENTED_FLOOR,
        f"Kernel {kernel.release} is below the guide's 5.15, {measured}.",
        (because(kernel, "uname -r"),),
        Sure.LIKELY,
        Role.NOTE,
        steps=("Nothing now; upgrade the OS image when it suits.",)
        if works
        else ("Opt out of MSP, upgrade the OS image, then enable MSP.",),
    )


_UNIT = (f.UnitState,)

RULES: Sequence[Rule] = (
    Rule("service.linux.not-installed", "The agent is not installed", not_installed,
         ((f.UnitState, f.Package, f.PathSeen),), (codes.AGENT_NOT_INSTALLED,),
         ("service.linux", "service", "service.linux#azure-proxy-agent",
          "service.linux#Microsoft.CPlat.ProxyAgent.ProxyAgentLinux")),
    Rule("service.linux.stopped", "The agent's service is stopped", stopped, (_UNIT,), (codes.AGENT_NOT_RUNNING,),
         ("service.linux#block1", "service.linux")),
    Rule("service.linux.crashed", "The agent's service fails", crashed, (_UNIT,), (codes.AGENT_CRASHED,),
         ("service.linux#block1", "service.linux")),
    Rule("service.linux.crashed-by-journal", "The journal says that the agent's service ended", crashed_by_journal,
         ((f.UnitLog,),), (codes.AGENT_CRASHED,), ("service.linux",), Sure.LIKELY),
    Rule("service.linux.disabled", "The agent's service is masked or disabled", disabled, (_UNIT,),
         (codes.AGENT_DISABLED,), ("service.linux#block1",)),
    Rule("service.linux.two-agents", "Image and extension bring different agents", two_agents,
         ((f.Package,), (f.ExtensionInstalled, f.PathSeen)), (codes.TWO_AGENTS,),
         ("service.linux#Microsoft.CPlat.ProxyAgent.ProxyAgentLinux",)),
    Rule("service.linux.mixed-files", "Unit of one agent, object of the other", mixed_files,
         ((f.UnitFile, f.UnitState), (f.AgentConfig, f.AgentStatus, f.AgentLogEvent, f.UnitLog)),
         (codes.MIXED_FILES,), ("service.linux#Microsoft.CPlat.ProxyAgent.ProxyAgentLinux",)),
    Rule("service.linux.extension-failed", "The agent's VM extension reports an error", extension_failed,
         ((f.ExtensionStatus,),), (codes.EXTENSION_FAILED,),
         ("service.linux#Microsoft.CPlat.ProxyAgent.ProxyAgentLinux", "service")),
    Rule("service.linux.extension-failed-by-waagent", "waagent's log tells that the extension failed",
         extension_failed_by_waagent, ((f.WaagentEvent,),), (codes.EXTENSION_FAILED,),
         ("service.linux#Microsoft.CPlat.ProxyAgent.ProxyAgentLinux",), Sure.LIKELY),
    Rule("service.linux.below-floor", "The kernel is below the guide's prerequisite", below_floor,
         ((f.KernelRelease,),), (codes.BELOW_DOCUMENTED_FLOOR,), ("service.linux#step1", "setup.load#uname -r"),
         Sure.LIKELY, Role.NOTE),
)  # fmt: skip
